"""The pages on metrics and on speed say what the kept tables say, the losses first, and nothing of their own."""

import html
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from referee.plots import Bar, ratio_chart
from referee.site import measuring
from referee.site.measuring import BENCHMARKS, CONFORMANCE, number, power
from referee.site.model import load_site
from tests.site.collection import empty

ROOT = Path(__file__).parents[2]

METRIC = {"name": "fd", "family": "sample distance", "what": "A distance.", "function": "common.evaluation.fd.fd"}
ROW: Mapping[str, Any] = {
    "metric": "fd",
    "case": "two Gaussians",
    "kind": "closed form",
    "reference": "the formula",
    "package": "",
    "version": "",
    "ours": 1.5,
    "value": 1.25,
    "stderr": None,
    "measure": "relative",
    "difference": 0.2,
    "allowed": 0.5,
    "outcome": "holds",
    "note": "",
}
WORK: Mapping[str, Any] = {
    "title": "steps of a network",
    "unit": "steps/s",
    "ours": "ours",
    "peers": {"theirs": "theirs 1.2"},
    "turns": {"ours": [10.0, 20.0, 30.0], "theirs": [10.0, 10.0, 10.0]},
    "medians": {"ours": 20.0, "theirs": 10.0},
    "spread": {"ours": [10.0, 30.0], "theirs": [10.0, 10.0]},
    "fastest_peer": "theirs",
    "ratio": 2.0,
    "ratio_spread": [1.0, 3.0],
    "equal_on": "the same batch",
    "correct_to": {"what": "difference of the losses", "difference": 3e-7, "tolerance": 1e-5},
    "target": {"bound": 2.0, "at": "least", "of": "ratio"},
    "met": True,
    "why": "",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return empty(tmp_path)


def keep(root: Path, *rows: Mapping[str, Any], metrics: Any = (METRIC,)) -> None:
    path = root / CONFORMANCE
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {"command": "make conformance", "made": "2026-01-02T03:04:05+00:00", "versions": {"torch": "2.13.0"}}
    path.write_text(json.dumps(head | {"metrics": list(metrics), "rows": [{**ROW, **row} for row in rows]}))


def measure(root: Path, name: str, *rows: Mapping[str, Any], **fields: Any) -> None:
    path = root / BENCHMARKS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {"schema": 2, "name": name, "question": "Who is faster?", "measured": "2026-01-02T03:04:05+00:00"}
    head |= {"command": f"make bench NAME={name}", "hardware": {"cpu": "A CPU"}, "threads": 2, "load": [0.5, 0.4, 0.3]}
    path.write_text(json.dumps(head | {"rows": [{**WORK, **row} for row in rows]} | fields))


def made(root: Path) -> dict[str, str]:
    return {page.path: str(page.text) for page in measuring.pages(load_site(root))}


def text(page: str) -> str:
    return " ".join(re.sub("<[^>]*>", " ", page).split())


def test_there_is_a_page_for_each_table_that_was_kept_and_none_without(root: Path) -> None:
    assert made(root) == {}
    keep(root, {})
    assert list(made(root)) == ["measuring/metrics.md"]
    measure(root, "speed", {})
    assert list(made(root)) == ["measuring/metrics.md", "measuring/benchmarks.md"]


@pytest.mark.parametrize("page", [CONFORMANCE, f"{BENCHMARKS}/speed.json"])
@pytest.mark.parametrize("content", ["{", '{"rows": 3}'])
def test_a_table_that_cannot_be_read_is_one_message(page: str, content: str, root: Path) -> None:
    (root / page).parent.mkdir(parents=True)
    (root / page).write_text(content)
    with pytest.raises(
        UserError, match=f"^{page}: cannot be read .* Make it again: make (conformance|bench NAME=speed)$"
    ):
        made(root)


# -- Metrics -----------------------------------------------------------------------------------------------------------


def test_every_row_of_the_kept_table_is_on_the_page_with_its_numbers() -> None:
    table = measuring.conformance(ROOT)
    assert table is not None
    page = made(ROOT)["measuring/metrics.md"]
    shown = html.unescape(text(page))
    assert sum(len(rows) for m in table.metrics for _, rows in table.cases(m.name)) == len(table.rows)
    for row in table.rows:
        for part in (row.by, row.reference, row.shown(row.ours), row.shown(row.value)):
            assert part in shown, row
    for metric in table.metrics:
        assert f"../reference/{metric.module}.html#{metric.short}" in page


def test_outcomes_have_a_sign_and_words_and_what_fails_is_not_hidden(root: Path) -> None:
    missing = {"outcome": "not run", "package": "peer", "ours": None, "value": None, "difference": None, "version": ""}
    keep(
        root,
        {"case": "a"},
        {"case": "b", "outcome": "fails", "difference": 0.9},
        {"case": "c", "outcome": "differs", "note": "Another definition."},
        {"case": "d", **missing},
    )
    page = text(made(root)["measuring/metrics.md"])
    for words in ("✓ holds", "✗ does not hold", "≠ differs by definition", "– not run", "peer was not installed"):
        assert words in page
    assert "✓ 1 holds ≠ 1 differs by definition ✗ 1 does not hold – 1 not run" in page
    assert "Another definition. 1.5 1.25 0.2 relative none ≠" in page  # and no limit that it would be under


def test_random_values_are_shown_to_their_error_and_others_in_full(root: Path) -> None:
    keep(
        root,
        {"case": "a", "ours": 1.23456789, "value": 1.2, "stderr": 0.0213, "measure": "standard errors"},
        {"case": "b", "ours": -1.23456789, "value": -1.2},
    )
    page = text(made(root)["measuring/metrics.md"])
    assert "the formula 1.235 1.200 0.2 s.e. 0.5 s.e. shows 0.053 ✓" in page  # (0.5 + 2) 0.0213
    assert "the formula −1.23456789 −1.2 0.2 relative 0.5 ✓" in page
    assert "means of weights" not in page
    keep(root, {"metric": "ais"}, metrics=[METRIC | {"name": "ais"}])
    assert "about 0.06 nats" in text(made(root)["measuring/metrics.md"])


def test_both_pages_lead_to_the_guide_where_there_is_one(root: Path) -> None:
    keep(root, {})
    measure(root, "speed", {})
    assert not any("guides/evaluate" in page for page in made(root).values())
    (root / "docs").mkdir()
    (root / "docs" / "evaluate.md").write_text("# Measuring samples\n")
    assert all("(../guides/evaluate.md)" in page for page in made(root).values())


def test_text_of_the_tables_is_text(root: Path) -> None:
    hostile = "<script>alert(1)</script> **bold** {: onclick=x }"
    keep(root, {"case": hostile, "reference": hostile, "note": hostile}, metrics=[METRIC | {"what": hostile}])
    measure(root, "speed", {"title": hostile, "why": hostile, "met": False}, question=hostile, notes={hostile: hostile})
    for page in made(root).values():
        assert "<script>" not in page
        for line in page.split("\n"):  # in Markdown, outside of HTML, nothing of it is markup either
            if not line.startswith(("<", "{")) and "alert" in line:
                assert "**bold**" not in line
                assert "{: " not in line


# -- Speed -------------------------------------------------------------------------------------------------------------


def test_losses_stand_first_with_their_reason(root: Path) -> None:
    lost = {"title": "draws", "ratio": 0.5, "ratio_spread": [0.4, 0.6], "met": False, "why": "Calls cost more here."}
    slower = {"title": "slower, no target", "ratio": 0.9, "target": None, "met": None}
    dearer = {"title": "than ours without it", "ratio": 0.9, "target": None, "met": None, "peers": {"theirs": ""}}
    measure(root, "speed", {}, lost, slower, dearer)
    measure(root, "cost", {"title": "a command", "ratio": None, "fastest_peer": None, "met": False, "why": "Imports."})
    page = made(root)["measuring/benchmarks.md"]
    first, _, rest = page.partition("</ul>")
    losses = text(first.partition('<ul class="losses">')[2])
    assert "✗ 0.500× draws against theirs (target ≥ 2×) speed : Calls cost more here." in losses
    assert "✗ 0.900× slower, no target against theirs" in losses
    assert "✗ 20.0 steps/s a command" in losses
    assert "steps of a network" not in losses
    assert "than ours without it" not in losses  # what is compared with a part of itself
    assert "steps of a network" in text(rest)


def test_where_nothing_is_lost_nothing_is_said_of_losses(root: Path) -> None:
    measure(root, "speed", {})
    assert "falls short" not in made(root)["measuring/benchmarks.md"]


def test_a_row_says_everything_that_was_kept(root: Path) -> None:
    measure(root, "speed", {}, notes={"parameters": 1234567.0})
    page = text(made(root)["measuring/benchmarks.md"])
    for words in (
        "Equal for all: the same batch",
        "difference of the losses: 3 × 10 −7 of 10 −5 allowed",
        "20.0 steps/s 10.0 to 30.0 10.0 steps/s theirs 2.00× 1.00× to 3.00× ≥ 2× ✓ met",
        "ours ours 20.0 10.0 to 30.0 3 theirs theirs 1.2 10.0 10.0 to 10.0 3",
        "parameters 1,230,000",
        "Measured on 2026-01-02: A CPU, 2 threads, load 0.5",
        "make bench NAME=speed",
    ):
        assert words in page


def test_one_turn_has_no_range(root: Path) -> None:
    once = {"turns": {"ours": [20.0], "theirs": [10.0]}, "spread": {"ours": [20.0, 20.0], "theirs": [10.0, 10.0]}}
    measure(root, "speed", once | {"ratio_spread": [2.0, 2.0]})
    page = text(made(root)["measuring/benchmarks.md"])
    assert "20.0 steps/s one turn 10.0 steps/s theirs 2.00× ≥ 2×" in page
    assert "20.0 to 20.0" not in page


def test_bars_begin_at_one_on_a_logarithmic_axis() -> None:
    bars = [Bar("a", 2.0, 1.5, 4.0, 2.0, "2.00×", False), Bar("b", 0.5, 0.4, 0.6, None, "0.500×", True)]
    for width in (860, 350):
        chart = ratio_chart(bars, (0.25, 16), title="<t>", width=width, key="k")
        found = re.findall(r'class="bar (\w+)" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', chart)
        (ahead, x, w), (behind, y, v) = ((kind, float(x), float(w)) for kind, x, w in found)
        assert (ahead, behind) == ("ahead", "behind")
        assert y + v == pytest.approx(x, abs=0.2)  # the one ends where the other begins
        assert v == pytest.approx(w, abs=0.2)  # twice as fast is as far as half as fast
        low, high = re.findall(r'class="range" x1="([\d.]+)" x2="([\d.]+)"', chart)[0]
        assert (float(high) - float(low)) / w == pytest.approx(math.log(4 / 1.5) / math.log(2), abs=0.01)
        assert len(re.findall('class="aim"', chart)) == 1
        assert "&lt;t&gt;" in chart
    assert ratio_chart([], (1, 2), title="", width=350, key="k") == ""


def test_several_charts_have_one_axis(root: Path) -> None:
    measure(root, "fast", {"ratio": 50.0, "ratio_spread": [40.0, 60.0]})
    measure(root, "slow", {"ratio": 1.1, "ratio_spread": [1.0, 1.2]})
    page = made(root)["measuring/benchmarks.md"]
    ones = re.findall(r'class="base" x1="([\d.]+)"', page)
    assert len(ones) == 4  # wide and narrow, of two benchmarks
    assert len(set(ones)) == 2


# -- Numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (6762102.65, "6,760,000"),
        (407.047, "407"),
        (33.06, "33.1"),
        (1.0, "1.00"),
        (0.527, "0.527"),
        (-0.0123, "−0.0123"),
        (0.9999, "1.00"),
        (0, "0"),
    ],
)
def test_numbers_have_three_digits_and_no_exponent(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (4.4e-9, "4.4 × 10<sup>−9</sup>"),
        (1e-6, "10<sup>−6</sup>"),
        (0.25, "0.25"),
        (0.0, "0"),
        (9.99e-9, "10<sup>−8</sup>"),
    ],
)
def test_small_numbers_are_powers_of_ten(value: float, shown: str) -> None:
    assert power(value) == shown
