"""Several seeds of a run: mean, errors and verdicts keep what they promise, on cases whose truth is known."""

import dataclasses
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import norm, t

from common.records import Record, replicates
from referee import show, tables
from referee.project import Project
from referee.report import how_far, render
from referee.seeds import Spread, over_seeds, show_seeds, student
from referee.standing import standing
from referee.verdicts import Step, Verdict, all_scores, show_step
from referee.weighing import ERRORS, seeds_needed, shortfall
from tests.referee.test_weighing import claim, score

MakeRecord = Callable[..., Record]
TRIALS = 2000
ONE_SIDE = norm.sf(ERRORS)  # 2.3 %
MOST = ONE_SIDE + 3 * math.sqrt(ONE_SIDE * (1 - ONE_SIDE) / TRIALS)  # that so many trials can be expected to show


# -- The numbers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 6, 9, 10, 99, 1000])
@pytest.mark.parametrize("errors", [0.5, 2.0, 2.5, 3.0])
def test_students_quantile(errors: float, degrees: int) -> None:
    assert student(errors, degrees) == pytest.approx(t.isf(norm.sf(errors), degrees), rel=1e-8)


def test_the_guide_names_the_quantiles_as_they_are() -> None:
    said = (Path(__file__).parents[2] / "docs" / "readers.md").read_text(encoding="utf-8")
    two, three, four, five = (f"{student(ERRORS, m - 1):.1f}" for m in (2, 3, 4, 5))
    assert f"({two} for two seeds, {three} for three, {four} for four, {five} for five)" in " ".join(said.split())


def test_the_mean_and_both_its_errors() -> None:
    spread = over_seeds({0: score(1.0, 0.3), 5: score(2.0, 0.4), 7: score(6.0, 0.5)})
    assert (spread.seeds, spread.values, spread.mean) == ((0, 5, 7), (1.0, 2.0, 6.0), 3.0)
    assert spread.between == pytest.approx(math.sqrt((4 + 1 + 9) / 2 / 3))
    assert spread.evaluation == pytest.approx(math.sqrt((0.09 + 0.16 + 0.25) / 3))  # not divided by their number
    assert spread.stderr == pytest.approx(math.hypot(spread.between, spread.evaluation))
    far = math.hypot(4.526537 * spread.between, 2 * spread.evaluation)  # Student's, of two degrees of freedom
    assert spread.reach(2) == pytest.approx(far)
    assert spread.of(score(1.0, 0.3)) == score(3.0, spread.stderr)


def test_an_error_that_is_unknown_stays_unknown() -> None:
    spread = over_seeds({0: score(1.0, 0.1), 1: score(1.1, None)})
    assert (spread.evaluation, spread.stderr, spread.reach(2)) == (None, None, None)
    counts = over_seeds({0: score(25.0, None, kind="exact"), 1: score(27.0, None, kind="exact")})
    assert (counts.evaluation, counts.between) == (0.0, 1.0)


@pytest.mark.parametrize(("seeds", "values"), [((0,), (1.0,)), ((0, 0), (1.0, 2.0)), ((0, 1, 2), (1.0, 2.0))])
def test_one_seed_has_no_spread(seeds: tuple[int, ...], values: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="at least two, each of its own seed"):
        Spread(seeds, values, 0.1)


def test_seeds_are_shown_as_they_are_typed() -> None:
    assert [show_seeds(s) for s in ((2, 0, 1), (0, 2, 7), (0, 1), (4,))] == ["0-2", "0,2,7", "0,1", "4"]


# -- What is promised, where the truth is known: seeds differ by `by_seed`, means over test sets by `by_test` ------


def draws(seeds: int, by_seed: float, by_test: float, *, truth: float = 0.0, kept: int = 0) -> list[Spread]:
    """What runs with so many seeds would measure, over many test sets: each is shared by a run's seeds."""
    rng = np.random.default_rng([seeds, round(100 * by_seed), round(100 * by_test), kept])
    values = truth + by_test * rng.standard_normal((TRIALS, 1)) + by_seed * rng.standard_normal((TRIALS, seeds))
    return [Spread(tuple(range(seeds)), tuple(row), by_test) for row in values.tolist()]


CASES = [(m, a, b) for m in (2, 3, 5) for a, b in ((1.0, 0.0), (1.0, 0.1), (1.0, 0.5), (0.3, 1.0), (0.0, 1.0))]


@pytest.mark.parametrize(("seeds", "by_seed", "by_test"), CASES)
def test_the_interval_covers_the_truth(seeds: int, by_seed: float, by_test: float) -> None:
    above = sum(s.mean - (s.reach(ERRORS) or 0) > 0 for s in draws(seeds, by_seed, by_test))
    below = sum(s.mean + (s.reach(ERRORS) or 0) < 0 for s in draws(seeds, by_seed, by_test))
    assert above / TRIALS <= MOST
    assert below / TRIALS <= MOST
    if 0 in (by_seed, by_test):  # a single part: it covers no more than it promises
        assert (above + below) / TRIALS >= 2 * ONE_SIDE - 2 * (MOST - ONE_SIDE)


def test_each_part_of_the_rule_is_needed() -> None:
    """The truth is left out too often where the test examples' error is averaged away, and where t is left away."""
    few = draws(5, 0.3, 1.0)
    averaged = [Spread(s.seeds, s.values, (s.evaluation or 0) / math.sqrt(5)) for s in few]
    assert sum(abs(s.mean) > (s.reach(ERRORS) or 0) for s in averaged) / TRIALS > 0.25
    three = draws(3, 1.0, 0.1)
    assert sum(abs(s.mean) > ERRORS * (s.stderr or 0) for s in three) / TRIALS > 0.15


@pytest.mark.parametrize(("seeds", "by_seed", "by_test"), CASES)
@pytest.mark.parametrize("direction", ["lower", "near"])
def test_what_is_worse_by_the_tolerance_passes_in_one_of_43_cases(
    seeds: int, by_seed: float, by_test: float, direction: str
) -> None:
    asked = claim("85.00", "5", direction)
    found = Counter(
        shortfall(asked, s.of(score(0)), s).outcome for s in draws(seeds, by_seed, by_test, truth=90, kept=1)
    )
    assert (found["reproduced"] + found["within tolerance"]) / TRIALS <= MOST
    assert found["further off"] / TRIALS <= MOST  # since it is not worse by more than the tolerance, either


@pytest.mark.parametrize("seeds", [3, 5])
def test_what_is_as_good_is_reproduced_if_the_tolerance_allows_for_the_errors(seeds: int) -> None:
    found = Counter(shortfall(claim("85.00", "5"), s.of(score(0)), s).outcome for s in draws(seeds, 0.5, 0.5, truth=85))
    assert found["reproduced"] / TRIALS > 0.9


@pytest.mark.parametrize(("seeds", "by_seed", "by_test"), CASES)
def test_a_difference_of_nothing_is_called_one_in_one_of_43_cases(seeds: int, by_seed: float, by_test: float) -> None:
    steps = [Step("a", "b", s.mean, s.stderr, "nats", True, 100, s) for s in draws(seeds, by_seed, by_test)]
    assert sum(step.clear for step in steps) / TRIALS <= MOST
    assert sum(step.against() for step in steps) / TRIALS <= MOST
    assert sum(step.against(2) for step in steps) <= sum(step.against() for step in steps)
    assert not any(step.clear and step.against() for step in steps)


def test_how_many_seeds_it_would_take() -> None:
    wide = Spread((0, 1, 2), (84.6, 84.9, 85.2), 0.05)
    assert shortfall(claim(), wide.of(score(0)), wide).outcome == "inconclusive"
    needed = seeds_needed(claim(), wide.of(score(0)), wide)
    assert needed is not None
    assert needed > 3

    def alike(count: int) -> Spread:
        """So many seeds with the same mean and standard deviation."""
        half = 0.3 * math.sqrt((count - 1) / count)
        values = [84.9 + half * (-1) ** i for i in range(count - count % 2)] + [84.9] * (count % 2)
        scale = 0.3 / float(np.std(values, ddof=1))
        return Spread(tuple(range(count)), tuple(84.9 + scale * (v - 84.9) for v in values), 0.05)

    outcomes = {m: shortfall(claim(), alike(m).of(score(0)), alike(m)).outcome for m in (needed - 1, needed)}
    assert outcomes[needed - 1] == "inconclusive"
    assert outcomes[needed] == "reproduced"
    assert (
        seeds_needed(claim(), score(84.9), Spread((0, 1), (84.8, 85.0), 0.4)) is None
    )  # the examples' own is too much


# -- Verdicts: the claim is 84.70 with a tolerance of 0.5, lower is better, at preset paper ----------------------------


Replicate = Callable[..., None]


@pytest.fixture
def replicate(project: Project, make: MakeRecord) -> Replicate:
    """Write a run with several seeds, the first of which is the preset's own; of the others no examples are kept."""

    def write(preset: str, run: str, values: dict[int, Any], **fields: Any) -> None:
        for place, (seed, nll) in enumerate(values.items()):
            name = run if place == 0 else f"{run}/seed-{seed}"
            folder = project.results / preset / name
            config = {"k": 1, "seed": seed}
            made = make(preset, name, nll, seed=seed, **{"config": config} | fields)
            dataclasses.replace(made, run=run).save(folder)
            if place:
                (folder / "examples.safetensors").unlink(missing_ok=True)

    return write


def verdict(project: Project, claim: str) -> Verdict:
    return next(v for v in standing(project).verdicts if v.claim == claim)


FIVE = {0: 84.9, 1: 84.7, 2: 84.8, 3: 85.0, 4: 84.6}  # mean 84.8, standard error over seeds 0.0707


def test_a_value_is_the_mean_over_its_seeds(project: Project, replicate: Replicate) -> None:
    replicate("paper", "k50", FIVE, stderr=0.1)
    v = verdict(project, "nll-k50")
    assert (v.value, v.seeds) == (pytest.approx(84.8), (0, 1, 2, 3, 4))
    assert v.stderr == pytest.approx(math.hypot(0.1, 0.1 / math.sqrt(2)))
    assert v.spread is not None
    assert v.spread.evaluation == pytest.approx(0.1)
    assert v.ours == "≤ 84.80 ± 0.12 nats (84.60 to 85.00, 5 seeds)"
    assert v.command == "referee run toy --preset paper --only k50 --seeds 0-4"
    folder = "projects/toy/results/paper/k50"
    assert v.records == (f"{folder}/record.json", *(f"{folder}/seed-{seed}/record.json" for seed in (1, 2, 3, 4)))
    assert v.status == "reproduced"
    assert v.shortfall is not None
    assert v.shortfall.high == pytest.approx(0.1 + math.hypot(2.869309 * 0.1 / math.sqrt(2), 0.2) + 0.005)


def test_seeds_can_turn_a_verdict(project: Project, replicate: Replicate, make: MakeRecord) -> None:
    make("paper", "k50", 84.95, 0.1)
    assert verdict(project, "nll-k50").status == "within tolerance"
    replicate("paper", "k50", {0: 84.95, 1: 84.6, 2: 84.5, 3: 84.7, 4: 84.6}, stderr=0.1)
    assert verdict(project, "nll-k50").status == "reproduced"
    replicate("paper", "k50", {0: 84.95, 1: 85.6, 2: 84.5, 3: 85.2, 4: 85.0}, stderr=0.05)
    v = verdict(project, "nll-k50")
    assert v.status == "inconclusive"
    assert v.notes == ("The tolerance lies within the errors. It would take some 61 seeds in place of 5.",)
    replicate("paper", "k50", {0: 84.95, 1: 85.6, 2: 84.5, 3: 85.2, 4: 85.0}, stderr=0.3)
    assert verdict(project, "nll-k50").notes[0].endswith("and neither more seeds nor more examples alone settle it.")


def test_a_single_seed_is_judged_as_ever(project: Project, replicate: Replicate) -> None:
    replicate("paper", "k50", {0: 84.95}, stderr=0.1)
    v = verdict(project, "nll-k50")
    assert (v.status, v.seeds, v.spread, v.ours) == ("within tolerance", (), None, "≤ 84.95 ± 0.10 nats")
    assert v.command == "referee run toy --preset paper --only k50"


def test_seeds_without_the_presets_own_are_left_aside(project: Project, replicate: Replicate) -> None:
    replicate("paper", "k50", FIVE)
    (project.results / "paper" / "k50" / "record.json").unlink()
    assert verdict(project, "nll-k50").status == "not attempted"
    assert standing(project).problems == []


def test_counts_are_compared_exactly_with_every_seed(project: Project, replicate: Replicate, edit: Any) -> None:
    edit("paper_value: 84.70", "paper_value: 25")
    edit("metric: nll", "metric: active_units")
    edit("direction: lower", "unit: units\n    direction: near")
    count = {"name": "active_units", "unit": "units", "kind": "exact", "stderr": None}
    replicate("paper", "k50", {0: 25.0, 1: 25.0, 2: 25.0}, score=count)
    v = verdict(project, "nll-k50")
    assert (v.status, v.ours) == ("reproduced", "25 units (3 seeds, all alike)")
    assert v.shortfall is not None
    assert v.shortfall.high == 0  # nobody has rounded anything
    replicate("paper", "k50", {0: 25.0, 1: 25.0, 2: 26.0}, score=count)
    v = verdict(project, "nll-k50")
    assert (v.status, v.ours) == ("inconclusive", "25.33 ± 0.33 units (25.00 to 26.00, 3 seeds)")


def test_what_was_measured_otherwise_is_not_counted(project: Project, replicate: Replicate, make: MakeRecord) -> None:
    replicate("paper", "k50", {0: 84.9, 1: 84.7, 2: 84.8}, stderr=0.1)
    replicate("paper", "k50", {0: 84.9, 2: 84.8}, stderr=0.1, score={"protocol": "toys, L_9"})
    replicate("paper", "k50", {0: 84.9}, stderr=0.1)
    v = verdict(project, "nll-k50")
    assert (v.seeds, v.value) == ((0, 1), pytest.approx(84.8))
    assert "Measured otherwise, and not counted: seed 2." in v.notes
    assert len(v.records) == 2


def test_other_data_is_not_counted(project: Project, replicate: Replicate) -> None:
    replicate("paper", "k50", {0: 84.9, 1: 84.7, 2: 84.8}, stderr=0.1)
    replicate("paper", "k50", {0: 84.9, 2: 84.8}, stderr=0.1, data_sha256={"toys": "1" * 64})
    replicate("paper", "k50", {0: 84.9}, stderr=0.1)
    assert verdict(project, "nll-k50").seeds == (0, 1)


def test_a_seed_of_other_code_makes_the_verdict_stale(project: Project, replicate: Replicate) -> None:
    replicate("paper", "k50", {0: 84.9, 1: 84.7})
    assert not verdict(project, "nll-k50").stale
    replicate("paper", "k50", {0: 84.9, 1: 84.7}, code_digest="other")
    replicate("paper", "k50", {0: 84.9})
    assert verdict(project, "nll-k50").stale


@pytest.mark.parametrize(
    ("fields", "folder", "says"),
    [
        (
            {"config": {"k": 2, "seed": 1}},
            "seed-1",
            "it ran with k = 2, the run beside it, of the preset's own seed, with 1",
        ),
        ({"config": {"k": 1}}, "seed-1", "its seed is null, the folder says 1"),
        ({}, "seed-7", "its seed is 1, the folder says 7"),
        ({"config": {"k": 1, "seed": 0}, "seed": 0}, "seed-0", "its seed is that of the preset"),
        ({"project": "other"}, "seed-1", "says it is the record of other/paper/k50"),
    ],
)
def test_a_record_that_is_no_other_seed_is_a_problem(
    project: Project, replicate: Replicate, make: MakeRecord, fields: dict[str, Any], folder: str, says: str
) -> None:
    replicate("paper", "k50", {0: 84.9, 1: 84.7})
    there = project.results / "paper" / "k50"
    (there / "seed-1").rename(there / folder)
    dataclasses.replace(Record.load(there / folder), **fields).save(there / folder)
    (problem,) = standing(project).problems
    assert f"projects/toy/results/paper/k50/{folder}/record.json" in problem
    assert says in problem
    assert verdict(project, "nll-k50").seeds == ()


def test_other_folders_of_a_run_are_no_seeds(project: Project, replicate: Replicate) -> None:
    replicate("paper", "k50", {0: 84.9, 1: 84.7})
    there = project.results / "paper" / "k50"
    (there / "seed-1").rename(there / "seed-01")
    assert verdict(project, "nll-k50").seeds == ()


# -- Orderings: k50 < k5 < k1 at laptop, lower is better ---------------------------------------------------------------


def examples(mean: float, noise: float = 0.5, count: int = 200) -> np.ndarray:
    """Per-example values whose differences between runs have a standard deviation of about `noise`."""
    rng = np.random.default_rng(round(mean * 1000))
    return mean + 5 * np.random.default_rng(0).standard_normal(count) + noise * rng.standard_normal(count)


def test_an_ordering_compares_the_runs_seed_by_seed(project: Project, replicate: Replicate) -> None:
    shift = {0: 0.0, 1: 2.0, 2: -1.0}  # of a seed, for all runs: in no difference
    for run, mean in {"k50": 84.0, "k5": 85.0, "k1": 87.0}.items():
        replicate("laptop", run, {seed: examples(mean + by) for seed, by in shift.items()})
    v = verdict(project, "more-samples-help")
    assert (v.status, v.seeds) == ("reproduced", (0, 1, 2))
    first, second = v.steps
    assert (first.paired, first.n) == (True, 200)
    assert first.difference == pytest.approx(1, abs=0.15)
    assert first.spread is not None
    assert first.spread.evaluation == pytest.approx(0.5 * math.sqrt(2 / 200), rel=0.2)  # of the own seed, paired
    assert first.spread.between < 0.1  # far below what the seeds themselves differ by
    assert first.stderr == pytest.approx(math.hypot(first.spread.evaluation, first.spread.between))
    assert v.ours.endswith(" nats (means over 3 seeds)")
    assert show_step(second).endswith(" nats (paired, n = 200, 3 seeds)")
    assert v.command == "referee run toy --preset laptop --only k50,k5,k1 --seeds 0-2"
    assert len(v.records) == 9


def test_one_seed_alone_may_be_lucky(project: Project, replicate: Replicate) -> None:
    replicate("laptop", "k1", {0: examples(87.0)})
    replicate("laptop", "k5", {0: examples(85.0)})
    replicate("laptop", "k50", {0: examples(84.0)})
    assert verdict(project, "more-samples-help").status == "reproduced"
    replicate("laptop", "k1", {0: examples(87.0), 1: examples(85.0), 2: examples(85.5)})
    replicate("laptop", "k5", {0: examples(85.0), 1: examples(86.5), 2: examples(85.0)})
    replicate("laptop", "k50", {0: examples(84.0), 1: examples(84.1), 2: examples(83.9)})
    v = verdict(project, "more-samples-help")
    assert v.status == "inconclusive"
    assert v.notes[0] == "Not told apart by two standard errors: k50 and k5, k5 and k1."


def test_only_seeds_that_all_runs_have_are_compared(project: Project, replicate: Replicate) -> None:
    replicate("laptop", "k1", {0: examples(87.0), 1: examples(87.1), 2: examples(87.2)})
    replicate("laptop", "k5", {0: examples(85.0), 1: examples(85.1), 2: examples(85.2), 3: examples(80.0)})
    replicate("laptop", "k50", {0: examples(84.0), 1: examples(84.1), 2: examples(84.0)})
    v = verdict(project, "more-samples-help")
    assert v.seeds == (0, 1, 2)
    note = "Not counted, since not all of these runs have a comparable score of it: seed 3."
    assert note in v.notes
    replicate("laptop", "k50", {0: examples(84.0)})
    for seed in (1, 2):
        shutil.rmtree(project.results / "laptop" / "k50" / f"seed-{seed}")
    v = verdict(project, "more-samples-help")
    assert (v.status, v.seeds, v.steps[0].spread) == ("reproduced", (), None)
    assert v.notes[0].endswith("seeds 1, 2, 3.")


def test_without_examples_the_errors_of_both_count(project: Project, replicate: Replicate) -> None:
    for run, mean in {"k50": 84.0, "k5": 85.0, "k1": 87.0}.items():
        replicate("laptop", run, {0: mean, 1: mean + 0.1, 2: mean - 0.1}, stderr=0.3)
    step = verdict(project, "more-samples-help").steps[0]
    assert step.spread is not None
    assert (step.paired, step.stderr) == (False, pytest.approx(0.3 * math.sqrt(2)))
    assert step.spread.between == pytest.approx(0)


def test_runs_that_draw_their_own_data_share_no_examples(project: Project, replicate: Replicate, edit: Any) -> None:
    edit("runs: [k50, k5, k1]", "runs: [k50, k5]")
    for run, mean in {"k50": 84.0, "k5": 85.0}.items():
        replicate("laptop", run, {0: mean, 1: mean + 0.1, 2: mean - 0.1}, stderr=0.7, data_sha256={})
    v = verdict(project, "more-samples-help")
    assert v.status == "reproduced"  # which the errors of the own seed alone would leave open
    assert v.steps[0].spread is not None
    assert v.steps[0].spread.evaluation == 0
    replicate("laptop", "k5", {0: 85.0, 1: 85.1, 2: 84.9}, stderr=0.7)
    assert verdict(project, "more-samples-help").steps[0].spread != v.steps[0].spread
    drawn = {0: 84.9, 1: 84.7, 2: 84.8, 3: 85.0, 4: 84.6}
    replicate("paper", "k50", drawn, stderr=None, data_sha256={})
    replicate("laptop", "k50", drawn, stderr=None, data_sha256={})
    (evidence,) = standing(project).evidence["paper"].values()
    ((score_there, spread),) = all_scores(evidence)
    assert (score_there.stderr, spread and spread.evaluation) == (pytest.approx(0.1 / math.sqrt(2)), 0)


# -- How it is shown ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(project: Project, replicate: Replicate) -> Project:
    """An ordering of runs with three seeds, and a value of five."""
    for run, mean in {"k50": 84.0, "k5": 85.0, "k1": 87.0}.items():
        replicate("laptop", run, {seed: examples(mean + seed / 10) for seed in range(3)})
    replicate("paper", "k50", FIVE, stderr=0.1)
    return project


def test_tables_show_the_mean_its_error_and_the_spread(shown: Project) -> None:
    s = standing(shown)
    ours = "≤ 84.80 ± 0.12 nats (84.60 to 85.00, 5 seeds)"
    assert f"[{ours}](results/paper/k50/record.json)" in tables.claims_table(s)
    assert f"| {ours} | 100 |" in tables.results_table(s)
    assert tables.results_table(s).count("3 seeds") == 3


@pytest.mark.parametrize("width", [80, 200])
def test_the_terminal_shows_them_within_its_width(
    shown: Project, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "console", lambda: Console(width=width, highlight=False))
    show.print_verdicts(standing(shown))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert "≤ 84.80 ± 0.12" in out
    assert "(84.60 to 85.00, 5 seeds)" in out
    assert "(means over 3 seeds)" in out


def test_scores_after_a_run_are_means_over_its_seeds(
    shown: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "console", lambda: Console(width=120, highlight=False))
    found = replicates(shown.results)
    show.print_scores([*found["paper"]["k50"], found["laptop"]["k1"][0]])
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "nats" in line]
    assert [" ".join(line) for line in lines] == [
        "k50 nll ≤ 84.80 ± 0.12 nats (84.60 to 85.00, 5 seeds) 100 5 min 5 s",
        "k1 nll ≤ 87.07 ± 0.34 nats 200 1 min 1 s",
    ]


def test_programs_get_everything_that_a_verdict_rests_on(shown: Project) -> None:
    value, ordering, _ = json.loads(json.dumps([dataclasses.asdict(v) for v in standing(shown).verdicts]))
    assert value["spread"] == {"seeds": [0, 1, 2, 3, 4], "values": list(FIVE.values()), "evaluation": 0.1}
    assert [step["spread"]["seeds"] for step in ordering["steps"]] == [[0, 1, 2]] * 2


def test_the_report_shows_seeds(shown: Project) -> None:
    laptop_alone = shutil.copytree(shown.results, shown.folder / "other")
    shutil.rmtree(laptop_alone / "paper")
    text = render(standing(shown, folder=laptop_alone))
    assert text.count('class="seed"') == 2 * 3 * 3  # wide and narrow, a mark for each seed of each run
    assert "several seeds (3)" in text
    assert "paired, n = 200, 3 seeds" in text
    assert "1 (1 min 1 s), 2 (1 min 1 s)" in text
    (said,) = how_far(standing(shown))
    assert said.endswith(" Means over 3 seeds; ± is over seeds and test examples.")
