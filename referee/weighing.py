"""The rule by which a measured value is weighed against the one a paper prints, with the errors of both sides.

How much worse ours is than the paper's, `by`, is known up to an interval [low, high]:

    by ± (2 sqrt(ours² + paper²) + half of the last place that the paper printed)

where `ours` is the standard error of our value and `paper` that of the paper's, as far as the paper states one. The
claim brings a tolerance, fixed before anything ran. The interval is held against two numbers: 0, where both are
equally good, and the tolerance.

    reproduced        high <= tolerance, low <= 0   not clearly worse, and not worse by more than the tolerance
    within tolerance  high <= tolerance, low > 0    clearly worse, and not by more than the tolerance
    further off       low > tolerance               clearly worse by more than the tolerance
    inconclusive      low <= tolerance < high       the errors are too wide to say; also when ours is unknown

This is a test of non-inferiority with the tolerance as its margin, and of equivalence where the claim's direction is
"near" (Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power approach for assessing the
equivalence of average bioavailability"; Wellek 2010, "Testing statistical hypotheses of equivalence and
noninferiority"). Two standard errors leave out 2.3 % on a side. So where the truth is worse by the tolerance or more,
a verdict is *reproduced* or *within tolerance* in at most one of 43 cases; and where the truth is worse by no more
than the tolerance, it is *further off* in at most as many (for "near" in up to twice as many, if the tolerance is
smaller than the errors).

The rounding is added, not counted as one more random error: whatever the paper's value was before it was rounded, it
lies within half of the last place, and the promise holds for each such value, not only on average over them.

Where a run was made with several seeds, ours is the mean over them, and 2 × ours is what `referee.seeds.Spread.reach`
says: twice the error over test examples, together with the error over seeds times a quantile of Student's distribution.

Both errors are taken as independent. Ours and the paper's are often means over the same test examples, of which some
are hard for both: the true error of the difference is then smaller, and the rule errs towards *inconclusive*. Where
the paper states no error, its value is taken as it is printed.
"""

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from common.records import Score
from referee.schema import ValueClaim
from referee.seeds import Spread, student

ERRORS = 2.0
"""How many standard errors either way are allowed for, in every verdict."""

Outcome = Literal["reproduced", "within tolerance", "further off", "inconclusive"]


@dataclass(frozen=True)
class Shortfall:
    """By how much a value falls short of the paper's, in the claim's unit.

    Attributes:
        by: how much worse it is, negative where it is better; for a claim whose direction is "near" how far off, >= 0.
        low: the least that this may be, given the errors of both; None where our error is unknown. Below 0 for "near":
            ours may lie on the paper's other side.
        high: the most that it may be.
        tolerance: the claim's.
        near: whether the claim's direction is "near".
        same: whether both are known exactly and agree to the places that the paper printed.
    """

    by: float
    low: float | None
    high: float | None
    tolerance: float
    near: bool = False
    same: bool = False

    @property
    def outcome(self) -> Outcome:
        """What the interval comes to, by the table above."""
        if self.low is None or self.high is None:
            return "inconclusive"
        if self.low > self.tolerance:
            return "further off"
        if self.high > self.tolerance and not self.same:
            return "inconclusive"
        return "reproduced" if self.low <= 0 else "within tolerance"


def shortfall(claim: ValueClaim, score: Score, spread: Spread | None = None) -> Shortfall:
    """By how much a score falls short of what the paper prints, with the errors of both.

    Args:
        score: of one seed, or the mean over several.
        spread: over these seeds; None for one.
    """
    above = Decimal(repr(score.value)) - claim.paper_value
    by = {"lower": above, "higher": -above, "near": abs(above)}[claim.direction]
    ours, paper, half_place = errors(claim, score, spread)
    low = high = None
    if ours is not None:
        half = math.hypot(reach(ours, spread), ERRORS * paper) + half_place
        low, high = float(by) - half, float(by) + half
    same = ours == paper == 0 and abs(by) <= Decimal(half_place)
    return Shortfall(float(by), low, high, float(claim.tolerance), claim.direction == "near", same)


def errors(claim: ValueClaim, score: Score, spread: Spread | None = None) -> tuple[float | None, float, float]:
    """Our standard error (None: unknown), the paper's (0 where it states none), and half of the last printed place.

    A score of kind "exact" without an error is known exactly. If it is a whole number (with every seed), and what the
    paper prints is one, both are counts, which nobody has rounded.
    """
    ours = 0.0 if score.stderr is None and score.kind == "exact" else score.stderr
    values = spread.values if spread and spread.evaluation == 0 else (score.value,) if score.stderr is None else ()
    counts = score.kind == "exact" and bool(values) and all(float(value).is_integer() for value in values)
    exponent = claim.paper_value.as_tuple().exponent
    assert isinstance(exponent, int)
    half_place = (
        0.0 if counts and claim.paper_value == int(claim.paper_value) else float(Decimal(5).scaleb(exponent - 1))
    )
    return ours, float(claim.paper_stderr or 0), half_place


def reach(ours: float, spread: Spread | None = None) -> float:
    """How far ours may be off: `ERRORS` standard errors, or what stands for them where ours is a mean over seeds."""
    far = spread.reach(ERRORS) if spread is not None else None
    return ERRORS * ours if far is None else far


def examples_needed(claim: ValueClaim, score: Score, spread: Spread | None = None) -> float | None:
    """Of about how many examples our value would have to be a mean for the tolerance to lie outside the interval.

    As the square root of their number, our error over examples falls; the value, the paper's error and what seeds
    differ by are taken to stay as they are. None where no number of examples is enough: these alone span what is
    between.
    """
    evaluation, paper, _ = errors(claim, score, spread)
    seeds = 0.0
    if spread is not None:
        evaluation, seeds = spread.evaluation, student(ERRORS, len(spread.values) - 1) * spread.between / ERRORS
    room = _room(claim, score, spread)
    if not evaluation or room <= math.hypot(paper, seeds):
        return None
    return score.n * evaluation**2 / (room**2 - paper**2 - seeds**2)


def seeds_needed(claim: ValueClaim, score: Score, spread: Spread) -> int | None:
    """How many seeds it would take for the tolerance to lie outside the interval, differing as these do.

    None where a hundred are not enough.
    """
    if spread.evaluation is None:
        return None
    _, paper, _ = errors(claim, score, spread)
    left = ERRORS**2 * (max(0.0, _room(claim, score, spread)) ** 2 - paper**2 - spread.evaluation**2)
    sd = spread.between * math.sqrt(len(spread.values))
    return next((m for m in range(2, 101) if (student(ERRORS, m - 1) * sd) ** 2 < m * left), None)


def _room(claim: ValueClaim, score: Score, spread: Spread | None) -> float:
    """How many of all errors together there is room for between what ours falls short by and the tolerance."""
    found = shortfall(claim, score, spread)
    return (abs(found.tolerance - found.by) - errors(claim, score, spread)[2]) / ERRORS
