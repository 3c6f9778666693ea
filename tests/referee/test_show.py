"""What a terminal shows fits its width, says the important first, and folds what there is nothing to say about."""

import json
import re
from collections.abc import Callable

import numpy as np
import pytest
from rich.console import Console

from common.records import Record
from referee import show
from referee.cli import main
from referee.project import Project
from referee.standing import standing

MakeRecord = Callable[..., Record]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _inside(there: object) -> None:
    """Every test runs inside the invented repository."""


@pytest.fixture
def full(project: Project, make: MakeRecord) -> Project:
    """All three kinds of claim have something to show."""
    rng = np.random.default_rng(0)
    for run, nll in (("k50", 84.0), ("k5", 85.0), ("k1", 86.0)):
        make("laptop", run, rng.normal(nll, 0.1, 10_000), picture=True)
    return project


def printed(project: Project, capsys: Capture, monkeypatch: pytest.MonkeyPatch, width: int, **options: bool) -> str:
    monkeypatch.setattr(show, "console", lambda: Console(width=width, highlight=False))
    show.print_verdicts(standing(project), **options)
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 140])
def test_orderings_then_values_then_figures(
    full: Project, capsys: Capture, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    out = printed(full, capsys, monkeypatch, width)
    places = [out.index(claim) for claim in ("more-samples-help", "nll-k50", "samples *")]
    assert places == sorted(places)
    lines = [line.strip() for line in out.splitlines()]
    assert "✓ reproduced       more-samples-help *, at laptop" in lines
    assert "k=50 < k=5 < k=1" in lines
    assert "Values at laptop; claimed for paper" in lines
    assert any(line.startswith("◔ compute-limited  nll-k50") for line in lines)
    (step,) = [line for line in lines if line.startswith("k50 better than k5")]
    assert re.fullmatch(r"k50 better than k5 by [\d.]+ ± [\d.]+ nats \(paired, n = 10,000\)", step)  # on one line
    assert lines[-1] == "1 reproduced, 1 compute-limited, 1 for a person to judge"
    assert ("Table 1, k=50" in out) == (width == 140)  # where a value is from, if there is room


def test_long_names_stay_within_the_width(full: Project, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    path = full.folder / "project.yaml"
    name = "a-claim-with-" + 3 * "a-very-long-"
    path.write_text(path.read_text().replace("nll-k50", f"{name}name").replace("84.70", "-123456.789"))
    out = printed(full, capsys, monkeypatch, 80)
    assert max(map(len, out.splitlines())) <= 80
    assert "◔ compute-limited" in out
    assert "−123456.789" in out


def test_the_papers_error_leaves_room_for_ours(
    project: Project,
    make: MakeRecord,
    edit: Callable[[str, str], None],
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    edit("tolerance: 0.5", "tolerance: 0.5\n    paper_stderr: 0.0512")
    edit("paper_value: 84.70", "paper_value: -1384.70")
    edit("id: nll-k50", "id: log-likelihood-of-k50")
    make("paper", "k50", -1384.7, 0.0123)
    out = printed(project, capsys, monkeypatch, 80)
    lines = [line.split() for line in out.splitlines()]
    assert ["✓", "reproduced", "log-likelihood-of-k50", "−1384.70", "≤", "−1384.700", "±", "0.012", "nats"] in lines
    assert ["±", "0.0512"] in lines
    assert "−1384.70 ± 0.0512  ≤ −1384.700 ± 0.012 nats" in printed(project, capsys, monkeypatch, 140)


def test_what_was_not_attempted_is_counted_and_listed_when_asked(
    project: Project, make: MakeRecord, capsys: Capture
) -> None:
    make("laptop", "k50")
    assert main(["verdicts", "toy"]) == 0
    out = capsys.readouterr().out
    assert "more-samples-help" not in out
    assert "· 2 not attempted: 'referee verdicts toy --all' lists them" in out
    assert main(["verdicts", "toy", "--all"]) == 0
    out = capsys.readouterr().out
    assert "· not attempted    more-samples-help *, claimed for laptop" in out
    assert "Not all its runs are there (laptop: k5, k1 missing)." in out
    assert "lists them" not in out
    assert main(["verdicts", "toy", "--format", "json"]) == 0  # for programs, everything
    assert len(json.loads(capsys.readouterr().out)[0]["verdicts"]) == 3


def test_the_hint_leads_to_the_records_that_were_judged(project: Project, make: MakeRecord, capsys: Capture) -> None:
    make("laptop", "k50", base=project.runs)
    assert main(["verdicts", "toy", "--runs"]) == 0
    assert "'referee verdicts toy --runs --all' lists them" in capsys.readouterr().out


def test_a_record_that_cannot_be_compared_is_not_folded(project: Project, make: MakeRecord, capsys: Capture) -> None:
    make("paper", "k50", score={"split": "train"})
    assert main(["verdicts", "toy"]) == 0
    out = capsys.readouterr().out
    assert "· not attempted    nll-k50" in out
    assert "nll-k50: It has no score 'nll' on the test split" in out


def test_other_data_is_said_where_a_value_stands(project: Project, make: MakeRecord, capsys: Capture) -> None:
    make("smoke", "k50", 23.0, data="digits")
    assert main(["verdicts", "toy"]) == 0
    out = capsys.readouterr().out
    assert "Values at smoke, on digits; claimed for paper" in out
    assert out.count("digits") == 1  # and said once


def test_scores_say_once_how_they_were_measured(
    make: MakeRecord, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "console", lambda: Console(width=80, highlight=False))
    protocol = "toys binarised by their levels, L_5000, on ten thousand test examples"
    records = [make("laptop", run, score={"protocol": protocol}) for run in ("k50", "k5")]
    show.print_scores([*records, make("laptop", "k1", score={"protocol": "toys, L_10"})])
    out = capsys.readouterr().out
    assert out.count(f"nll: {protocol}") == out.count("nll: toys, L_10") == 1
    assert out.count("≤ 85.00 ± 0.20 nats") == 3
    assert out.count("1 min 1 s") == 3


AMENDMENTS = """\
amendments:
  - {claim: nll-k50, date: 2026-01-02, change: changed, reason: "Table 1 [bold]prints[/bold] | two values."}
  - {claim: samples, date: 2026-01-02, change: changed, reason: "Table 1 [bold]prints[/bold] | two values."}
  - {claim: gone, date: 2026-01-03, change: removed, reason: Nobody can measure it.}
deviations:
"""


def test_amended_claims_are_marked_and_explained(
    full: Project, edit: Callable[[str, str], None], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "†" not in printed(full, capsys, monkeypatch, 200, every=True)
    edit("deviations:\n", AMENDMENTS)
    out = printed(full, capsys, monkeypatch, 200, every=True)
    assert "nll-k50 †" in out
    assert "samples †" in out
    assert "more-samples-help †" not in out
    assert (
        "† Changed 2026-01-02, after the proposal was accepted: nll-k50, samples. "
        "Table 1 [bold]prints[/bold] | two values.\n"
        "† Removed 2026-01-03, after the proposal was accepted: gone. Nobody can measure it.\n"
    ) in out
    assert main(["verdicts", "--format", "json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["amendments"][2] == {
        "claim": "gone",
        "date": "2026-01-03",
        "change": "removed",
        "reason": "Nobody can measure it.",
    }
