"""The Fréchet distance without the bias that comes from the number of samples: `fd_infinity[network]`.

From n samples of one and the same model the distance comes out larger the smaller n is, by about a constant over n.
How large that constant is depends on the model, so that even at equal n the order of two models can be wrong. Chong &
Forsyth (2020) therefore measure it at several n, fit a line in 1/n, and read off its value at 1/n = 0:

    FD_n  =  FD_inf + slope / n        n = n_1 < ... < n_K, the largest being all samples

What remains is of the order of d/n times the bias: the line is straight only where n is far above d. The reference is
used whole at each n; the bias by its own number is still in the value, and the same for all who use that reference.

Theirs is a plain line through 15 values of n, evenly spaced from 5,000 to 50,000. Here n is evenly spaced in 1/n,
reaches down to a fifth of the samples or 2 d, several subsets share each n, and the fit is weighted by n: better use of
few samples, and a value that compares with a published FD_inf only as far as both are right.

| here | symbol | meaning |
| --- | --- | --- |
| `x` | x (n, d) | features of the samples |
| `mean`, `covariance` | mu, C | of the samples, or of a part of them; `to` has the reference's, m and R R^T |
| `influence` | IF (n,) | what each sample contributes to the distance, to first order |
| `weights` | w (K,) | FD_inf = sum_k w_k FD_{n_k}: the intercept of the fitted line is linear in the distances |
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from common.errors import ConfigError, DataError
from common.evaluation.bank import Bank, check_pair
from common.evaluation.frechet import UNIT, Moments, _root, frechet_distance
from common.records import Score

SPAN = 2, 5
"""The smallest n is SPAN[0] dimensions or an SPAN[1]-th of the samples, whichever is more."""


def distance(a: Moments, b: Moments) -> float:
    """`frechet.frechet_distance`, in less time: a quarter of it in 2,048 dimensions.

    With C_b = L L^T by Cholesky's factorisation, the trace of (C_a C_b)^(1/2) is the sum of the roots of the
    eigenvalues of L^T C_a L. A root spoils small eigenvalues: an error e of the eigenvalue v is one of e / (2 sqrt(v))
    of its root. Where these could add up to 1e-10 of the traces, or a covariance is singular, the slower way is taken.

    Raises:
        DataError: as `frechet_distance`.
    """
    if a.network != b.network or a.dims != b.dims or min(a.n, b.n) <= a.dims:
        return frechet_distance(a, b)  # which says what is wrong
    to = _Reference.of(b)
    c_a = a.covariance
    values = torch.linalg.eigvalsh(to.root.T @ c_a @ to.root)
    traces = float(c_a.trace()) + to.trace
    error = torch.finfo(torch.float64).eps * len(values) ** 0.5 * values[-1]
    if len(values) < a.dims or values[0] <= 0 or (error / (2 * values.sqrt())).sum() > 1e-10 * traces:
        return frechet_distance(a, b)
    between = float((a.mean - to.mean).square().sum())
    return max(0.0, between + traces - 2 * float(values.sqrt().sum()))


@dataclass(frozen=True)
class _Reference:
    """The Gaussian that distances are measured to."""

    mean: Tensor  # (d,)
    trace: float
    root: Tensor  # R (d, r) with R R^T = C, r <= d

    @classmethod
    def of(cls, moments: Moments) -> "_Reference":
        covariance = moments.covariance
        root, failed = torch.linalg.cholesky_ex(covariance)
        pivots = root.diagonal().square()
        if int(failed) or pivots.min() < 1e-10 * pivots.max():  # singular, or nearly so
            root = _root(covariance)
            root = root[:, root.square().sum(0) > 0]
        return cls(moments.mean, float(covariance.trace()), root)

    def distance(self, x: Tensor) -> float:
        """From points (n, d), to the precision that an error bar needs."""
        moments = Moments().add(x)
        covariance = moments.covariance
        overlap = torch.linalg.eigvalsh(self.root.T @ covariance @ self.root).clamp(min=0).sqrt().sum()
        return float((moments.mean - self.mean).square().sum() + covariance.trace() - 2 * overlap) + self.trace

    def influence(self, x: Tensor) -> tuple[float, Tensor]:
        """The distance of points (n, d), and IF (n,): by how much it rises with a point's weight, with mean zero.

        The derivative by mu is 2 (mu - m); that by C is 1 - R (R^T C R)^(-1/2) R^T, since the trace of a root of a
        matrix M changes by that of M^(-1/2) dM / 2. A point pulls mu towards itself, and C towards
        (x - mu)(x - mu)^T.
        """
        mean = x.mean(0)
        centred = x - mean
        covariance = centred.T @ centred / (len(x) - 1)
        values, vectors = torch.linalg.eigh(self.root.T @ covariance @ self.root)
        found = float((mean - self.mean).square().sum() + covariance.trace()) + self.trace
        found -= 2 * float(values.clamp(min=0).sqrt().sum())
        kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
        squeezed = centred @ (self.root @ (vectors[:, kept] * values[kept].pow(-0.25)))
        quadratic = centred.square().sum(1) - squeezed.square().sum(1)
        pull = 2 * centred @ (mean - self.mean) + quadratic * (len(x) / (len(x) - 1))  # C is unbiased
        return found, pull - pull.mean()


@dataclass(frozen=True)
class Line:
    """The distance as a line in 1/n."""

    intercept: float
    """FD_inf; below zero where chance has it so."""
    stderr: float
    slope: float
    sizes: tuple[int, ...]
    """n_1 < ... < n_K."""
    distances: tuple[float, ...]
    """At each size, the mean over its subsets."""


def extrapolate(
    x: Tensor,
    reference: Moments,
    *,
    generator: torch.Generator,
    sizes: int = 10,
    subsets: int = 4,
    progress: str = "",
) -> Line:
    """Fit the distances of subsets of x by a line in 1/n.

    The sizes are evenly spaced in 1/n, from the smallest (`SPAN`) to all. The subsets of a size follow one another in a
    random order of the samples, over its end back to its beginning, so that each sample is in equally many, or in one
    more. Weights in the fit are as the variances go, proportional to n.

    The standard error is the infinitesimal jackknife (Efron 1982): the result is a function of the samples' weights,
    and its derivatives are known, sum_k w_k IF_k(x) / n_k over the subsets that a sample is in. That the subsets
    overlap is in it, which a fit's own error bar leaves out. Where model and data hardly differ the first order all but
    vanishes, and the error is too large, by up to the root of 2.

    Args:
        x: (n, d) float64, the samples, in an order that does not depend on chance (`Bank.x`).
        sizes: K, at least 10.
        subsets: of each size.

    Raises:
        ConfigError: fewer sizes than 10, or no subset.
        DataError: too few samples for sizes that are far enough above d, and apart; or a reference of another d.
    """
    if sizes < 10 or subsets < 1:
        raise ConfigError(
            f"sizes = {sizes}, subsets = {subsets}: a line is fitted to 10 sizes or more, of 1 subset or more."
        )
    n, d = x.shape
    smallest = max(SPAN[0] * d, -(-n // SPAN[1]))
    if n < 2 * smallest or n < 10 * sizes:
        raise DataError(
            f"{n:,} samples are too few to extrapolate a Fréchet distance in {d:,} dimensions: it takes "
            f"{max(2 * SPAN[0] * d, 10 * sizes):,}, for {sizes} sizes, from {SPAN[0]} d to at least twice that."
        )
    if reference.dims != d or reference.n <= d:
        frechet_distance(Moments(reference.network).add(x), reference)  # says what is wrong
    to = _Reference.of(reference)
    inverse = torch.linspace(1 / smallest, 1 / n, sizes, dtype=torch.float64)
    counts = [round(1 / float(value)) for value in inverse]
    weights, slopes = _fit(torch.tensor(counts, dtype=torch.float64))
    order = torch.randperm(n, generator=generator, device=generator.device).cpu()
    derivative = torch.zeros(n, dtype=torch.float64)
    distances = []
    with tqdm(total=sizes * subsets, desc=progress, disable=not progress, unit="subset") as bar:
        for count, weight in zip(counts, weights.tolist(), strict=True):
            parts = 1 if count == n else subsets
            total = 0.0
            for part in range(parts):
                chosen = order[(part * count + torch.arange(count)) % n]
                value, pull = to.influence(x[chosen])
                total += value / parts
                derivative[chosen] += weight * pull / (count * parts)
                bar.update(subsets // parts)
            distances.append(total)
    found = torch.tensor(distances, dtype=torch.float64)
    return Line(
        intercept=float(weights @ found),
        stderr=float(derivative.square().sum().sqrt()) * (n / (n - 1)) ** 0.5,
        slope=float(slopes @ found),
        sizes=tuple(counts),
        distances=tuple(distances),
    )


def _fit(n: Tensor) -> tuple[Tensor, Tensor]:
    """Of a weighted least squares line in 1/n: what intercept and slope take of the value at each n (K,)."""
    design = torch.stack([torch.ones_like(n), 1 / n], 1)
    solved = torch.linalg.solve(design.T @ (n[:, None] * design), design.T * n)
    return solved[0], solved[1]


def fd_score(
    samples: Bank,
    reference: Bank,
    *,
    generator: torch.Generator,
    protocol: str = "",
    weights: str = "raw",
    resamples: int = 50,
    progress: str = "",
) -> Score:
    """`fd[<network>]`, as `frechet.frechet_score` has it, of features that are there already.

    The error is the standard deviation over bootstrap resamples of the samples, the reference as it is. The bias by the
    number of samples is not in it.

    Args:
        generator: for the resamples alone.
        protocol: what else decides the value.
        weights: "raw" or "ema": which of the model's weights made the samples.
        resamples: how many, at least 2.
        progress: label of a progress bar; none when empty.

    Raises:
        DataError: banks that do not compare, or no more examples than dimensions.
        ConfigError: fewer than two resamples.
    """
    if resamples < 2:
        raise ConfigError(f"resamples = {resamples}: an error bar takes at least 2.")
    check_pair(samples, reference, "fd", at_least=samples.dims + 1)
    x, data = samples.x, Moments(reference.network).add(reference.x)
    value = distance(Moments(samples.network).add(x), data)
    to = _Reference.of(data)
    drawn = []
    for _ in tqdm(range(resamples), desc=progress, disable=not progress, unit="resample"):
        drawn.append(
            to.distance(x[torch.randint(len(x), (len(x),), generator=generator, device=generator.device).cpu()])
        )
    return _score(
        "fd",
        samples,
        reference,
        value,
        float(torch.tensor(drawn, dtype=torch.float64).std()),
        weights,
        [
            f"error by {resamples} bootstrap resamples of the samples",
            protocol,
        ],
    )


def fd_infinity_score(
    samples: Bank,
    reference: Bank,
    *,
    generator: torch.Generator,
    protocol: str = "",
    weights: str = "raw",
    sizes: int = 10,
    subsets: int = 4,
    progress: str = "",
) -> Score:
    """`fd_infinity[<network>]`: the distance extrapolated to infinitely many samples, with its error (`extrapolate`).

    Args:
        generator: for the subsets alone.
        protocol: what else decides the value.
        weights: "raw" or "ema": which of the model's weights made the samples.
        sizes: of subsets, at least 10.
        subsets: of each size.
        progress: label of a progress bar; none when empty.

    Raises:
        DataError: banks that do not compare, or too few samples for their dimensions (`extrapolate`).
        ConfigError: fewer than 10 sizes.
    """
    check_pair(samples, reference, "fd_infinity", at_least=samples.dims + 1)
    line = extrapolate(
        samples.x,
        Moments(reference.network).add(reference.x),
        generator=generator,
        sizes=sizes,
        subsets=subsets,
        progress=progress,
    )
    how = f"line in 1/n through {sizes} sizes from {line.sizes[0]:,} to {line.sizes[-1]:,}, {subsets} subsets of each"
    return _score(
        "fd_infinity",
        samples,
        reference,
        line.intercept,
        line.stderr,
        weights,
        [
            f"{how}; error by infinitesimal jackknife",
            protocol,
        ],
    )


def fd_scores(
    samples: Bank,
    reference: Bank,
    *,
    generator: torch.Generator,
    protocol: str = "",
    weights: str = "raw",
    progress: str = "",
) -> list[Score]:
    """`fd` and `fd_infinity`, in that order, with the settings that these have by themselves."""
    return [
        score(samples, reference, generator=generator, protocol=protocol, weights=weights, progress=progress)
        for score in (fd_score, fd_infinity_score)
    ]


def _score(
    metric: str, samples: Bank, reference: Bank, value: float, stderr: float, weights: str, how: list[str]
) -> Score:
    network = samples.network or "no network"
    versus = f"{samples.n:,} samples against {reference.n:,} of {reference.source}, features of {network}"
    return Score(
        name=f"{metric}[{samples.network}]",
        value=value,
        stderr=stderr,
        n=samples.n,
        unit=UNIT,
        kind="estimate",
        split=reference.split,
        weights=weights,  # type: ignore[arg-type]
        protocol="; ".join(part for part in (versus, *how) if part),
    )
