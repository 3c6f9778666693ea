"""The report is one page that needs nothing else, and nothing from a file is markup in it."""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from common.records import Record
from referee.cli import main
from referee.plots import Dot, Series, dot_chart, line_chart, spread, thin, ticks
from referee.project import Project
from referee.report import bibtex, read_picture, render
from referee.standing import standing

MakeRecord = Callable[..., Record]
VOID = {"meta", "br", "img", "col", "line", "rect", "circle", "polyline", "path"}


class Page(HTMLParser):
    """Collects tags, attributes and text; complains about tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


@pytest.fixture
def full(project: Project, make: MakeRecord) -> Project:
    """A project with records to show."""
    for run, nll in (("k50", 84.0), ("k5", 85.0), ("k1", 86.0)):
        make("laptop", run, np.linspace(-1, 1, 50) + nll, picture=True)
    make("paper", "k50", 84.95, 0.1, picture=True)
    return project


def test_the_page_says_what_a_reader_needs(full: Project) -> None:
    page = Page(render(standing(full)))
    for expected in (
        "A Paper on Toys",
        "Ada Maker, Bo Player. ICLR 2016.",
        "k=50 < k=5 < k=1",
        "✓ reproduced",
        "≈ within tolerance",
        "≤ 84.95 ± 0.10 nats",
        "k50 better than k5 by",
        "referee run toy --preset paper --only k50",
        "some of it",
        "from memory",
        "toys, L_10",
        "A CPU, 2 cores",
        "1 min 1 s",
        '{"k": 1}',
        "0" * 64,
        "@inproceedings{maker2016a,",
        "Worse by 0.25 nats, between 0.04 and 0.46; tolerance 0.5.",
        "without the training seed",
    ):
        assert expected in page.text, expected
    assert "Stale" not in page.text


def test_the_page_asks_nothing_of_the_network(full: Project) -> None:
    text = render(standing(full))
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name == "src":
                assert (value or "").startswith("data:image/png;base64,")
            if name == "href":
                assert tag == "a"
                assert (value or "").startswith(("#", "https://arxiv.org/abs/"))
    assert not re.search(r"url\((?!#)|@import", text)


def test_the_page_can_be_read_by_everyone(full: Project) -> None:
    page = Page(render(standing(full)))
    assert page.tags[0] == ("html", {"lang": "en"})
    assert all(a.get("alt") for tag, a in page.tags if tag == "img")
    charts = [a for tag, a in page.tags if tag == "svg"]
    assert charts
    assert all(a["role"] == "img" and a["aria-labelledby"] for a in charts)
    ids = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_text_from_files_is_escaped(full: Project, make: MakeRecord) -> None:
    path = full.folder / "project.yaml"
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)> {{ 7*7 }}"
    path.write_text(
        path.read_text().replace("A Paper on Toys", f"'{evil}'").replace("some of it", f"'{evil}'").replace("MIT", evil)
    )
    make("laptop", "k5", 85.0, score={"protocol": evil}, hardware={"cpu": evil}, environment={evil: evil})
    text = render(standing(full))
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert "<script>alert(1)</script>" in page.text  # shown, not run
    assert "49" not in re.findall(r"\{\{ 7\*7 \}\}|\b49\b", page.text)


@pytest.mark.parametrize(
    ("stage", "title", "says"),
    [
        ("proposed", "Reproduction of ``A", "Reproduction · claims only · vae · stage proposed"),
        ("v1", "Reproduction of ``A", "Reproduction · submitted, not yet reviewed · vae"),
        ("v2", "Reproduction of ``A", "Reproduction · reviewed and revised, not yet decided · vae"),
        ("published", "Refereed reproduction of ``A", "Refereed reproduction · reviewed and accepted · vae"),
    ],
)
def test_it_is_called_refereed_when_it_is(
    project: Project, edit: Callable[[str, str], None], stage: str, title: str, says: str
) -> None:
    edit("stage: v1", f"stage: {stage}")
    page = Page(render(standing(project)))
    assert says in page.text
    assert f"title  = {{{title}" in page.text
    assert ("efereed reproduction" in page.text) == (stage == "published")


def test_amendments_are_shown_with_date_and_reason_wherever_the_claim_is(
    full: Project, edit: Callable[[str, str], None]
) -> None:
    assert "mendment" not in Page(render(standing(full))).text
    waits = (full.folder / "project.yaml").read_text().partition("claims:\n")[2].partition("  - id: more")[0]
    edit(waits, waits + waits.replace("nll-k50", "nll-k7").replace("run: k50", "run: k7"))
    entries = "".join(
        f"  - {{claim: {claim}, date: {day}, change: {change}, reason: {reason}}}\n"
        for claim, day, change, reason in (
            ("nll-k50", "2026-01-02", "changed", "A typing error <b>."),
            ("nll-k7", "2026-01-03", "added", "Forgotten."),
            ("nll-k9", "2026-01-04", "removed", "Not in the paper."),
        )
    )
    edit("deviations:\n", f"amendments:\n{entries}deviations:\n")
    html = render(standing(full))
    row = html.partition('<span class="sub">nll-k50</span>')[2].partition("</td>")[0]
    assert "† changed 2026-01-02: A typing error &lt;b&gt;." in row
    assert re.search(r"†</a></span> <b>84\.7", html)  # of the value that waits
    text = Page(html).text
    for said in (
        "Changed 2026-01-02, after the proposal was accepted: nll-k50. A typing error <b>.",
        "Added 2026-01-03, after the proposal was accepted: nll-k7. Forgotten.",
        "Removed 2026-01-04, after the proposal was accepted: nll-k9. Not in the paper.",
    ):
        assert said in text
    assert html.count("†") == 4  # what it means, its list, and each claim that is there


def test_a_score_in_parts_is_charted_apart(project: Project, make: MakeRecord) -> None:
    count = {"name": "active_units", "unit": "units", "kind": "exact"}
    for run, layers in (("a", [30]), ("b", [20]), ("c", [40, 5]), ("d", [50, 7])):
        record = make("laptop", run, sum(layers), None, score=count)
        parts = [
            dataclasses.replace(record.scores[0], name=f"active_units_{i}", value=n) for i, n in enumerate(layers, 1)
        ]
        if len(layers) > 1:
            record = dataclasses.replace(record, scores=[*record.scores, *parts])
            record.save(project.results / "laptop" / run)
    text = Page(render(standing(project))).text
    assert "active units: 2 runs on toys: a 30, b 20" in text
    assert "active units, 2 parts in all: 2 runs on toys: d 57, c 45" in text
    assert text.count("in parts are not comparable with these") == 1
    assert "in parts, which are added up here: active_units_1, active_units_2." in text


def test_a_chart_with_errors_points_to_the_pairs_that_decide(full: Project, make: MakeRecord) -> None:
    (full.results / "paper" / "k50" / "record.json").unlink()  # so that the chart is laptop's
    assert "not judged by these bars but paired" in Page(render(standing(full))).text
    for run in ("k50", "k5", "k1"):
        (full.results / "laptop" / run / "examples.safetensors").unlink()
    text = Page(render(standing(full))).text
    assert "two standard errors either way, of each run by itself" in text
    assert "not judged by these bars" not in text  # there are no pairs


def test_times_are_added_up_and_said_to_be(full: Project) -> None:
    text = Page(render(standing(full))).text
    assert "referee run toy --preset laptop\n  # 3 runs, whose times add up to 3 min 3 s, on A CPU, 2 cores" in text
    assert "referee run toy --preset paper\n  # 1 run, 1 min 1 s, on A CPU, 2 cores" in text


def test_runs_at_a_time_are_said(full: Project, make: MakeRecord) -> None:
    for run in ("k50", "k5", "k1"):
        make("laptop", run, hardware={"cpu": "A CPU", "cores": 2, "threads": 1})
    text = Page(render(standing(full))).text
    assert "add up to 3 min 3 s, up to 2 at a time, on A CPU, 2 cores, 1 thread a run" in text
    assert "# 1 run, 1 min 1 s, on" in text


def test_more_units_are_better_only_where_a_claim_says_so(full: Project, make: MakeRecord) -> None:
    (full.results / "paper" / "k50" / "record.json").unlink()
    for run, value in (("k50", 30.0), ("k5", 20.0)):
        make("laptop", run, value, None, score={"name": "active_units", "unit": "units", "kind": "exact"})
    text = render(standing(full))
    assert ">active units</text>" in text
    assert "is better)</text>" not in text
    path = full.folder / "project.yaml"
    claim = "{id: units, kind: value, source: Table 1, certainty: seen, metric: active_units, unit: units, "
    claim += "dataset: toys, preset: laptop, run: k50, paper_value: 30, direction: higher, tolerance: 2}"
    path.write_text(path.read_text().replace("claims:\n", f"claims:\n  - {claim}\n"))
    assert ">active units (higher is better)</text>" in render(standing(full))


def test_a_metric_of_a_network_keeps_its_name(project: Project, make: MakeRecord) -> None:
    name = "fd[lenet-fashion_mnist@78f260ff]"
    for run, value in (("k50", 30.0), ("k5", 20.0)):
        make("laptop", run, value, 1.0, score={"name": name, "unit": "squared units", "kind": "estimate"})
    page = Page(render(standing(project))).text
    assert f"{name}: 2 runs on toys: k5 20, k50 30" in page
    assert "fashion mnist" not in page


def test_curves_of_what_is_trained_on_rank_nothing(full: Project) -> None:
    (full.results / "paper" / "k50" / "record.json").unlink()  # so that the chart is laptop's
    assert "cannot be ranked" in Page(render(standing(full))).text
    for run in ("k5", "k1"):
        (full.results / "laptop" / run / "metrics.jsonl").unlink()
    text = Page(render(standing(full))).text
    assert "Learning curves" in text
    assert "cannot be ranked" not in text  # a single line


def test_without_any_record(project: Project) -> None:
    page = Page(render(standing(project)))
    assert "not attempted" in page.text
    assert "Learning curves" not in page.text
    assert "it has not run here" in page.text


def test_stale_and_broken_are_said_aloud(full: Project, make: MakeRecord) -> None:
    make("paper", "k50", 84.9, code_digest="other")
    make("smoke", "k5")
    (full.results / "smoke" / "k5" / "record.json").write_text("{")
    page = Page(render(standing(full)))
    assert "Stale. The code has changed since these ran: k50." in page.text
    assert "results/smoke/k5/record.json" in page.text


def test_the_page_is_the_same_twice(full: Project) -> None:
    assert render(standing(full)) == render(standing(full))


def test_the_command(
    full: Project, make: MakeRecord, there: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["report", "toy"]) == 0
    shown = Path(capsys.readouterr().out.splitlines()[-1])
    assert shown == there / "runs" / "toy" / "report.html"
    assert "within tolerance" in shown.read_text()
    make("smoke", "k1", base=full.runs)
    assert main(["report", "toy", "--runs", "-o", str(tmp_path / "new" / "r.html")]) == 0
    text = (tmp_path / "new" / "r.html").read_text()
    assert "runs/toy" in text
    assert "within tolerance</span>" not in text  # of what is published, nothing is said
    (tmp_path / "file").write_text("")
    assert main(["report", "toy", "-o", str(tmp_path / "file" / "r.html")]) == 1


def test_pictures_are_checked(full: Project, tmp_path: Path) -> None:
    good = full.results / "laptop" / "k50" / "samples.png"
    picture = read_picture(good)
    assert picture is not None
    assert (picture["width"], picture["height"]) == (3, 2)
    bad = full.results / "paper" / "k50" / "samples.png"
    bad.write_bytes(b"<svg onload=alert(1)>")
    assert read_picture(bad) is None
    other = tmp_path / "other.png"
    other.write_bytes(b"X" + good.read_bytes()[1:])
    assert read_picture(other) is None
    page = Page(render(standing(full)))
    assert "projects/toy/results/paper/k50/samples.png" in page.text  # named as left out


def test_bibtex_has_no_open_brace(full: Project) -> None:
    path = full.folder / "project.yaml"
    path.write_text(path.read_text().replace("A Paper on Toys", "'{\\Bad} 100% & more_{'"))
    text = bibtex(standing(full))
    assert text.count("{") == text.count("}")
    assert "Bad 100\\% \\& more\\_" in text
    assert "eprint    = {1509.00519}" in text


# -- charts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-97.3, -84.1), (1e-5, 3e-5), (0, 120_000), (5, 5)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 1 <= len(found) <= 11
    assert all(low - 1e-9 <= t <= high + 1e-9 for t in found)
    for t in found:
        mantissa = 0.0 if t == 0 else t / 10 ** math.floor(math.log10(abs(t)) - 2)
        assert mantissa == pytest.approx(round(mantissa), abs=1e-6)


@pytest.mark.parametrize("wanted", [[10, 10, 10], [0, 1, 2, 99, 100], [100, 100, 0], [50], []])
def test_labels_keep_their_distance_and_order(wanted: list[float]) -> None:
    placed = spread(wanted, 15, 0, 100)
    assert all(-1e-9 <= p <= 100 + 1e-9 for p in placed)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    assert all(placed[b] - placed[a] >= 15 - 1e-9 for a, b in itertools.pairwise(order))


def test_labels_stay_where_there_is_room() -> None:
    assert spread([10, 40, 80], 15, 0, 100) == [10, 40, 80]


def test_thinning_keeps_the_mean() -> None:
    s = thin(Series("a", list(range(1600)), [math.sin(i) for i in range(1600)]))
    assert len(s.x) == 160
    assert math.fsum(s.y) / 160 == pytest.approx(math.fsum(math.sin(i) for i in range(1600)) / 1600)
    assert s.x[-1] == 1599


def test_curves_are_drawn_where_their_numbers_are() -> None:
    # a straight line from (0, 0) to (10, 10): the plotted points lie on a straight line from bottom left to top right
    svg = line_chart(
        [Series("<up>", range(11), range(11))], title="t", x_label="step", y_label="nats", width=880, key="k"
    )
    assert "&lt;up&gt;" in svg
    assert "<up>" not in svg
    points = re.search(r'<polyline class="line c0" points="([^"]+)"', svg)
    assert points is not None
    xy = np.array([[float(v) for v in p.split(",")] for p in points.group(1).split()])
    dx, dy = np.diff(xy[:, 0]), np.diff(xy[:, 1])
    assert (dx > 0).all()
    assert (dy < 0).all()  # up is towards smaller y
    assert np.ptp(dx) < 0.2
    assert np.ptp(dy) < 0.2


@pytest.mark.parametrize("width", [880, 350])
@pytest.mark.parametrize(
    "label",
    [
        "active units, 2 parts in all (higher is better)",
        "fd[lenet-fashion_mnist@78f260ff], squared units (lower is better)",
    ],
)
def test_a_long_label_of_the_axis_stays_inside(width: int, label: str) -> None:
    svg = dot_chart(
        [Dot("a-long-name", 1.0, None), Dot("b", 2.0, None)], title="t", x_label=label, width=width, key="k"
    )
    lines = re.findall(r'class="axis" x="(\d+)" y="(\d+)" text-anchor="middle">([^<]*)<', svg)
    assert ", ".join(text for _, _, text in lines) == label
    assert len({y for _, y, _ in lines}) == len(lines)
    for x, _, text in lines:
        assert int(x) - 3.5 * len(text) >= 0  # a letter is some seven pixels wide
        assert int(x) + 3.5 * len(text) <= width


def test_dots_show_two_standard_errors() -> None:
    svg = dot_chart([Dot("a", 10.0, 1.0), Dot("b", 20.0, None, 15.0, 2.0)], title="t", x_label="x", width=880, key="k")
    centres = [float(x) for x in re.findall(r'<circle class="dot" cx="([\d.]+)"', svg)]
    per_unit = (centres[1] - centres[0]) / 10
    error = re.search(r'<line class="error" x1="([\d.]+)" x2="([\d.]+)"', svg)
    ring = re.search(r'<circle class="ring" cx="([\d.]+)"', svg)
    assert error is not None
    assert ring is not None
    assert float(error.group(2)) - float(error.group(1)) == pytest.approx(4 * per_unit, abs=0.3)
    assert float(ring.group(1)) == pytest.approx((centres[0] + centres[1]) / 2, abs=0.2)
    ringed = re.search(r'<line class="ringed" x1="([\d.]+)" x2="([\d.]+)"', svg)  # the paper's own error
    assert ringed is not None
    assert float(ringed.group(2)) - float(ringed.group(1)) == pytest.approx(8 * per_unit, abs=0.3)
    plain = dot_chart([Dot("a", 10.0, None, 11.0), Dot("b", 20.0, None)], title="t", x_label="x", width=880, key="k")
    assert "ringed" not in plain
