"""Sliced Wasserstein distance: how far samples would have to be moved to lie like the data, along random lines.

Along one direction theta transport has a solution that sorting finds; the mean over directions, uniform on the sphere,
is a distance between distributions in any dimension (Rabin et al. 2011; Bonneel et al. 2015, section 3.1):

    SW_p^p = E_theta W_p^p(theta . samples, theta . data),    W_p^p(a, b) = int_0^1 |F_a^-1(u) - F_b^-1(u)|^p du

Lower is better, and 0 is reached by equal sets only. The quantile functions F^-1 of n samples and of m examples are
steps, and the integral is summed over the pieces that both cut the unit interval into: exact for n unequal to m, with
no interpolation. Since each coordinate of theta has the mean square 1/d, Gaussians of equal covariance whose means
differ by delta have SW_2^2 = |delta|^2 / d: the value shrinks with the number of dimensions, and is compared for equal
features.

Samples of the data's own distribution do not reach 0: the less of them, the further away. What n does to the value is
not in its error, and values are compared at equal n and m.
"""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from common.errors import ConfigError
from common.evaluation.bank import Bank, check_pair
from common.records import Score

ENTRIES = 4_000_000
"""Projections worked out at a time."""


def directions(count: int, dims: int, generator: torch.Generator) -> Tensor:
    """(count, dims) float64: directions, uniform on the sphere."""
    drawn = torch.randn(count, dims, dtype=torch.float64, generator=generator, device=generator.device).cpu()
    unit: Tensor = drawn / drawn.norm(dim=1, keepdim=True)
    return unit


def _pieces(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """How steps of 1/n and of 1/m cut the unit interval together: lengths (K,), and in which step of either each lies.

    In integers, so that cuts at the same place are one: the interval is n m long, and steps are m and n.
    """
    cuts = torch.unique(torch.cat([torch.arange(n + 1) * m, torch.arange(m + 1) * n]))
    return (cuts[1:] - cuts[:-1]).double() / (n * m), cuts[:-1] // m, cuts[:-1] // n


def wasserstein(a: Tensor, b: Tensor, p: int = 2) -> Tensor:
    """W_p^p between columns: the optimal transport along a line, exactly.

    Args:
        a: (n, L) float64, L sets of n numbers.
        b: (m, L).
        p: 1 or 2.

    Returns: (L,).
    """
    return _transport(a.sort(dim=0).values, b.sort(dim=0).values, p)


def _transport(a: Tensor, b: Tensor, p: int) -> Tensor:
    """`wasserstein` of columns that are sorted."""
    if len(a) == len(b):
        return _cost(a - b, p).mean(0)
    lengths, in_a, in_b = _pieces(len(a), len(b))
    return torch.einsum("k,kl->l", lengths, _cost(a[in_a] - b[in_b], p))


def _cost(x: Tensor, p: int) -> Tensor:
    return x.abs() if p == 1 else x.square()


def _potential(a: Tensor, b: Tensor, p: int) -> Tensor:
    """(n, L) what W_p^p rises by, a sample's weight given more: the dual potential at each sample, its mean 0.

    Args:
        a: (n, L) sorted.
        b: (m, L) sorted.

    Between the samples of rank i and i + 1 mass goes to the data's quantile q at i / n, so that the potentials of the
    two differ by |a_(i+1) - q|^p - |a_i - q|^p. Where i / n is a step of the data's quantiles, every q on the step
    serves; the mean of the two costs at its ends is taken.
    """
    n, m = len(a), len(b)
    rank = torch.arange(1, n) * m
    step = torch.zeros_like(a[1:])
    for place in (rank // n, (rank - 1) // n):
        q = b[place]
        step += (_cost(a[1:] - q, p) - _cost(a[:-1] - q, p)) / 2
    potential = torch.cat([torch.zeros_like(a[:1]), step.cumsum(0)])
    return potential - potential.mean(0)


def sliced_wasserstein(
    samples: Tensor, reference: Tensor, *, generator: torch.Generator, p: int = 2, slices: int = 500, progress: str = ""
) -> tuple[float, float]:
    """SW_p between two sets, and its standard error.

    Two things could have been others. The directions: the variance of W_p^p over directions, over their number.
    The samples: by the delta method the variance of the samples' dual potentials, averaged over directions, over n
    (del Barrio & Loubes 2019; Manole et al. 2022 for slices). Both are of SW_p^p; that of SW_p is smaller by
    p SW_p^(p-1). The reference stays as it is. The error is right where samples are away from the data; where they are
    of its own distribution the delta method is at its end, and the error stated is too large: for p = 1 and 2 alike by
    a fifth (n about m) to a half (n much less than m).

    Args:
        samples: (n, d) float64.
        reference: (m, d).
        generator: for the directions.
        p: 1 or 2.
        slices: how many directions, at least 2.
        progress: label of a progress bar; none when empty.

    Returns: the distance, in the features' units, and its error.

    Raises:
        ConfigError: another p, or fewer than two directions.
    """
    if p not in (1, 2):
        raise ConfigError(f"p = {p}: the sliced Wasserstein distance is computed for p = 1 and p = 2.")
    if slices < 2:
        raise ConfigError(f"slices = {slices}: an error bar takes at least 2.")
    thetas = directions(slices, samples.shape[1], generator)
    size = max(1, ENTRIES // (len(samples) + len(reference)))
    found, potential = [], torch.zeros(len(samples), dtype=torch.float64)
    for theta in tqdm(torch.split(thetas, size), desc=progress, disable=not progress, unit="block"):
        a, order = (samples @ theta.T).sort(dim=0)
        b = (reference @ theta.T).sort(dim=0).values
        found.append(_transport(a, b, p))
        potential += torch.zeros_like(a).scatter_(0, order, _potential(a, b, p)).sum(1)
    each = torch.cat(found)
    power = float(each.mean())
    variance = float(each.var()) / slices + float((potential / slices).var()) / len(samples)
    distance = power ** (1 / p)
    return distance, variance**0.5 / (p * distance ** (p - 1)) if distance > 0 else 0.0


def sliced_wasserstein_score(
    samples: Bank,
    reference: Bank,
    *,
    generator: torch.Generator,
    p: int = 2,
    slices: int = 500,
    protocol: str = "",
    weights: str = "raw",
    progress: str = "",
) -> Score:
    """The sliced Wasserstein distance as a `Score`, `sliced_wasserstein[<network>]`.

    Args:
        generator: for the directions. With one of the same seed, all models are looked at from the same directions.
        p, slices, progress: as in `sliced_wasserstein`, which also says what the error is.
        protocol: what else decides the value; n, m, split, network, p and slices are stated already.
        weights: "raw" or "ema": which of the model's weights made the samples.

    Raises:
        DataError: banks that do not compare, or with fewer than 2 examples.
        ConfigError: a p or number of directions that cannot be.
    """
    check_pair(samples, reference, "sliced_wasserstein", 2)
    value, stderr = sliced_wasserstein(
        samples.x, reference.x, generator=generator, p=p, slices=slices, progress=progress
    )
    how = (
        f"{samples.n:,} samples against {reference.n:,} of {reference.source}, features of "
        f"{samples.network or 'no network'}; SW_{p} over {slices} directions, error by the delta method"
    )
    return Score(
        name=f"sliced_wasserstein[{samples.network}]",
        value=value,
        stderr=stderr,
        n=samples.n,
        unit="distance",
        kind="estimate",
        split=reference.split,
        weights=weights,  # type: ignore[arg-type]
        protocol=f"{how}; {protocol}" if protocol else how,
    )
