"""Precision, recall, density and coverage: are samples where the data is, and is the data where samples are?

Around each point X_i of the data lies a ball that reaches to its k-th nearest other point of the data; likewise around
each sample Y_j among the samples. All four count which balls hold which points:

    precision   share of samples inside some ball of the data            Kynkäänniemi et al. 2019, eq. 1 and 2 (k = 3)
    recall      share of the data inside some ball of the samples        the same, with the two sets exchanged
    density     how many balls of the data hold a sample, over k, mean   Naeem et al. 2020, section 3.2 (k = 5)
    coverage    share of the data whose ball holds some sample           the same

Higher is better; density alone can be above 1. An outlier in the data has a large ball, so that precision counts what
is far from everything else; density does not, since the outlier is one ball of many. Recall needs balls around samples,
and bad samples have large ones; coverage does not. The four depend on n, on m and on k, and are compared at equal ones.

A ball holds its rim (eq. 1 has <=), so that a sample equal to a point of the data counts where that point has k equals.
Naeem et al. do not say, and their package leaves the rim out, of precision and recall too: on tied distances
(duplicates, quantised pixels) it and this module differ by definition; elsewhere they agree.

Samples of the data's own distribution. A point X_i's N - 1 others and a sample are exchangeable, so that the sample is
among the k nearest of these N with probability k / N: the expected density is N M (k / N) / (k M) = 1. No sample is in
the ball if the k nearest of the N - 1 others and M samples are all of the data, which has the probability

    prod_{i<k} (N - 1 - i) / (N + M - 1 - i)

and the expected coverage is 1 minus that, `expected_coverage`, in any space and for any distribution without ties; for
N = M it is about 1 - 2^-k (Naeem et al. 2020, section 3.3). Precision and recall have no such value.

The legend of `common.evaluation.neighbours` applies: X_ND the data, Y_MD the samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import ConfigError
from common.evaluation.bank import Bank, check_pair
from common.evaluation.neighbours import (
    Points,
    Radii,
    blocks,
    direct,
    first_type,
    frame,
    gaps,
    lower_bounds,
    radii,
    up,
)
from common.records import Score

NEAREST = 16
"""How many of the nearest samples are kept for each point of the data, for the errors: half of the samples has none of
these once in 65,000 times."""


@dataclass
class Manifold:
    """What is inside of what.

    Args:
        in_data: (M,) bool, which samples are inside some ball of the data; precision is its mean.
        in_samples: (N,) bool, which of the data is inside some ball of the samples; recall.
        held: (M,) how many balls of the data hold a sample; density is its mean over k.
        covered: (N,) bool, which balls of the data hold some sample; coverage.
        k_pr, k_dc: the k of precision and recall, and of density and coverage.
    """

    in_data: Tensor
    in_samples: Tensor
    held: Tensor
    covered: Tensor
    k_pr: int
    k_dc: int

    @property
    def precision(self) -> float:
        """Share of samples inside some ball of the data."""
        return float(self.in_data.double().mean())

    @property
    def recall(self) -> float:
        """Share of the data inside some ball of the samples."""
        return float(self.in_samples.double().mean())

    @property
    def density(self) -> float:
        """Balls of the data that hold a sample, over k, mean over samples."""
        return float(self.held.double().mean() / self.k_dc)

    @property
    def coverage(self) -> float:
        """Share of the data whose ball holds some sample."""
        return float(self.covered.double().mean())


@dataclass
class _Lists:
    """Who is near, roughly: what the errors are worked out from."""

    X: Radii
    Y: Radii
    nearest: Tensor  # (N, L) samples nearest to each point of the data, from near to far
    nearest_rough: Tensor  # (N, L) their squared distances
    deepest: Tensor  # (N, L) samples whose balls it is deepest inside of
    deepest_rough: Tensor  # (N, L) their squared distances


def manifold(samples: Tensor, reference: Tensor, *, k_pr: int = 3, k_dc: int = 5, progress: str = "") -> Manifold:
    """Which points are inside which balls, exactly: every comparison as if distances were worked out one by one.

    Args:
        samples: (M, D) float64, finite.
        reference: (N, D) the data.
        progress: label of progress bars; none when empty.

    Raises:
        ConfigError: k < 1, or no fewer than there are points.
    """
    return _manifold(samples, reference, k_pr, k_dc, progress)[0]


def _manifold(Y_MD: Tensor, X_ND: Tensor, k_pr: int, k_dc: int, progress: str) -> tuple[Manifold, _Lists]:
    centre, scale = frame(X_ND, Y_MD)
    X, Y = Points(X_ND, centre, scale), Points(Y_MD, centre, scale)
    label = f"{progress}: {{}}" if progress else ""
    of_X = radii(X, tuple({k_pr, k_dc}), listed=6 * max(k_pr, k_dc), progress=label.format("data"))
    of_Y = radii(Y, (k_pr,), listed=6 * k_pr, progress=label.format("samples"))
    rim_pr, rim_dc, rim_Y = of_X.squared[k_pr], of_X.squared[k_dc], of_Y.squared[k_pr]
    found = Manifold(
        in_data=torch.zeros(Y.n, dtype=torch.bool),
        in_samples=torch.zeros(X.n, dtype=torch.bool),
        held=torch.zeros(Y.n, dtype=torch.int64),
        covered=torch.zeros(X.n, dtype=torch.bool),
        k_pr=k_pr,
        k_dc=k_dc,
    )
    L = min(NEAREST, Y.n)
    lists = _Lists(of_X, of_Y, *(torch.empty(X.n, L, dtype=t) for t in (torch.int64, torch.float32) * 2))
    widest = torch.maximum(rim_pr, rim_dc)
    smallest = rim_Y[rim_Y > 0].min() if (rim_Y > 0).any() else rim_Y.new_ones(())
    depth = rim_Y.clamp(min=float(smallest)).reciprocal()
    for i_R in blocks(X.n, Y.n, label.format("balls")):
        dtype = first_type(X.dims)
        lower = lower_bounds(X, i_R, Y, dtype)
        low, lists.nearest[i_R] = lower.topk(L, largest=False, sorted=True)
        lists.nearest_rough[i_R] = low.float()
        deep = (lower * depth.to(dtype)).topk(L, largest=False, sorted=False).indices
        lists.deepest[i_R], lists.deepest_rough[i_R] = deep, lower.gather(1, deep).float()

        r, j, low, gap = _near(X, i_R, Y, lower, widest, rim_Y)
        unsure = _unsure(i_R[r], j, low, gap, rim_pr, rim_dc, rim_Y)
        if int(unsure.sum()) > lower.numel() // 64 and dtype != torch.float64:
            lower = lower_bounds(X, i_R, Y, torch.float64)
            r, j, low, gap = _near(X, i_R, Y, lower, widest, rim_Y)
            unsure = _unsure(i_R[r], j, low, gap, rim_pr, rim_dc, rim_Y)
        distance = low + gap  # at most; where that decides, as good as the distance itself
        distance[unsure] = direct(X, i_R[r[unsure]], Y, j[unsure])
        i = i_R[r]
        found.in_data[j[distance <= rim_pr[i]]] = True
        inside = distance <= rim_dc[i]
        found.held += torch.bincount(j[inside], minlength=Y.n)
        found.covered[i[inside]] = True
        found.in_samples[i[distance <= rim_Y[j]]] = True
    return found, lists


def _near(
    X: Points, i_R: Tensor, Y: Points, lower: Tensor, widest: Tensor, rim_Y: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs (place in i_R, sample) that can be within a ball of either, their lower bounds and gaps, float64."""
    near = lower <= up(widest[i_R], lower.dtype)[:, None]
    near |= lower <= up(rim_Y, lower.dtype)
    r, j = near.nonzero().unbind(1)
    return r, j, lower[r, j].double(), gaps(X, i_R[r], Y, j, lower.dtype)


def _unsure(i: Tensor, j: Tensor, low: Tensor, gap: Tensor, *rims: Tensor) -> Tensor:
    """Of which pairs some ball's rim lies between the bounds."""
    rim_pr, rim_dc, rim_Y = rims
    most = low + gap
    unsure = torch.zeros(len(i), dtype=torch.bool)
    for rim in (rim_pr[i], rim_dc[i], rim_Y[j]):
        unsure |= (low <= rim) & (rim < most)
    return unsure


def expected_coverage(reference: int, samples: int, k: int = 5) -> float:
    """The coverage that samples of the data's own distribution have on average: 1 - prod (N-1-i) / (N+M-1-i), i < k.

    Args:
        reference: N, points of the data.
        samples: M.

    Raises:
        ConfigError: k is not one of 1, ..., N - 1, or there are no samples.
    """
    if not 1 <= k < reference or samples < 1:
        raise ConfigError(f"k = {k}, {reference:,} points, {samples:,} samples: it takes 1 <= k < points and a sample.")
    missed = 1.0
    for i in range(k):
        missed *= (reference - 1 - i) / (reference + samples - 1 - i)
    return 1 - missed


def manifold_scores(
    samples: Bank,
    reference: Bank,
    *,
    generator: torch.Generator,
    k_pr: int = 3,
    k_dc: int = 5,
    halvings: int = 50,
    protocol: str = "",
    weights: str = "raw",
    progress: str = "",
) -> list[Score]:
    """Precision, recall, density and coverage, `precision[<network>]` and so on, with errors.

    The errors are those over samples, the reference being as it is. Precision and density are means over samples that
    are independent given the reference: their errors are exact. Recall and coverage are not, and resampling misleads: a
    bootstrap repeats samples and finds more of the data uncovered than there is, a jackknife
    overstates the error up to twofold. They are local, however: with all points half as dense and k the same, balls
    hold as many points as before and there are half as many, so that the variance doubles. So both sets are halved at
    random, and one half of the data is compared with either half of the samples: half the mean squared difference is
    the variance at half the size, and a quarter that at full size. Good to about a fifth (and to a third where few
    points decide).

    Args:
        generator: for the halvings alone.
        k_pr: k of precision and recall.
        k_dc: k of density and coverage.
        halvings: how many, at least 2.
        protocol: what else decides the values; n, m, split, network and k are stated already.
        weights: "raw" or "ema": which of the model's weights made the samples.
        progress: label of progress bars; none when empty.

    Returns: the scores of precision, recall, density and coverage, in that order.

    Raises:
        DataError: banks that do not compare, or with fewer than 2 k + 2 examples.
        ConfigError: a k below 1, or fewer than two halvings.
    """
    if min(k_pr, k_dc) < 1:
        raise ConfigError(f"k = {min(k_pr, k_dc)}: a ball reaches to the first neighbour at least.")
    if halvings < 2:
        raise ConfigError(f"halvings = {halvings}: an error bar takes at least 2.")
    check_pair(samples, reference, "precision, recall, density and coverage", 2 * max(k_pr, k_dc) + 2)
    found, lists = _manifold(samples.x, reference.x, k_pr, k_dc, progress)
    of_recall, of_coverage = _halved(lists, k_pr, k_dc, halvings, generator)
    network = samples.network or "no network"
    how = f"{samples.n:,} samples against {reference.n:,} of {reference.source}, features of {network}"
    mean, halved = "error of a mean over samples", f"error over samples by {halvings} halvings"

    def score(name: str, value: float, stderr: float, k: int, error: str) -> Score:
        return Score(
            name=f"{name}[{samples.network}]",
            value=value,
            stderr=stderr,
            n=samples.n,
            unit="balls over k" if name == "density" else "share",
            kind="estimate",
            split=reference.split,
            weights=weights,  # type: ignore[arg-type]
            protocol="; ".join(part for part in (how, f"k = {k}", error, protocol) if part),
        )

    root = samples.n**0.5
    return [
        score("precision", found.precision, float(found.in_data.double().std()) / root, k_pr, mean),
        score("recall", found.recall, of_recall, k_pr, halved),
        score("density", found.density, float(found.held.double().std()) / k_dc / root, k_dc, mean),
        score("coverage", found.coverage, of_coverage, k_dc, halved),
    ]


def _halved(lists: _Lists, k_pr: int, k_dc: int, halvings: int, generator: torch.Generator) -> tuple[float, float]:
    """The errors of recall and coverage; `manifold_scores` says how."""
    N, M = len(lists.X.near), len(lists.Y.near)
    squares = torch.zeros(2, dtype=torch.float64)
    for _ in range(halvings):
        H = _random(N, generator)[: N // 2]
        half = torch.full((M,), -1)
        at_random = _random(M, generator)
        half[at_random[: M // 2]], half[at_random[M // 2 : M // 2 * 2]] = 0, 1
        chosen = torch.zeros(N, dtype=torch.bool)
        chosen[H] = True
        rim_X = _thinned(lists.X.rough[H], chosen[lists.X.near[H]], k_dc)
        rim_Y = _thinned(lists.Y.rough, half[lists.Y.near] == half[:, None], k_pr)
        inside = lists.deepest_rough[H] <= rim_Y[lists.deepest[H]]
        covered = lists.nearest_rough[H] <= rim_X[:, None]
        for row, found, whose in ((0, inside, lists.deepest[H]), (1, covered, lists.nearest[H])):
            share = [(found & (half[whose] == side)).any(1).double().mean() for side in (0, 1)]
            squares[row] += (share[0] - share[1]).square()
    errors = (squares / halvings / 4).sqrt()
    return float(errors[0]), float(errors[1])


def _thinned(rough: Tensor, stays: Tensor, k: int) -> Tensor:
    """(R,) squared distances to the k-th of those on a list (R, K) that stay; to the last where the list is short."""
    count = stays.cumsum(1)
    place = ((count < k).sum(1)).clamp(max=rough.shape[1] - 1)
    return rough.gather(1, place[:, None])[:, 0]


def _random(n: int, generator: torch.Generator) -> Tensor:
    """A random order of n things."""
    return torch.randperm(n, generator=generator, device=generator.device).cpu()
