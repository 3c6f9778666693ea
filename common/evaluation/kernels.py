"""Kernel distances of two sets of features: `kid[network]` (Binkowski et al. 2018) and `mmd[network]`.

The squared maximum mean discrepancy of two distributions (Gretton et al. 2012, eq. 1 and lemma 6) is

    MMD^2  =  E k(x, x') - 2 E k(x, y) + E k(y, y')

for independent x, x' of the one and y, y' of the other. Its estimate by all pairs of different examples is unbiased,
from however few, and so negative about as often as positive where there is no difference: a negative value is an
answer, not an error. With the polynomial kernel (x.y / d + 1)^3 it is the *kernel inception distance* of section 4.

Errors are those over samples, the reference being as it is. Given the reference, the estimate is a U-statistic:

    U = mean over i != j of h_ij,    h_ij = k(x_i, x_j) - f(x_i) - f(x_j) + mean k(y, y'),    f(x) = mean_y k(x, y)

    Var U  =  (4 (n - 2) zeta_1 + 2 zeta_2) / (n (n - 1)),    zeta_1 = Cov(h_12, h_13),    zeta_2 = Var h_12

(Hoeffding 1948), and both zetas have unbiased estimates from sums over h, its squares and the squares of its row sums.
All pairs are looked at in blocks, so that memory does not grow with their number, in float64.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from common.errors import ConfigError, DataError
from common.evaluation.bank import Bank, check_pair
from common.records import Score

Kernel = Callable[[Tensor, Tensor], Tensor]
"""(n, d), (m, d) -> k of all pairs (n, m), in memory of its own."""

BLOCK = 1024  # rows and columns at a time
STRIP = 250  # rows at a time, of a subset
LEAST = 4  # examples: the variance takes two pairs without a common one


def polynomial(x: Tensor, y: Tensor) -> Tensor:
    """(x.y / d + 1)^3, of Binkowski et al. 2018, section 4."""
    k = (x @ y.T).div_(x.shape[1]).add_(1)
    return k.mul_(k.square())


def gaussian(widths: tuple[float, ...]) -> Kernel:
    """The mean of exp(-|x - y|^2 / (2 sigma^2)) over the widths sigma."""

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        centre = y.mean(0)  # far from zero, differences of squares would lose the distances' digits
        x, y = x - centre, y - centre
        squares = (x @ y.T).mul_(-2).add_(x.square().sum(1)[:, None]).add_(y.square().sum(1)).clamp_(min=0)
        parts = [torch.exp(squares / (-2 * sigma**2)) for sigma in widths]
        return torch.stack(parts).mean(0) if len(parts) > 1 else parts[0]

    return kernel


@dataclass(frozen=True)
class Estimate:
    """MMD^2 and its standard error over samples."""

    value: float
    stderr: float


def mmd_squared(x: Tensor, y: Tensor, kernel: Kernel, progress: str = "") -> Estimate:
    """The unbiased estimate from all pairs of samples x (n, d) and reference y (m, d), float64.

    Raises:
        DataError: fewer than four samples, or two of the reference.
    """
    n, m = len(x), len(y)
    if n < LEAST or m < 2:
        raise DataError(f"{n} samples and {m} of the reference: a kernel distance takes at least {LEAST} and 2.")
    blocks = sum(1 for _ in _upper(n)) + sum(1 for _ in _upper(m)) + -(-n // BLOCK) * -(-m // BLOCK)
    with tqdm(total=blocks, desc=progress, disable=not progress, unit="block") as bar:
        f = torch.zeros(n, dtype=torch.float64)
        for rows in _cut(n):
            for columns in _cut(m):
                f[rows] += kernel(x[rows], y[columns]).sum(1) / m
                bar.update()
        within = 0.0  # mean k(y, y')
        for rows, columns, times in _upper(m):
            k = kernel(y[rows], y[columns])
            within += times * float(_off_diagonal(k, rows, columns).sum()) / (m * (m - 1))
            bar.update()
        row_sums = torch.zeros(n, dtype=torch.float64)
        squares = 0.0
        for rows, columns, times in _upper(n):
            h = kernel(x[rows], x[columns]).sub_(f[rows, None]).sub_(f[columns]).add_(within)
            _off_diagonal(h, rows, columns)
            row_sums[rows] += h.sum(1)
            if times == 2:
                row_sums[columns] += h.sum(0)
            squares += times * float(h.square_().sum())
            bar.update()
    return _u_statistic(row_sums, squares)


def _u_statistic(row_sums: Tensor, squares: float) -> Estimate:
    """Mean and error of a symmetric h (n, n) with nothing on its diagonal.

    Over (i, j) and (k, l), all four different, h_ij h_kl has the mean (E h)^2. Its sum over these is that over all,
    less four times that over pairs with a common first example, plus what was then taken off too often.
    """
    n = len(row_sums)
    total, rows = float(row_sums.sum()), float(row_sums.square().sum())
    value = total / (n * (n - 1))
    mean_squared = (total**2 - 4 * rows + 2 * squares) / (n * (n - 1) * (n - 2) * (n - 3))
    zeta_1 = (rows - squares) / (n * (n - 1) * (n - 2)) - mean_squared
    zeta_2 = squares / (n * (n - 1)) - mean_squared
    variance = (4 * (n - 2) * max(zeta_1, 0.0) + 2 * max(zeta_2, 0.0)) / (n * (n - 1))
    return Estimate(value, variance**0.5)


def _cut(n: int) -> Iterator[slice]:
    for start in range(0, n, BLOCK):
        yield slice(start, min(n, start + BLOCK))


def _upper(n: int) -> Iterator[tuple[slice, slice, int]]:
    """Blocks of a symmetric (n, n) on and above the diagonal, and how often each counts."""
    for rows in _cut(n):
        for columns in _cut(n):
            if columns.start >= rows.start:
                yield rows, columns, 1 if columns.start == rows.start else 2


def _off_diagonal(block: Tensor, rows: slice, columns: slice) -> Tensor:
    """The block, in which pairs of an example with itself are now 0."""
    return block.fill_diagonal_(0) if rows.start == columns.start else block


def kid(x: Tensor, y: Tensor) -> float:
    """The unbiased kernel distance of samples (n, d) and reference (m, d) from all pairs, float64."""
    return mmd_squared(x, y, polynomial).value


def kid_of_subsets(
    x: Tensor, y: Tensor, *, generator: torch.Generator, subsets: int = 100, size: int = 1000, progress: str = ""
) -> Tensor:
    """The kernel distances of random subsets, as they are published: (subsets,).

    A subset is drawn without replacement, of x first and then of y. The mean estimates what `kid` estimates, less
    precisely.

    Raises:
        ConfigError: fewer than two subsets.
        DataError: fewer examples than a subset takes.
    """
    if subsets < 2:
        raise ConfigError(f"subsets = {subsets}: their spread takes at least 2.")
    if size > min(len(x), len(y)):
        raise DataError(
            f"subsets of {size:,} of {len(x):,} samples and {len(y):,} of the reference: make more, or smaller subsets."
        )
    centred = _Centred.of(x, y)
    found = []
    for _ in tqdm(range(subsets), desc=progress, disable=not progress, unit="subset"):
        i, j = (torch.randperm(len(z), generator=generator, device=generator.device).cpu()[:size] for z in (x, y))
        found.append(centred.kid(i, j) if centred else kid(x[i], y[j]))
    return torch.tensor(found, dtype=torch.float64)


@dataclass(frozen=True)
class _Centred:
    """The polynomial kernel with products in float32, for subsets: half the time, and as good.

    With c between the two sets, x = c + u and y = c + v, the kernel is (a + e)^3 where a = 1 + c.c / d is large and
    e = (u.c + v.c + u.v) / d is small. Of a^3 + 3 a^2 e + 3 a e^2 + e^3 the first cancels between the three means, so
    that the rounding of e is all there is: 1e-7 of e, at random, which leaves the distance right to a millionth, and to
    less than that of its error. The kernel itself in float32 would lose the distance in the rounding of a^3.
    """

    a: float
    u: Tensor  # float32 (n, d): u / sqrt(d)
    p: Tensor  # float64 (n,): u.c / d
    v: Tensor  # float32 (m, d): v / sqrt(d)
    q: Tensor  # float64 (m,): v.c / d

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> "_Centred | None":
        """None where float32 will not do: sets that are far from zero for their width, or of large numbers."""
        d = x.shape[1]
        c = (x.mean(0) + y.mean(0)) / 2
        sides, widths = [], []
        for z in (x, y):
            side, along = torch.empty(len(z), d), torch.empty(len(z), dtype=torch.float64)
            for rows in _cut(len(z)):
                u = z[rows] - c
                along[rows] = u @ c / d
                side[rows] = u.div_(d**0.5)
                widths.append(u.square_().sum(1))
            sides += [side, along]
        width, p = torch.cat(widths), torch.cat([sides[1], sides[3]])
        if p.abs().max() > 10 * width.mean() or width.max() > 1e6:
            return None
        return cls(1 + float(c @ c) / d, *sides)

    def kid(self, i: Tensor, j: Tensor) -> float:
        """The unbiased distance of the examples with these indices, (n,) and (m,)."""
        one, other = (self.u[i], self.p[i]), (self.v[j], self.q[j])
        n, m = len(i), len(j)
        powers = self._powers(one) / (n * (n - 1)) + self._powers(other) / (m * (m - 1))
        powers -= 2 * self._powers(one, other) / (n * m)
        return float(powers @ torch.tensor([3 * self.a**2, 3 * self.a, 1.0], dtype=torch.float64))

    @staticmethod
    def _powers(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """The sums of e, e^2 and e^3 over all pairs of the one side and the other, or over different ones of one: (3,).

        That of e, which weighs most, has a closed form in float64.
        """
        (u, p), (v, q) = one, other or one
        linear = u.sum(0, dtype=torch.float64) @ v.sum(0, dtype=torch.float64) + len(v) * p.sum() + len(u) * q.sum()
        if other is None:
            linear -= torch.linalg.vecdot(u, u).sum(dtype=torch.float64) + 2 * p.sum()
        rows_p, columns_q = p.float()[:, None], q.float()
        higher = torch.zeros(2, dtype=torch.float64)
        for start in range(0, len(u), STRIP):
            rows = slice(start, start + STRIP)
            # Of one side, e is symmetric: the block on the diagonal, and twice what is to the right of it.
            parts = [(slice(None), 1)] if other else [(rows, 1), (slice(rows.stop, None), 2)]
            for columns, times in parts:
                e = torch.addmm(columns_q[columns], u[rows], v[columns].T).add_(rows_p[rows])
                if columns == rows:
                    e.fill_diagonal_(0)
                square = e * e
                higher += times * torch.stack([square.sum(1), square.mul_(e).sum(1)]).double().sum(1)
        return torch.cat([linear[None], higher])


def median_distance(y: Tensor, most: int = 1000) -> float:
    """The median distance of different examples (m, d), of evenly spaced rows where there are more than `most`.

    Raises:
        DataError: it is zero.
    """
    rows = y[torch.arange(min(most, len(y))) * len(y) // min(most, len(y))]
    median = float(torch.nn.functional.pdist(rows).median())
    if median == 0:
        raise DataError("the reference's examples hardly differ: their median distance, the kernel's width, is 0.")
    return median


def kid_score(
    samples: Bank,
    reference: Bank,
    *,
    generator: torch.Generator,
    protocol: str = "",
    weights: str = "raw",
    subsets: int = 0,
    subset_size: int = 1000,
    progress: str = "",
) -> Score:
    """`kid[<network>]`: the kernel distance from all pairs, or as the mean over random subsets as it was published.

    The error is that of the U-statistic (see above); where subsets are drawn, their variance over their number is
    added, since drawing them is another source of chance. (The spread over subsets that is often printed is neither:
    it is the deviation of one subset's value, and says nothing of how other samples would do.)

    Args:
        generator: for the subsets alone.
        protocol: what else decides the value.
        weights: "raw" or "ema": which of the model's weights made the samples.
        subsets: how many; 0 for all pairs. Published values mostly have 100.
        subset_size: of each; published values mostly have 1,000.
        progress: label of a progress bar; none when empty.

    Raises:
        DataError: banks that do not compare, or with too few examples.
        ConfigError: one subset.
    """
    check_pair(samples, reference, "kid", LEAST)
    x, y = samples.x, reference.x
    found = mmd_squared(x, y, polynomial, progress)
    value, stderr, how = found.value, found.stderr, "all pairs"
    if subsets:
        drawn = kid_of_subsets(x, y, generator=generator, subsets=subsets, size=subset_size, progress=progress)
        value, stderr = float(drawn.mean()), (stderr**2 + float(drawn.var()) / subsets) ** 0.5
        how = f"{subsets} subsets of {subset_size:,}"
    return _score("kid", samples, reference, value, stderr, weights, f"kernel (x.y/d + 1)^3, unbiased, {how}", protocol)


def mmd_score(
    samples: Bank,
    reference: Bank,
    *,
    generator: torch.Generator | None = None,
    protocol: str = "",
    weights: str = "raw",
    scales: tuple[float, ...] = (0.5, 1.0, 2.0),
    progress: str = "",
) -> Score:
    """`mmd[<network>]`: MMD^2 with Gaussian kernels, from all pairs.

    The widths are multiples of the median distance within the reference: the same whatever the samples are.

    Args:
        generator: not used: nothing is drawn.
        protocol: what else decides the value.
        weights: "raw" or "ema": which of the model's weights made the samples.
        scales: the widths over the median distance.
        progress: label of a progress bar; none when empty.

    Raises:
        DataError: banks that do not compare, with too few examples, or a reference that hardly varies.
        ConfigError: no scale, or one that is not above zero.
    """
    if not scales or min(scales) <= 0:
        raise ConfigError(f"scales = {scales}: widths of kernels are above zero, and there is at least one.")
    check_pair(samples, reference, "mmd", LEAST)
    median = median_distance(reference.x)
    found = mmd_squared(samples.x, reference.x, gaussian(tuple(scale * median for scale in scales)), progress)
    how = (
        f"Gaussian kernels of {', '.join(f'{scale:g}' for scale in scales)} times the reference's median distance "
        f"{median:.6g}, unbiased, all pairs"
    )
    return _score("mmd", samples, reference, found.value, found.stderr, weights, how, protocol)


def _score(
    metric: str, samples: Bank, reference: Bank, value: float, stderr: float, weights: str, how: str, protocol: str
) -> Score:
    network = samples.network or "no network"
    versus = f"{samples.n:,} samples against {reference.n:,} of {reference.source}, features of {network}"
    return Score(
        name=f"{metric}[{samples.network}]",
        value=value,
        stderr=stderr,
        n=samples.n,
        unit="MMD²",
        kind="estimate",
        split=reference.split,
        weights=weights,  # type: ignore[arg-type]
        protocol="; ".join(part for part in (versus, how, "error of the U-statistic over samples", protocol) if part),
    )
