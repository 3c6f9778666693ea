"""Pictures of intervals show what was weighed: in the right places, on one scale, and in words."""

import dataclasses
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

from common.records import Record
from referee.intervals import EXAMPLES, EXPLAINED, PAPER_AT, TOLERANCE_AT, WIDTH, explanation, interval_picture
from referee.project import Project
from referee.standing import standing
from referee.verdicts import Verdict
from referee.weighing import Shortfall

MakeRecord = Callable[..., Record]
A_TOLERANCE = TOLERANCE_AT - PAPER_AT  # pixels


@pytest.fixture
def judged(project: Project, make: MakeRecord) -> Verdict:
    make("paper", "k50", 84.95, 0.1)
    return standing(project).verdicts[0]


def drawn(v: Verdict, **changes: float | bool | None) -> ET.Element:
    """The picture of a verdict, with changes to its shortfall."""
    assert v.shortfall is not None
    short = dataclasses.replace(v.shortfall, **changes)
    return ET.fromstring(interval_picture(dataclasses.replace(v, shortfall=short), "a"))


def line(picture: ET.Element, name: str) -> list[tuple[float, float]]:
    return [(float(x.attrib["x1"]), float(x.attrib["x2"])) for x in picture.iter("line") if x.attrib["class"] == name]


def arrows(picture: ET.Element) -> list[str]:
    """The ways in which the interval runs out of the picture."""
    found = []
    for path in picture.iter("path"):
        first, tip, *_ = [float(x) for x in re.findall(r"[ML](-?[\d.]+)", path.attrib["d"])] + [0.0, 0.0]
        if "L" in path.attrib["d"]:
            found.append("right" if tip > first else "left")
    return found


def test_every_number_stands_in_its_place(judged: Verdict) -> None:
    picture = drawn(judged, by=0.25, low=-0.5, high=0.5, tolerance=0.5)
    assert line(picture, "paper") == [(PAPER_AT, PAPER_AT)]
    assert line(picture, "margin") == [(TOLERANCE_AT, TOLERANCE_AT)]
    assert line(picture, "known") == [(PAPER_AT - A_TOLERANCE, TOLERANCE_AT)]
    (dot,) = picture.iter("circle")
    assert float(dot.attrib["cx"]) == PAPER_AT + A_TOLERANCE / 2
    zones = [(r.attrib["class"], float(r.attrib["x"]), float(r.attrib["width"])) for r in picture.iter("rect")]
    assert zones == [
        ("zone good", 0, PAPER_AT),
        ("zone near", PAPER_AT, A_TOLERANCE),
        ("zone bad", TOLERANCE_AT, WIDTH - TOLERANCE_AT),
    ]
    assert arrows(picture) == []


def test_the_tolerance_is_the_scale(judged: Verdict) -> None:
    small, large = (
        drawn(judged, **{name: unit * x for name, x in (("by", 0.25), ("low", 0.1), ("high", 0.4), ("tolerance", 0.5))})
        for unit in (1, 1000)
    )
    assert line(small, "known") == line(large, "known")


@pytest.mark.parametrize(
    ("by", "low", "high", "ways", "dots"),
    [
        (0.0, -5.0, 5.0, ["right", "left"], 1),
        (50.0, 49.0, 51.0, ["right"], 0),
        (-50.0, -51.0, -49.0, ["left"], 0),
        (50.0, None, None, ["right"], 0),
        (-50.0, None, None, ["left"], 0),
        (0.2, None, None, [], 1),
        (1.0, 0.4, 9.0, ["right"], 1),
    ],
)
def test_what_runs_out_of_the_picture_ends_in_an_arrow(
    judged: Verdict, by: float, low: float | None, high: float | None, ways: list[str], dots: int
) -> None:
    picture = drawn(judged, by=by, low=low, high=high, tolerance=0.5)
    assert sorted(arrows(picture)) == sorted(ways)
    assert len(list(picture.iter("circle"))) == dots
    for a, b in line(picture, "known"):
        assert 0 <= a <= b <= WIDTH


def test_near_has_a_tolerance_on_both_sides(judged: Verdict) -> None:
    picture = drawn(judged, by=0.1, low=-0.1, high=0.3, near=True)
    ((paper, _),) = line(picture, "paper")
    left, right = (a for a, _ in line(picture, "margin"))
    assert paper - left == right - paper > 0
    assert [r.attrib["class"] for r in picture.iter("rect")] == ["zone bad", "zone near", "zone bad"]
    assert "better" not in "".join(picture.itertext()).partition("tolerance 0.5")[2]


def test_without_tolerance_there_are_two_zones(judged: Verdict) -> None:
    picture = drawn(judged, by=2.0, low=2.0, high=2.0, tolerance=0.0)
    assert [r.attrib["class"] for r in picture.iter("rect")] == ["zone good", "zone bad"]
    (dot,) = picture.iter("circle")
    assert float(dot.attrib["cx"]) > PAPER_AT
    assert len(list(drawn(judged, by=0.0, low=0.0, high=0.0, tolerance=0.0).iter("circle"))) == 1


def test_a_picture_says_in_words_what_it_shows(judged: Verdict) -> None:
    picture = ET.fromstring(interval_picture(judged, "weighed-nll-k50"))
    title = picture.find("title")
    assert title is not None
    assert title.text == "within tolerance: worse by 0.25 nats, between 0.04 and 0.46; tolerance 0.5"
    assert picture.attrib["role"] == "img"
    assert picture.attrib["aria-labelledby"] == title.attrib["id"] == "weighed-nll-k50"
    hostile = dataclasses.replace(judged, unit="<script>alert(1)</script>")
    assert "<script" not in interval_picture(hostile, "a")


def test_what_was_not_judged_has_no_picture(project: Project, make: MakeRecord) -> None:
    make("laptop", "k50", 84.95, 0.1)
    assert [interval_picture(v, "a") for v in standing(project).verdicts] == ["", "", ""]


def test_the_explanation_is_what_the_rule_says() -> None:
    text = (EXPLAINED.parent / "readers.md").read_text(encoding="utf-8")
    for status, value, stderr in EXAMPLES:
        half = 2 * stderr + 0.005
        short = Shortfall(value - 84.7, value - 84.7 - half, value - 84.7 + half, 0.5)
        assert short.outcome == {"not reproduced": "further off"}.get(status, status)
        (row,) = [
            r
            for r in text.splitlines()
            if r.replace("\N{NO-BREAK SPACE}", " ").startswith(f"| {value:.2f} ± {stderr:.2f} |")
        ]
        ends = [float(x.replace("−", "-")) for x in re.findall(r"−?\d\.\d\d", row.split("|")[2])]
        assert ends == [pytest.approx(short.low, abs=0.0051), pytest.approx(short.high, abs=0.0051)]
        assert status in row


@pytest.mark.parametrize("alone", [True, False])
def test_the_explanation_is_drawn(alone: bool) -> None:
    picture = ET.fromstring(explanation(alone=alone))
    text = "".join(picture.itertext())
    for status, value, _ in EXAMPLES:
        assert status in text
        assert f"{value:.2f}" in text
    assert ("prefers-color-scheme: dark" in text) == alone  # on a page its style sheet has the colours


def test_the_explanation_in_the_repository_is_the_present_one() -> None:
    assert EXPLAINED.read_text(encoding="utf-8") == explanation(alone=True), "run python -m referee.intervals"
