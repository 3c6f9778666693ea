"""Verdicts follow from claims and records by the rules in `referee.verdicts`."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from common.records import Record, Score
from referee.project import Project
from referee.show import TOO_GOOD, summary, verdict_text
from referee.standing import standing
from referee.tables import verdict_cell
from referee.verdicts import Evidence, Verdict, compare, show, show_score, show_step

MakeRecord = Callable[..., Record]
Edit = Callable[[str, str], None]
WRONG_WAY = "the wrong way by more than two but less than 2.3 standard errors, as one of 2 steps may by chance"


def verdict(project: Project, claim: str) -> Verdict:
    return next(v for v in standing(project).verdicts if v.claim == claim)


# -- values: the claim is 84.70 with a tolerance of 0.5, lower is better, at preset paper; test_weighing has the rule --


@pytest.mark.parametrize(
    ("ours", "stderr", "status"),
    [
        (84.70, 0.2, "reproduced"),
        (84.90, 0.1, "reproduced"),  # worse, by less than the errors
        (84.0, 0.2, "reproduced"),
        (84.95, 0.1, "within tolerance"),
        (85.20, 0.1, "inconclusive"),
        (84.70, 0.4, "inconclusive"),
        (84.70, None, "inconclusive"),
        (85.50, 0.1, "not reproduced"),
        (90.0, 0.2, "not reproduced"),
    ],
)
def test_value(project: Project, make: MakeRecord, ours: float, stderr: float | None, status: str) -> None:
    make("paper", "k50", ours, stderr)
    v = verdict(project, "nll-k50")
    assert v.status == status
    assert (v.value, v.stderr) == (ours, stderr)
    assert v.judged_at == v.preset == "paper"
    assert v.records == ("projects/toy/results/paper/k50/record.json",)
    assert v.command == "referee run toy --preset paper --only k50"
    assert v.protocol == "toys, L_10"
    assert (v.paper, v.paper_stderr) == ("84.70 nats", None)
    assert v.shortfall is not None
    assert v.shortfall.by == pytest.approx(ours - 84.7)


def test_the_papers_error_is_shown_and_counts(project: Project, make: MakeRecord, edit: Edit) -> None:
    make("paper", "k50", 84.95, 0.1)
    edit("tolerance: 0.5", "tolerance: 0.5\n    paper_stderr: 0.10")
    v = verdict(project, "nll-k50")
    assert (v.paper, v.paper_stderr) == ("84.70 ± 0.10 nats", 0.1)
    assert v.status == "inconclusive"  # without the paper's error it is within tolerance
    assert v.shortfall is not None
    assert v.shortfall.high == pytest.approx(0.25 + 2 * 0.1 * 2**0.5 + 0.005)


def test_a_smaller_preset_is_not_weighed(project: Project, make: MakeRecord) -> None:
    make("laptop", "k50", 84.9)
    assert verdict(project, "nll-k50").shortfall is None


def test_value_where_higher_is_better(project: Project, make: MakeRecord, edit: Edit) -> None:
    edit("    metric: nll", "    metric: elbo")
    edit("paper_value: 84.70", "paper_value: -84.70")
    edit("direction: lower", "direction: higher")
    for ours, status in ((-84.6, "reproduced"), (-84.95, "within tolerance"), (-86.0, "not reproduced")):
        make("paper", "k50", ours, 0.1, score={"name": "elbo"})
        v = verdict(project, "nll-k50")
        assert v.status == status
        assert v.paper == "−84.70 nats"
        assert v.ours.startswith("≥ −8")  # a bound from below


def test_value_that_should_be_near(project: Project, make: MakeRecord, edit: Edit) -> None:
    edit("direction: lower", "direction: near")
    near = (84.70, "reproduced"), (84.95, "within tolerance"), (84.45, "within tolerance")
    for ours, status in (*near, (20.0, "not reproduced"), (150.0, "not reproduced")):
        make("paper", "k50", ours, 0.1)
        v = verdict(project, "nll-k50")
        assert (v.status, v.notes) == (status, ())


def test_far_better_than_the_paper_is_suspicious(project: Project, make: MakeRecord) -> None:
    for ours, stderr, said in ((83.9, 0.1, True), (84.1, 0.1, False), (83.9, 0.2, False), (84.3, 0.1, False)):
        make("paper", "k50", ours, stderr)
        v = verdict(project, "nll-k50")
        assert v.status == "reproduced"
        assert any("check the protocol" in note for note in v.notes) == said  # clearly better by more than 0.5


@pytest.mark.parametrize(
    ("ours", "stderr", "paper_stderr", "note"),
    [
        (84.8, 0.3, "", "The tolerance lies within the errors. It would take some 240 examples in place of 100."),
        (
            84.8,
            0.3,
            "0.3",
            "The tolerance lies within the errors, and no number of examples settles it: the paper's are too large.",
        ),
        (84.8, None, "", "Its error is unknown: without one nothing can be said."),
        (84.7951, 0.2, "", "The tolerance lies within the errors. It would take some 110 examples in place of 100."),
    ],
)
def test_an_inconclusive_value_says_what_it_would_take(
    project: Project, make: MakeRecord, edit: Edit, ours: float, stderr: float | None, paper_stderr: str, note: str
) -> None:
    if paper_stderr:
        edit("tolerance: 0.5", f"tolerance: 0.5\n    paper_stderr: {paper_stderr}")
    make("paper", "k50", ours, stderr)
    v = verdict(project, "nll-k50")
    assert (v.status, v.notes) == ("inconclusive", (note,))


@pytest.mark.parametrize(
    ("ours", "stderr", "tolerance", "too_good"),
    [
        (83.3, 0.1, "0.5", False),  # 1.4 better
        (83.1, 0.1, "0.5", True),  # 1.6 better
        (83.1, 0.3, "0.5", False),  # within the noise of the test examples
        (-31.28, 0.1, "50", True),  # the other sign
        (-0.01, 0.1, "90", False),  # which the tolerance allows
        (90.0, 0.1, "0.5", False),  # far worse
        (83.1, None, "0.5", False),  # without an error it is inconclusive
    ],
)
def test_what_is_too_good_is_marked(
    project: Project, make: MakeRecord, edit: Edit, ours: float, stderr: float, tolerance: str, too_good: bool
) -> None:
    edit("tolerance: 0.5", f"tolerance: {tolerance}")
    make("paper", "k50", ours, stderr)
    v = verdict(project, "nll-k50")
    assert v.too_good == too_good
    assert (TOO_GOOD in verdict_text(v).plain) == (TOO_GOOD in verdict_cell(v)) == too_good
    assert ("1 reproduced (1 too good?)" in summary(standing(project).verdicts)) == too_good


def test_what_the_papers_own_error_explains_is_not_too_good(project: Project, make: MakeRecord, edit: Edit) -> None:
    make("paper", "k50", 83.1, 0.1)
    assert verdict(project, "nll-k50").too_good
    edit("tolerance: 0.5", "tolerance: 0.5\n    paper_stderr: 0.3")
    v = verdict(project, "nll-k50")
    assert (v.status, v.too_good) == ("reproduced", False)  # 1.6 is less than three times 2 sqrt(0.1² + 0.3²)


def test_a_bound_is_marked(project: Project, make: MakeRecord) -> None:
    make("paper", "k50", 84.7, 0.23)
    assert verdict(project, "nll-k50").ours == "≤ 84.70 ± 0.23 nats"
    record = make("paper", "k50", 84.7, 0.23, score={"kind": "exact"})
    assert verdict(project, "nll-k50").ours == "84.70 ± 0.23 nats"
    unknown = dataclasses.replace(record.scores[0], name="depth", kind="bound")
    assert show_score(unknown) == "bound 84.70 ± 0.23"  # from which side, nobody has said


def test_trend_only_needs_an_ordering_that_is_reproduced_there(project: Project, make: MakeRecord) -> None:
    make("paper", "k50", 90.0, 0.1)
    assert verdict(project, "nll-k50").status == "not reproduced"  # no ordering was judged: nothing holds it up
    for preset in ("laptop", "paper"):
        make(preset, "k50", 90.0, 0.1)
        make(preset, "k5", 91.0, 0.1)
        make(preset, "k1", 92.0, 0.1)
    v = verdict(project, "nll-k50")
    assert v.status == "trend only"
    assert any("more-samples-help" in note for note in v.notes)
    make("paper", "k1", 90.5, 0.1)  # the order is broken at paper, though it holds at laptop
    assert verdict(project, "nll-k50").status == "not reproduced"
    make("paper", "k1", 91.1, 0.1)  # the right sign, but within two standard errors
    assert verdict(project, "nll-k50").status == "not reproduced"


def test_an_ordering_at_another_preset_or_metric_holds_nothing_up(
    project: Project, make: MakeRecord, edit: Edit
) -> None:
    make("paper", "k50", 90.0, 0.1)
    for run, nll in (("k50", 90.0), ("k5", 91.0), ("k1", 92.0)):
        make("laptop", run, nll, 0.1)
    assert verdict(project, "more-samples-help").status == "reproduced"
    assert verdict(project, "nll-k50").status == "not reproduced"


def test_compute_limited_names_the_largest_that_ran(project: Project, make: MakeRecord) -> None:
    make("smoke", "k50", 99.0)
    make("laptop", "k50", 84.0)  # better than the paper, yet it is no verdict on the paper's setting
    v = verdict(project, "nll-k50")
    assert (v.status, v.judged_at, v.preset, v.value) == ("compute-limited", "laptop", "paper", 84.0)
    assert v.notes == ("Only the laptop preset ran.",)


def test_compute_limited_on_other_data_says_so(project: Project, make: MakeRecord) -> None:
    make("smoke", "k50", 23.0, data="digits")
    v = verdict(project, "nll-k50")
    assert v.status == "compute-limited"
    assert v.ours.endswith("nats, on digits")
    assert v.notes == ("Only the smoke preset ran, on digits.",)


def test_not_attempted(project: Project) -> None:
    v = verdict(project, "nll-k50")
    assert (v.status, v.ours, v.records, v.judged_at, v.stale) == ("not attempted", "–", (), None, False)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ({"score": {"name": "elbo"}}, "no score 'nll' on the test split; it has elbo (test)"),
        ({"score": {"split": "train"}}, "no score 'nll' on the test split; it has nll (train)"),
        ({"score": {"unit": "bits/dim"}}, "is in bits/dim, the claim is in nats"),
        ({"data": "other"}, "ran on other, the claim is about toys"),
    ],
)
def test_what_cannot_be_compared_is_not(project: Project, make: MakeRecord, what: dict, says: str) -> None:
    make("paper", "k50", 84.0, **what)
    v = verdict(project, "nll-k50")
    assert v.status == "not attempted"
    assert v.value is None
    assert says in v.notes[0]


# -- orderings: k50 < k5 < k1, from preset laptop up ------------------------------------------------------------------


def three(make: MakeRecord, preset: str, *values: object, **fields: object) -> None:
    for run, value in zip(("k50", "k5", "k1"), values, strict=True):
        make(preset, run, value, **fields)


@pytest.mark.parametrize(
    ("values", "stderr", "status"),
    [
        ((84, 85, 86), 0.1, "reproduced"),
        ((84, 85, 86), 0.3, "reproduced"),  # 1 > 2 * 0.3 * sqrt(2)
        ((84, 85, 86), 0.4, "inconclusive"),  # 1 < 2 * 0.4 * sqrt(2)
        ((84, 85, 84.9), 0.1, "inconclusive"),  # the wrong way, by less than two standard errors
        ((84, 84, 85), 0.1, "inconclusive"),  # a tie of uncertain values
        ((84, 85, 86), None, "inconclusive"),  # errors unknown
        ((86, 85, 84), None, "inconclusive"),
        ((84, 85, 84.9), 0.001, "not reproduced"),
        ((85.5, 85, 86), 0.1, "not reproduced"),  # one step against, whatever the other says
        ((85.5, 85, 85.1), 0.1, "not reproduced"),  # even one that two standard errors leave open
        ((84, 84, 85), 0.0, "not reproduced"),  # known exactly, a tie is no order
        ((86, 85, 84), 0.1, "not reproduced"),
        ((84.3, 84, 85), 0.1, "inconclusive"),  # 2.1 errors the wrong way: one of two steps may, by chance
        ((84.33, 84, 85), 0.1, "not reproduced"),  # 2.33 errors
    ],
)
def test_ordering_by_errors(
    project: Project, make: MakeRecord, values: tuple, stderr: float | None, status: str
) -> None:
    three(make, "laptop", *values, stderr=stderr)
    v = verdict(project, "more-samples-help")
    assert v.status == status
    assert v.command == "referee run toy --preset laptop --only k50,k5,k1"
    assert [(s.better, s.worse, s.paired) for s in v.steps] == [("k50", "k5", False), ("k5", "k1", False)]
    assert len(v.records) == 3


def test_ordering_by_pairs_sees_what_errors_hide(project: Project, make: MakeRecord) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(85, 10, 400)  # some images are far harder than others
    runs = [images + gap + rng.normal(0, 0.5, 400) for gap in (0.0, 0.3, 0.6)]
    three(make, "laptop", *runs)
    v = verdict(project, "more-samples-help")
    assert v.status == "reproduced"
    d = runs[1] - runs[0]
    assert v.steps[0].paired
    assert v.steps[0].n == 400
    assert v.steps[0].difference == pytest.approx(d.mean(), rel=1e-4)
    assert v.steps[0].stderr == pytest.approx(d.std(ddof=1) / 20, rel=1e-4)
    for run in ("k50", "k5", "k1"):
        (project.results / "laptop" / run / "examples.safetensors").unlink()
    v = verdict(project, "more-samples-help")
    assert v.status == "inconclusive"
    assert not v.steps[0].paired


def test_pairs_are_made_only_of_examples_that_belong_together(make: MakeRecord) -> None:
    x = np.arange(10.0)
    a = make("laptop", "k50", x)
    b = make("laptop", "k5", x + 1)

    def paired(left: np.ndarray, right: np.ndarray, other: Record = b) -> bool:
        return compare(
            "nll",
            Evidence(a, "a", {"nll": left}),
            a.scores[0],
            Evidence(other, "b", {"nll": right}),
            other.scores[0],
        ).paired

    assert paired(x, x + 1)
    assert not paired(x, x + 2)  # their mean is not the score
    assert not paired(x[:5], x + 1)
    assert not paired(x, np.where(x == 3, np.nan, x + 1))
    assert not paired(x, x + 1, make("laptop", "k1", x + 1, data_sha256={"toys": "1" * 64}))


def test_ordering_where_higher_is_better(project: Project, make: MakeRecord, edit: Edit) -> None:
    path = project.folder / "project.yaml"
    path.write_text(
        path.read_text().replace(
            "metric: nll\n    dataset: toys\n    preset: laptop", "metric: elbo\n    dataset: toys\n    preset: laptop"
        )
    )
    three(make, "laptop", -84, -85, -86, score={"name": "elbo"})
    v = verdict(project, "more-samples-help")
    assert v.status == "reproduced"
    assert v.ours == "k50 −84.00 > k5 −85.00 > k1 −86.00 nats"


@pytest.mark.parametrize(
    ("a", "b", "clear", "against", "says"),
    [
        (25, 20, True, False, "a better than b by 5 units"),
        (21, 20, True, False, "a better than b by 1 unit"),
        (20, 20, False, True, "a equals b"),
        (18, 20, False, True, "a worse than b by 2 units"),
    ],
)
def test_counts_are_known_exactly(make: MakeRecord, a: int, b: int, clear: bool, against: bool, says: str) -> None:
    fields = {"name": "active_units", "unit": "units", "kind": "exact"}
    left, right = make("laptop", "a", a, None, score=fields), make("laptop", "b", b, None, score=fields)
    step = compare("active_units", Evidence(left, ""), left.scores[0], Evidence(right, ""), right.scores[0])
    assert (step.difference, step.stderr) == (a - b, 0)
    assert (step.clear, step.against()) == (clear, against)
    assert show_step(step) == says


@pytest.mark.parametrize(
    ("values", "stderr", "note"),
    [
        ((84, 85, 86), 0.1, None),
        ((86, 85, 84), 0.1, None),
        ((84, 84.1, 86), 0.1, "Not told apart by two standard errors: k50 and k5."),
        ((84, 84.1, 84), 0.1, "Not told apart by two standard errors: k50 and k5, k5 and k1."),
        ((84, 85, 86), None, "Not told apart, their errors being unknown: k50 and k5, k5 and k1."),
        (
            (84.3, 84, 84.1),
            0.1,
            f"Not told apart by two standard errors: k5 and k1; {WRONG_WAY}: k50 and k5.",
        ),
    ],
)
def test_an_inconclusive_order_names_the_pairs_that_are_not_told_apart(
    project: Project, make: MakeRecord, values: tuple, stderr: float | None, note: str | None
) -> None:
    three(make, "laptop", *values, stderr=stderr)
    assert verdict(project, "more-samples-help").notes == ((note,) if note else ())


def test_a_step_says_its_unit(project: Project, make: MakeRecord) -> None:
    rng = np.random.default_rng(0)
    easy = rng.normal(85, 10, 400)
    d = rng.normal(0.3, 0.5, 400)
    three(make, "laptop", easy, easy + d, easy + 2 * d)
    step = verdict(project, "more-samples-help").steps[0]
    shown = show(step.difference, step.stderr)
    assert " ± " in shown
    assert show_step(step) == f"k50 better than k5 by {shown} nats (paired, n = 400)"
    assert show_step(dataclasses.replace(step, unit="bits/dim")).endswith(f"{shown} bits/dim (paired, n = 400)")


def test_ordering_is_judged_at_the_largest_preset_that_is_complete(project: Project, make: MakeRecord) -> None:
    three(make, "smoke", 84, 85, 86)
    v = verdict(project, "more-samples-help")
    assert (v.status, v.judged_at) == ("compute-limited", "smoke")
    assert v.notes == ("Only the smoke preset ran; there the order held.",)
    three(make, "laptop", 86, 85, 84)
    assert verdict(project, "more-samples-help").status == "not reproduced"
    three(make, "paper", 84, 85, 86)
    v = verdict(project, "more-samples-help")
    assert (v.status, v.judged_at) == ("reproduced", "paper")
    (project.results / "paper" / "k5" / "record.json").unlink()
    assert verdict(project, "more-samples-help").judged_at == "laptop"


@pytest.mark.parametrize(
    ("values", "stderr", "how"),
    [
        ((84, 85, 86), 0.1, "the order held."),
        ((84, 85, 86), 1, "not told apart by two standard errors: k50 and k5, k5 and k1."),
        ((86, 85, 84), 0.1, "the order did not hold."),
    ],
)
def test_a_smaller_preset_tells_whether_the_order_held(
    project: Project, make: MakeRecord, values: tuple, stderr: float, how: str
) -> None:
    three(make, "smoke", *values, stderr=stderr, data="digits")
    v = verdict(project, "more-samples-help")
    assert v.status == "compute-limited"
    assert v.notes == (f"Only the smoke preset ran, on digits; there {how}",)


def test_ordering_with_missing_runs(project: Project, make: MakeRecord) -> None:
    make("laptop", "k50")
    v = verdict(project, "more-samples-help")
    assert v.status == "not attempted"
    assert v.notes == ("Not all its runs are there (laptop: k5, k1 missing).",)


def test_different_protocols_are_not_compared(project: Project, make: MakeRecord) -> None:
    three(make, "laptop", 84, 85, 86)
    make("laptop", "k1", 86, score={"protocol": "toys, L_5000"})
    v = verdict(project, "more-samples-help")
    assert v.status == "not attempted"
    assert "measured differently (toys, L_10 / toys, L_5000)" in v.notes[0]


# -- figures, staleness, broken records -------------------------------------------------------------------------------


def test_no_machine_judges_a_picture(project: Project, make: MakeRecord) -> None:
    assert verdict(project, "samples").status == "not attempted"
    make("laptop", "k50", picture=True)
    v = verdict(project, "samples")
    assert v.status == "for a person to judge"
    assert v.ours == "projects/toy/results/laptop/k50/samples.png"
    assert v.command == "referee run toy --preset laptop --only k50"


def test_a_picture_outside_the_project_is_not_shown(project: Project, make: MakeRecord, tmp_path: Path) -> None:
    make("laptop", "k50", picture=True)
    picture = project.results / "laptop" / "k50" / "samples.png"
    picture.rename(tmp_path / "elsewhere.png")
    picture.symlink_to(tmp_path / "elsewhere.png")
    assert verdict(project, "samples").status == "not attempted"


def test_a_record_of_other_code_is_stale(project: Project, make: MakeRecord) -> None:
    make("paper", "k50", 84.0)
    make("laptop", "k50", picture=True)
    assert not standing(project).fell_short
    text = project.paper_file.read_text()
    project.paper_file.write_text(
        text.replace('"""An invented paper."""', '"""Another docstring."""') + "\n# comment\n"
    )
    assert not standing(project).fell_short  # prose changes no number
    project.paper_file.write_text(text.replace("80 + 10", "80 + 20"))
    judged = standing(project)
    assert judged.fell_short
    assert {v.claim: v.stale for v in judged.verdicts} == {"nll-k50": True, "more-samples-help": False, "samples": True}
    assert judged.verdicts[0].status == "reproduced"  # what it said then is kept, marked


def test_one_stale_run_makes_its_ordering_stale(project: Project, make: MakeRecord) -> None:
    three(make, "laptop", 84, 85, 86)
    make("laptop", "k5", 85, code_digest="other")
    assert verdict(project, "more-samples-help").stale


def test_a_broken_record_is_named_and_not_used(project: Project, make: MakeRecord) -> None:
    make("paper", "k50", 84.0)
    (project.results / "paper" / "k50" / "record.json").write_text('{"project": "toy"}')
    judged = standing(project)
    assert judged.fell_short
    assert "projects/toy/results/paper/k50/record.json" in judged.problems[0]
    assert judged.verdicts[0].status == "not attempted"


@pytest.mark.parametrize("field", ["project", "preset", "run"])
def test_a_record_in_the_wrong_folder_is_not_used(project: Project, make: MakeRecord, field: str) -> None:
    make("paper", "k50", 84.0)
    record = Record.load(project.results / "paper" / "k50")
    other = dataclasses.replace(record, **{field: {"project": "vae", "preset": "smoke", "run": "k1"}[field]})
    other.save(project.results / "paper" / "k50")
    judged = standing(project)
    assert any("wrong folder" in p and "results/paper/k50" in p for p in judged.problems)
    assert judged.verdicts[0].status == "not attempted"


def test_a_run_with_changed_settings_does_not_count(project: Project, make: MakeRecord) -> None:
    make("paper+0123abcd", "k50", 84.0)
    assert verdict(project, "nll-k50").status == "not attempted"


def test_raw_weights_are_preferred(project: Project, make: MakeRecord) -> None:
    record = make("paper", "k50", 84.0)
    ema = Score("nll", 80.0, 0.1, 100, "nats", "bound", "test", "ema", "toys, L_10")
    changed = Record(**{**record.__dict__, "scores": [ema, record.scores[0]]})
    changed.save(project.results / "paper" / "k50")
    assert verdict(project, "nll-k50").value == 84.0


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (84.7812, 0.2345, "84.78 ± 0.23"),
        (-84.7812, 2.345, "−84.8 ± 2.3"),
        (1571.23, 23.4, "1571 ± 23"),
        (0.012346, 0.00021, "0.01235 ± 0.00021"),
        (25.0, None, "25"),
        (0.5, 0.0, "0.5"),
        (3.14159265, None, "3.1416"),
    ],
)
def test_numbers_are_shown_to_the_places_they_deserve(value: float, stderr: float | None, text: str) -> None:
    assert show(value, stderr) == text
