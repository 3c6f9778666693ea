"""The rule that weighs a value against the paper's keeps what it promises, on cases whose truth is known."""

import dataclasses
import math
from collections import Counter
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.records import Score
from referee.schema import ValueClaim
from referee.verdicts import Step, allowed, show_shortfall
from referee.weighing import ERRORS, Outcome, Shortfall, errors, examples_needed, shortfall

TRIALS = 4000
ONE_SIDE = 0.5 * math.erfc(2 / math.sqrt(2))  # 2.3 %: what two standard errors leave out


def claim(
    paper: str = "84.70", tolerance: str = "0.5", direction: str = "lower", error: str | None = None
) -> ValueClaim:
    """A claim about a value."""
    return ValueClaim.model_validate(
        {
            "id": "c",
            "kind": "value",
            "source": "Table 1",
            "certainty": "seen",
            "dataset": "toys",
            "preset": "paper",
            "metric": "nll",
            "run": "k50",
            "paper_value": Decimal(paper),
            "direction": direction,
            "tolerance": Decimal(tolerance),
            **({"paper_stderr": Decimal(error)} if error is not None else {}),
        }
    )


def score(value: float, stderr: float | None = 0.0, **fields: Any) -> Score:
    known = {"n": 100, "unit": "nats", "kind": "estimate", "split": "test", "weights": "raw", "protocol": ""}
    return Score(**{"name": "nll", "value": value, "stderr": stderr, **known, **fields})


def outcome(a_claim: ValueClaim, a_score: Score) -> Outcome:
    return shortfall(a_claim, a_score).outcome


# -- The table of the rule ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "stderr", "comes_to"),
    [  # the paper's 84.70, a tolerance of 0.5: half of the interval is two errors and 0.005
        (84.70, 0.1, "reproduced"),
        (84.90, 0.1, "reproduced"),  # worse, but not clearly: 0.2 ± 0.205
        (84.95, 0.1, "within tolerance"),  # 0.25 ± 0.205
        (85.10, 0.1, "inconclusive"),  # 0.4 ± 0.205
        (85.40, 0.1, "inconclusive"),  # 0.7 ± 0.205
        (85.41, 0.1, "further off"),  # 0.71 ± 0.205
        (84.70, 0.3, "inconclusive"),  # as good as the paper's as far as one can see, which is not far enough
        (83.90, 0.3, "reproduced"),  # clearly better
        (40.00, 0.3, "reproduced"),
        (84.70, None, "inconclusive"),  # whatever it is, nobody knows how far it is to be trusted
        (99.00, None, "inconclusive"),
        (85.19, 0.0, "within tolerance"),
        (85.21, 0.0, "further off"),
    ],
)
def test_the_interval_is_held_against_the_paper_and_the_tolerance(
    ours: float, stderr: float | None, comes_to: str
) -> None:
    assert outcome(claim(), score(ours, stderr)) == comes_to


def test_both_errors_count() -> None:
    both = shortfall(claim(error="0.4"), score(84.8, 0.3))
    assert both.by == pytest.approx(0.1)
    assert (both.low, both.high) == (pytest.approx(0.1 - 2 * 0.5 - 0.005), pytest.approx(0.1 + 2 * 0.5 + 0.005))
    assert outcome(claim(tolerance="1"), score(84.8, 0.3)) == "reproduced"
    assert outcome(claim(tolerance="1", error="0.4"), score(84.8, 0.3)) == "inconclusive"


@pytest.mark.parametrize(("paper", "half_place"), [("84.70", 0.005), ("84.7", 0.05), ("-1367", 0.5), ("0.0001", 5e-5)])
def test_what_the_paper_rounded_away_counts(paper: str, half_place: float) -> None:
    assert errors(claim(paper), score(1.5, 0.1)) == (0.1, 0.0, pytest.approx(half_place))


@pytest.mark.parametrize(
    ("value", "fields", "half_place"),
    [
        (25.0, {"kind": "exact", "stderr": None}, 0.0),
        (25.0, {"kind": "exact", "stderr": 0.1}, 0.5),  # a mean that happens to be whole
        (25.5, {"kind": "exact", "stderr": None}, 0.5),
        (25.0, {"kind": "bound", "stderr": None}, 0.5),
    ],
)
def test_counts_are_not_rounded(value: float, fields: dict[str, Any], half_place: float) -> None:
    assert errors(claim("25"), score(value, **fields))[2] == half_place
    assert errors(claim("25.0"), score(25.0, None, kind="exact"))[2] == 0.0


@pytest.mark.parametrize(
    ("count", "tolerance", "comes_to"),
    [
        (25, "0", "reproduced"),
        (26, "0", "reproduced"),
        (24, "0", "further off"),
        (24, "1", "within tolerance"),
        (23, "1", "further off"),
    ],
)
def test_counts_are_compared_exactly(count: int, tolerance: str, comes_to: str) -> None:
    assert outcome(claim("25", tolerance, "higher"), score(count, None, kind="exact")) == comes_to


@pytest.mark.parametrize(
    ("ours", "comes_to"),
    [(84.7049, "reproduced"), (84.6951, "reproduced"), (84.7051, "further off"), (84.60, "reproduced")],
)
def test_without_tolerance_what_is_known_exactly_has_to_print_as_the_papers(ours: float, comes_to: str) -> None:
    assert outcome(claim(tolerance="0"), score(ours, None, kind="exact")) == comes_to


def test_without_tolerance_a_value_with_an_error_has_to_be_clearly_better() -> None:
    assert outcome(claim(tolerance="0"), score(84.70, 0.01)) == "inconclusive"
    assert outcome(claim(tolerance="0"), score(84.60, 0.01)) == "reproduced"
    assert outcome(claim(tolerance="0", error="0.1"), score(84.70, None, kind="exact")) == "inconclusive"


@pytest.mark.parametrize(
    ("ours", "comes_to"),
    [
        (84.70, "reproduced"),
        (84.55, "reproduced"),
        (84.45, "within tolerance"),  # near has two sides
        (84.95, "within tolerance"),
        (84.25, "inconclusive"),
        (85.15, "inconclusive"),
        (83.90, "further off"),
        (85.50, "further off"),
    ],
)
def test_near_has_two_sides(ours: float, comes_to: str) -> None:
    assert outcome(claim(direction="near"), score(ours, 0.1)) == comes_to


# -- Simulated cases: the truth is known, ours and the paper's are drawn -----------------------------------------------


def rates(
    worse_by: float,
    *,
    ours: float,
    paper: float,
    tolerance: str = "0.5",
    direction: str = "lower",
    places: int = 2,
    truth: float = 84.7,
) -> Counter[str]:
    """How often a claim comes to what, where ours is in truth so much worse than the paper's."""
    rng = np.random.default_rng(7)
    sign = -1 if direction == "higher" else 1
    found: Counter[str] = Counter()
    for measured, printed in zip(
        truth + sign * worse_by + ours * rng.standard_normal(TRIALS),
        truth + paper * rng.standard_normal(TRIALS),
        strict=True,
    ):
        asked = claim(f"{printed:.{places}f}", tolerance, direction, str(paper) if paper else None)
        found[outcome(asked, score(float(measured), ours))] += 1
    return Counter({name: n / TRIALS for name, n in found.items()})


SETTINGS = [
    {"ours": 0.1, "paper": 0.0},
    {"ours": 0.1, "paper": 0.1},
    {"ours": 0.03, "paper": 0.12},
    {"ours": 0.1, "paper": 0.1, "direction": "higher"},
    {"ours": 0.06, "paper": 0.08, "direction": "near"},
    {"ours": 0.02, "paper": 0.0, "places": 1},  # 84.7: half of the last place is more than two errors
    {"ours": 0.02, "paper": 0.02, "places": 1, "truth": 84.6501},  # the worst that rounding can do: half a place
    {"ours": 0.017, "paper": 0.0, "places": 1, "truth": 84.7499},  # the same on the other side
    {"ours": 0.4, "paper": 0.0},  # too wide to reproduce anything but what is far better
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_at_the_tolerance_hardly_anything_passes_or_fails(setting: dict[str, Any]) -> None:
    found = rates(0.5, **setting)
    by_chance = 3 * math.sqrt(ONE_SIDE * (1 - ONE_SIDE) / TRIALS)
    assert found["reproduced"] + found["within tolerance"] <= ONE_SIDE + by_chance
    assert found["further off"] <= ONE_SIDE + by_chance
    assert found["inconclusive"] >= 1 - 2 * (ONE_SIDE + by_chance)


def test_without_rounding_the_promise_is_not_kept_by_far_more_than_it_has_to() -> None:
    found = rates(0.5, ours=0.1, paper=0.1, places=9)
    by_chance = 3 * math.sqrt(ONE_SIDE * (1 - ONE_SIDE) / TRIALS)
    assert found["reproduced"] + found["within tolerance"] == pytest.approx(ONE_SIDE, abs=by_chance)
    assert found["further off"] == pytest.approx(ONE_SIDE, abs=by_chance)


def test_where_both_are_as_good_it_is_seldom_called_worse() -> None:
    found = rates(0.0, ours=0.05, paper=0.05, places=9)
    assert found["reproduced"] == pytest.approx(1 - ONE_SIDE, abs=0.008)
    assert found["within tolerance"] == pytest.approx(ONE_SIDE, abs=0.008)
    assert found["further off"] == 0


@pytest.mark.parametrize(
    ("worse_by", "wanted"),
    [(0.0, "reproduced"), (-0.3, "reproduced"), (0.25, "within tolerance"), (1.0, "further off")],
)
def test_more_examples_find_the_truth_out(worse_by: float, wanted: str) -> None:
    found = [rates(worse_by, ours=0.8 / math.sqrt(n), paper=0.02)[wanted] for n in (1, 4, 16, 400)]
    assert found == sorted(found)
    assert found[-1] > 0.9
    assert found[0] < 0.5


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_a_right_order_is_seldom_refused_however_many_steps_it_has(steps: int) -> None:
    drawn = np.random.default_rng(3).standard_normal((TRIALS, steps))  # of no difference at all, the hardest case
    refused = np.mean([any(Step("a", "b", d, 1.0, "nats", False, None).against(steps) for d in row) for row in drawn])
    assert refused <= ONE_SIDE + 3 * math.sqrt(ONE_SIDE / TRIALS)
    assert allowed(steps) == pytest.approx({1: 2, 2: 2.28, 3: 2.43, 6: 2.67}[steps], abs=0.005)


# -- Properties --------------------------------------------------------------------------------------------------------

places = st.integers(0, 4)
numbers = st.integers(-5000, 5000).map(lambda i: i / 50)
positive = st.integers(0, 200).map(lambda i: i / 100)
RANK = {"reproduced": 0, "within tolerance": 1, "inconclusive": 1, "further off": 2}


@st.composite
def cases(draw: st.DrawFn) -> tuple[ValueClaim, Score]:
    """A claim and a score near enough to it that every outcome occurs."""
    near_by = draw(st.integers(-300, 300)) / 100
    paper = f"{draw(numbers):.{draw(places)}f}"
    error = draw(st.none() | positive.map(str))
    made = claim(paper, str(draw(positive)), draw(st.sampled_from(["lower", "higher", "near"])), error)
    kind = draw(st.sampled_from(["exact", "estimate", "bound"]))
    return made, score(float(made.paper_value) + near_by, draw(st.none() | positive), kind=kind)


@given(cases())
def test_lower_and_higher_are_mirror_images(case: tuple[ValueClaim, Score]) -> None:
    made, measured = case
    turned = {"lower": "higher", "higher": "lower", "near": "near"}[made.direction]
    mirrored = made.model_copy(update={"paper_value": -made.paper_value, "direction": turned})
    assert shortfall(made, measured) == shortfall(mirrored, dataclasses.replace(measured, value=-measured.value))


@given(cases(), st.integers(-3, 3))
def test_the_unit_makes_no_difference(case: tuple[ValueClaim, Score], power: int) -> None:
    made, measured = case
    count = measured.kind == "exact" and measured.stderr is None  # is whole in one unit, and no count in another
    if count or (measured.stderr is not None and _at_an_edge(shortfall(made, measured))):
        return
    scaled = made.model_copy(
        update={
            name: None if value is None else value.scaleb(power)
            for name in ("paper_value", "tolerance", "paper_stderr")
            for value in [getattr(made, name)]
        }
    )
    factor = Decimal(10) ** power
    value = float(Decimal(repr(measured.value)) * factor)
    stderr = None if measured.stderr is None else float(Decimal(repr(measured.stderr)) * factor)
    assert outcome(scaled, dataclasses.replace(measured, value=value, stderr=stderr)) == outcome(made, measured)


def _at_an_edge(found: Shortfall) -> bool:
    """Whether an end of the interval lies on 0 or the tolerance, where the last digit of a sum decides."""
    assert found.low is not None
    assert found.high is not None
    return any(math.isclose(end, at, abs_tol=1e-9) for end in (found.low, found.high) for at in (0, found.tolerance))


@given(cases(), st.integers(1, 200).map(lambda i: i / 100))
def test_what_is_worse_never_comes_to_more(case: tuple[ValueClaim, Score], more: float) -> None:
    made, measured = case
    if measured.stderr is None:
        return
    sign = -1 if made.direction == "higher" else 1
    if made.direction == "near" and measured.value < made.paper_value:
        sign = -1
    worse = dataclasses.replace(measured, value=measured.value + sign * more)
    assert shortfall(made, worse).by > shortfall(made, measured).by
    assert RANK[outcome(made, worse)] >= RANK[outcome(made, measured)]


@given(cases(), positive)
def test_larger_errors_never_settle_what_was_open(case: tuple[ValueClaim, Score], more: float) -> None:
    made, measured = case
    if measured.stderr is None:
        return
    vaguer = dataclasses.replace(measured, stderr=measured.stderr + more)
    before, after = outcome(made, measured), outcome(made, vaguer)
    if before == "inconclusive":
        assert after == "inconclusive"
    elif before == "further off":
        assert after in ("further off", "inconclusive")
    elif before == "reproduced":
        assert after in ("reproduced", "inconclusive")


# -- What it would take ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ours", "stderr", "paper"), [(84.8, 0.3, None), (85.0, 0.4, "0.05"), (85.5, 0.3, None)])
def test_so_many_examples_settle_it(ours: float, stderr: float, paper: str | None) -> None:
    asked, measured = claim(error=paper), score(ours, stderr, n=1000)
    assert outcome(asked, measured) == "inconclusive"
    needed = examples_needed(asked, measured)
    assert needed is not None
    for n, settled in ((needed * 1.001, True), (needed * 0.999, False)):
        found = outcome(asked, dataclasses.replace(measured, stderr=stderr * math.sqrt(1000 / n)))
        assert (found != "inconclusive") == settled


def test_no_number_of_examples_makes_up_for_the_papers_own_error() -> None:
    assert examples_needed(claim(error="0.3"), score(84.7, 0.1)) is None
    assert examples_needed(claim("85", "0.4"), score(84.9, 0.1)) is None  # rounding alone is more than the tolerance
    assert examples_needed(claim(error="0.3"), score(84.7, None, kind="exact")) is None


# -- In words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("short", "text"),
    [
        (Shortfall(0.117, -0.43, 0.664, 1.5), "worse by 0.12 nats, between 0.43 better and 0.66 worse; tolerance 1.5"),
        (Shortfall(-0.108, -2.15, 1.934, 3), "better by 0.1 nats, between 2.1 better and 1.9 worse; tolerance 3"),
        (Shortfall(0.9, 0.7, 1.1, 0.5), "worse by 0.90 nats, between 0.70 and 1.10; tolerance 0.5"),
        (Shortfall(-0.9, -1.1, -0.7, 0.5), "better by 0.90 nats, between 0.70 and 1.10; tolerance 0.5"),
        (Shortfall(0.0, -0.2, 0.2, 0.5), "equal, between 0.20 better and 0.20 worse; tolerance 0.5"),
        (Shortfall(0.1, -0.1, 0.3, 0.5, near=True), "off by 0.10 nats, by at most 0.30; tolerance 0.5"),
        (Shortfall(0.9, 0.7, 1.1, 0.5, near=True), "off by 0.90 nats, between 0.70 and 1.10; tolerance 0.5"),
        (Shortfall(1.0, 1.0, 1.0, 0), "worse by 1 nat; tolerance 0"),
        (Shortfall(14.3, None, None, 0.5), "worse by 14.3 nats, error unknown; tolerance 0.5"),
    ],
)
def test_a_shortfall_in_words(short: Shortfall, text: str) -> None:
    assert show_shortfall(short, "nats") == text


def test_two_errors_are_allowed_everywhere() -> None:
    assert ERRORS == 2
    assert allowed(1) == pytest.approx(ERRORS)
