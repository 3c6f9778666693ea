"""Several seeds of a run: the mean of a score, and how far the mean may be off.

Two things move a mean over seeds s = 1..m of the values v_s, each with its standard error e_s over test examples:

    between      sd / sqrt(m)           other seeds: sd² = sum (v_s - mean)² / (m - 1)
    evaluation   sqrt(sum e_s² / m)     other test examples

and the standard error that is shown is sqrt(between² + evaluation²). All seeds are scored on the same examples: what
these examples happen to favour, they favour in every seed, and no number of seeds averages it out. So the second is not
divided by m. Where an evaluation draws at random for itself, in each seed anew, that is counted in both, which errs to
the safe side; so is what test examples and seeds do to one another. Runs that name no data set, since they draw all
their data from their seed, share nothing: what they differ by is then all there is, and `evaluation` is 0.

With few seeds, sd itself is known badly, and twice the standard error would promise more than it keeps. An interval
that leaves out as much on each side as q standard errors of a normal distribution do reaches

    sqrt((t between)² + (q evaluation)²)       t: the quantile of Student's distribution with m - 1 degrees of freedom

either way. Of independent normal parts with quantiles of their own it covers at least what each of them promises
(Banerjee 1960, "Approximate confidence interval for linear functions of means of k populations when the population
variances are not equal", Sankhya 22).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist

from common.records import Score


@dataclass(frozen=True)
class Spread:
    """A number that several seeds gave: a score, or a difference of two.

    Attributes:
        seeds: at least two, each once.
        values: one for each seed.
        evaluation: standard error over test examples that the seeds share; 0 where they share none, None where it is
            unknown.
    """

    seeds: tuple[int, ...]
    values: tuple[float, ...]
    evaluation: float | None

    def __post_init__(self) -> None:
        if len(self.values) < 2 or len(set(self.seeds)) != len(self.values):
            raise ValueError(f"{len(self.values)} values of the seeds {self.seeds}: at least two, each of its own seed")

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)

    @property
    def between(self) -> float:
        """Standard error of the mean over seeds, from how much they differ."""
        m, mean = len(self.values), self.mean
        return math.sqrt(math.fsum((value - mean) ** 2 for value in self.values) / (m - 1) / m)

    @property
    def stderr(self) -> float | None:
        """Standard error of the mean over both seeds and test examples; None where a part is unknown."""
        return None if self.evaluation is None else math.hypot(self.between, self.evaluation)

    def reach(self, errors: float) -> float | None:
        """How far the mean may be off, where `errors` standard errors of a normal distribution are allowed for."""
        if self.evaluation is None:
            return None
        return math.hypot(student(errors, len(self.values) - 1) * self.between, errors * self.evaluation)

    def of(self, score: Score) -> Score:
        """The score with the mean for its value, and the error of the mean."""
        return replace(score, value=self.mean, stderr=self.stderr)


def over_seeds(scores: Mapping[int, Score], *, shared: bool = True) -> Spread:
    """The spread of one score over seeds.

    Args:
        scores: seed -> score.
        shared: whether all of them are scores on the same examples.
    """
    known = [_error(score) if shared else 0.0 for score in scores.values()]
    errors = [error for error in known if error is not None]
    evaluation = math.sqrt(math.fsum(error**2 for error in errors) / len(known)) if len(errors) == len(known) else None
    return Spread(tuple(scores), tuple(score.value for score in scores.values()), evaluation)


def _error(score: Score) -> float | None:
    return 0.0 if score.stderr is None and score.kind == "exact" else score.stderr


@lru_cache(maxsize=1024)
def student(errors: float, degrees: int) -> float:
    """The quantile of Student's distribution above which as much lies as above `errors` of the standard normal one."""
    beyond = NormalDist().cdf(-errors)
    low, high = 0.0, 1.0
    while _beyond(high, degrees) > beyond:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _beyond(middle, degrees) > beyond else (low, middle)
    return high


def _beyond(t: float, degrees: int) -> float:
    """How much of Student's distribution lies above t >= 0, for a whole number of degrees of freedom.

    The finite sums of Abramowitz & Stegun 1964, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = degrees % 2
    term = total = (cosine if degrees > 1 else 0.0) if odd else 1.0
    for k in range(3 if odd else 2, degrees - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return (1 - inside) / 2


def show_seeds(seeds: Sequence[int]) -> str:
    """As `--seeds` takes them: '0-4', '0,2,7'."""
    seeds = sorted(seeds)
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ",".join(map(str, seeds))
