"""Who is nearest to whom, exactly: distances between many points, compared as if each were worked out by itself.

What a metric of neighbours counts are comparisons of distances, and those that are nearly equal decide: a duplicate
lies exactly on the ball that its twin touches. The usual |x|^2 + |y|^2 - 2 x.y loses the digits that tell them apart.
So a comparison is made twice at most:

    first   all pairs at once by matrix products, in float32, with a bound on the error of each
    then    directly, sum (x - y)^2 in float64, those few that the bound leaves open

(where the bound leaves many open, by products in float64 in between). Whatever the first says is what the last would
have said, so results are those of the slow method, ties included.

The bound. For centred points x, y of d dimensions with s = |x|^2, t = |y|^2, a product in arithmetic of unit roundoff
u is wrong by at most gamma |x||y|, gamma = d u / (1 - d u), in whatever order it is summed (Higham 2002, section 3.1),
and 2|x||y| <= s + t. Rounding the points and the additions costs less than 10 u (s + t); s, t and the direct distance
themselves less than 4 (d + 4) 2^-53 (s + t). So |fast - direct| <= c (s + t), c the sum of the three factors. Points
are centred, since that changes no distance but makes s and t small, and scaled by a power of two, which rounds
nothing, to stay clear of overflow; what underflows in spite of it is less than d times `FLOOR`.

Notation

    x_ND, y_MD    points, float64          s_N, t_M      squared norms after centring and scaling
    lower_RM      what squared distances of R rows are at least, gap: lower + gap is what they are at most
    i_R           the R points of x that are compared with all of y at a time
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from common.errors import ConfigError

ENTRIES = 8_000_000
"""Distances worked out at a time."""

FLOOR = {torch.float32: 2.0**-120, torch.float64: 2.0**-1000}
"""More than a product can lose by underflow."""


class Points:
    """Points (N, D) made ready to be compared with others of the same frame.

    Args:
        x_ND: float64, finite.
        centre_D, scale: the frame. Points of one frame compare; `frame` makes a good one.
    """

    def __init__(self, x_ND: Tensor, centre_D: Tensor, scale: float) -> None:
        self.x, self.centre, self.scale = x_ND, centre_D, scale
        self.n, self.dims = x_ND.shape
        self._rough = torch.empty(x_ND.shape, dtype=torch.float32)
        self.norms = torch.empty(self.n, dtype=torch.float64)  # s
        for rows in _slices(self.n, max(1, ENTRIES // max(1, self.dims))):
            fine = self.fine(rows)
            self._rough[rows] = fine.float()
            self.norms[rows] = fine.square().sum(1)
        self._twins: Tensor | None = None

    def fine(self, i_R: Tensor | slice) -> Tensor:
        """Some of the points in the frame, float64."""
        return (self.x[i_R] - self.centre) * self.scale

    def typed(self, i_R: Tensor | slice, dtype: torch.dtype) -> Tensor:
        """Some of the points in the frame."""
        return self._rough[i_R] if dtype == torch.float32 else self.fine(i_R)

    @property
    def twins(self) -> Tensor:
        """(N,) the first point that each is equal to, bit by bit."""
        if self._twins is None:
            first: dict[bytes, int] = {}
            digests = (hashlib.sha256(row.tobytes()).digest() for row in self.x.numpy())
            self._twins = torch.tensor([first.setdefault(digest, i) for i, digest in enumerate(digests)])
        return self._twins


def frame(x_ND: Tensor, y_MD: Tensor) -> tuple[Tensor, float]:
    """(centre (D,), scale) in which the points x are about 0, and all of x and y at most 1 in size."""
    centre = x_ND.mean(0)
    largest = max(float((x - centre).abs().max()) for x in (x_ND, y_MD) if x.numel())
    return centre, 2.0 ** -math.ceil(math.log2(largest * math.sqrt(len(centre)))) if largest > 0 else 1.0


def bound(dims: int, dtype: torch.dtype) -> float:
    """c of the bound above."""
    u = torch.finfo(dtype).eps / 2
    return dims * u / (1 - dims * u) + 10 * u + 4 * (dims + 4) * 2.0**-53


def lower_bounds(a: Points, i_R: Tensor, b: Points, dtype: torch.dtype) -> Tensor:
    """(R, M) of `dtype`: what the squared distances of points i_R of a to all of b are at least."""
    c = bound(a.dims, dtype)
    lower = (a.typed(i_R, dtype) * -2) @ b.typed(slice(None), dtype).T
    lower += (b.norms * (1 - c)).to(dtype)
    lower += (a.norms[i_R, None] * (1 - c) - a.dims * FLOOR[dtype]).to(dtype)
    return lower


def gaps(a: Points, i: Tensor, b: Points, j: Tensor, dtype: torch.dtype) -> Tensor:
    """(P,) float64: how far pairs (i, j) can be above their lower bounds."""
    gap: Tensor = 2 * bound(a.dims, dtype) * (a.norms[i] + b.norms[j]) + 2 * a.dims * FLOOR[dtype]
    return gap


def direct(a: Points, i: Tensor, b: Points, j: Tensor) -> Tensor:
    """(P,) float64: squared distances of pairs (i, j) in the frame's units, each by itself.

    The same two points give the same bits, whatever they are paired with and in whatever order. Of equal pairs one is
    worked out, so that a heap of duplicates costs no more than one of them.
    """
    if len(i) > 4 * (a.n + b.n):
        pairs, back = torch.unique(a.twins[i] * b.n + b.twins[j], return_inverse=True)
        i, j = pairs // b.n, pairs % b.n
        if len(pairs) < len(back):
            return direct_each(a, i, b, j)[back]
    return direct_each(a, i, b, j)


def direct_each(a: Points, i: Tensor, b: Points, j: Tensor) -> Tensor:
    """`direct`, pair by pair."""
    if len(i) == 1:  # a sum to a single number is cut among threads, and then rounds in another way
        return direct_each(a, i.repeat(2), b, j.repeat(2))[:1]
    found = torch.empty(len(i), dtype=torch.float64)
    size = max(2, 65_536 // max(1, a.dims))  # what a processor's cache holds
    for part in _slices(len(i), size):
        if part.start == len(i) - 1:
            part = slice(part.start - 1, part.stop)
        found[part] = a.x[i[part]].sub_(b.x[j[part]]).mul_(a.scale).square_().sum(1)
    return found


@dataclass
class Radii:
    """How far each of N points is from its k-th nearest other, and roughly who its K nearest are.

    Args:
        squared: k -> (N,) float64 squared distances in the frame's units, as `direct` has them.
        near: (N, K) indices of the nearest others, from near to far.
        rough: (N, K) their squared distances, in the frame's units and in about six digits.
    """

    squared: dict[int, Tensor]
    near: Tensor
    rough: Tensor


def radii(points: Points, ks: tuple[int, ...], *, listed: int = 0, progress: str = "") -> Radii:
    """The distances of each point to its k-th nearest others, for several k.

    A point is no neighbour of its own; another that equals it is one.

    Args:
        ks: which neighbours, each from 1 to N - 1.
        listed: K of `Radii`, if more than the largest k.

    Raises:
        ConfigError: there are no k others.
    """
    for k in ks:
        if not 1 <= k < points.n:
            raise ConfigError(f"k = {k}: {points.n:,} points have 1 to {points.n - 1} neighbours each.")
    most = max(ks)
    K = min(points.n - 1, max(most + 4, listed))
    squared = {k: torch.empty(points.n, dtype=torch.float64) for k in ks}
    near, rough = torch.empty(points.n, K, dtype=torch.int64), torch.empty(points.n, K)
    for i_R in blocks(points.n, points.n, progress):
        lower = _to_others(points, i_R, first_type(points.dims))
        low, near[i_R] = lower.topk(K, largest=False, sorted=True)
        rough[i_R] = low.float()
        open_ = i_R[~_settle(points, i_R, low.double(), near[i_R], lower.dtype, squared)]
        if len(open_) and lower.dtype != torch.float64:
            lower = _to_others(points, open_, torch.float64)
            low, near_R = lower.topk(K, largest=False, sorted=True)
            settled = _settle(points, open_, low, near_R, torch.float64, squared)
            open_, lower = open_[~settled], lower[~settled]
        elif len(open_):
            lower = lower[open_ - i_R[0]]
        if len(open_):  # more at one distance than the list is long: work them all out
            gap = gaps(points, open_[:, None], points, torch.arange(points.n), torch.float64)
            ceiling = (lower + gap).kthvalue(most, dim=1).values[:, None]
            r, j = (lower <= ceiling).nonzero().unbind(1)
            exact = torch.full_like(lower, torch.inf)
            exact[r, j] = direct(points, open_[r], points, j)
            for k in ks:
                squared[k][open_] = exact.kthvalue(k, dim=1).values
    return Radii(squared, near, rough)


def _to_others(points: Points, i_R: Tensor, dtype: torch.dtype) -> Tensor:
    """(R, N) lower bounds of squared distances to the others; that of a point to itself is infinite."""
    lower = lower_bounds(points, i_R, points, dtype)
    lower[torch.arange(len(i_R)), i_R] = torch.inf
    return lower


def _settle(
    points: Points, i_R: Tensor, low: Tensor, near: Tensor, dtype: torch.dtype, squared: dict[int, Tensor]
) -> Tensor:
    """Enter the squared radii of points i_R, given the K least lower bounds (R, K) and whose they are.

    Returns: (R,) whether the list was long enough to be sure. What is entered where it was not, is not to be used.
    """
    gap = gaps(points, i_R[:, None], points, near, dtype)
    for k in squared:
        squared[k][i_R] = _kth(points, i_R, near, low, gap, k)
    # Whatever can be the k-th nearest is below the k-th smallest upper bound: is all of that on the list?
    ceiling = (low + gap).kthvalue(max(squared), dim=1).values
    return (low[:, -1] > ceiling) | torch.tensor(low.shape[1] == points.n - 1)


def _kth(points: Points, i_R: Tensor, near: Tensor, low: Tensor, gap: Tensor, k: int) -> Tensor:
    """(R,) the k-th smallest direct distance of each row among those listed, given their bounds (R, K) in float64."""
    least = low.kthvalue(k, dim=1).values[:, None]
    most = (low + gap).kthvalue(k, dim=1).values[:, None]
    below = low + gap < least  # surely nearer than the k-th
    maybe = ~below & (low <= most)
    exact = torch.full_like(low, torch.inf)
    r, place = maybe.nonzero().unbind(1)
    exact[r, place] = direct(points, i_R[r], points, near[r, place])
    found: Tensor = exact.sort(dim=1).values.gather(1, (k - 1 - below.sum(1))[:, None])[:, 0]
    return found


def nearest(x_ND: Tensor, y_MD: Tensor, *, progress: str = "") -> tuple[Tensor, Tensor]:
    """The nearest of y to each of x.

    Args:
        x_ND, y_MD: float64, finite, of the same D; M at least 1.
        progress: label of a progress bar; none when empty.

    Returns: distances (N,) float64 and indices (N,) into y, in the order in which y was given; of several at the same
    distance the first.

    Raises:
        ConfigError: there is no y.
    """
    if len(y_MD) == 0:
        raise ConfigError("nothing is nearest among no points.")
    centre, scale = frame(y_MD, x_ND)
    x, y = Points(x_ND, centre, scale), Points(y_MD, centre, scale)
    distance, index = torch.empty(x.n, dtype=torch.float64), torch.empty(x.n, dtype=torch.int64)
    for i_R in blocks(x.n, y.n, progress):
        dtype = first_type(x.dims)
        r, j = _candidates(x, i_R, y, dtype)
        if len(r) > 4 * len(i_R) and dtype != torch.float64:  # too many are left open
            r, j = _candidates(x, i_R, y, torch.float64)
        exact = direct(x, i_R[r], y, j)
        best = torch.full((len(i_R),), torch.inf, dtype=torch.float64).scatter_reduce(0, r, exact, "amin")
        first = torch.where(exact == best[r], j, y.n)
        distance[i_R] = best.sqrt() / scale
        index[i_R] = torch.full((len(i_R),), y.n).scatter_reduce(0, r, first, "amin")
    return distance, index


def _candidates(x: Points, i_R: Tensor, y: Points, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """All pairs (place in i_R, point of y) that could be the nearest of their row."""
    lower = lower_bounds(x, i_R, y, dtype)
    low, j = lower.min(1)
    ceiling = low.double() + gaps(x, i_R, y, j, dtype)
    r, j = (lower <= up(ceiling, dtype)[:, None]).nonzero().unbind(1)
    return r, j


def up(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x in another type, not rounded down."""
    if dtype == torch.float64:
        return x
    y = x.to(dtype)
    return torch.where(y.double() < x, torch.nextafter(y, torch.full_like(y, torch.inf)), y)


def first_type(dims: int) -> torch.dtype:
    """In what to multiply first: float32, unless its bound says too little or somebody has made it mean less."""
    if dims > 2**15 or torch.get_float32_matmul_precision() != "highest":
        return torch.float64
    return torch.float32


def blocks(n: int, m: int, progress: str = "") -> Iterator[Tensor]:
    """Indices (R,) of rows of an (n, m) table of distances, as many at a time as fit."""
    size = max(1, ENTRIES // max(1, m))
    yield from tqdm(torch.split(torch.arange(n), size), desc=progress, disable=not progress, unit="block")


def _slices(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
