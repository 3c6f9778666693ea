"""Copies of training examples, by distances to the nearest of them."""

import torch
from torch import Tensor

from benchmarks.conformance.table import Values, closed_form, implementation, slow
from common.evaluation.memorisation import copies, copying
from common.evaluation.neighbours import nearest

F64 = torch.float64


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=F64)


def distances(copied: int, d: int = 5) -> tuple[Tensor, Tensor]:
    """Of 300 samples, some of which are training examples, and of 250 held-out examples, to the nearest of 400."""
    train, heldout, samples = normal(400, d, 90), normal(250, d, 91), normal(300, d, 92)
    samples[:copied] = train[:copied]
    return nearest(samples, train)[0], nearest(heldout, train)[0]


DISTANCES = "300 samples, {} copied of 400 training examples, against 250 held out, d = 5 (seeds 90 to 92)"

for _copied in (0, 30):

    @implementation(
        "scipy",
        "copying",
        DISTANCES.format(f"{_copied} of them"),
        'scipy.stats.mannwhitneyu(method="asymptotic", use_continuity=False), as z',
        relative=1e-6,
    )
    def _(copied: int = _copied) -> Values:
        from scipy.stats import mannwhitneyu, norm

        a, b = distances(copied)
        p = mannwhitneyu(a, b, alternative="less", method="asymptotic", use_continuity=False).pvalue
        return copying(a, b), float(norm.ppf(p))


@slow(
    "copying",
    DISTANCES.format("30 of them") + ", distances rounded to one place, so that many are equal",
    "pair by pair, ties by half, the variance summed over ties",
    relative=1e-9,
)
def _() -> Values:
    a, b = (each.round(decimals=1) for each in distances(30))
    n, m = len(a), len(b)
    u = sum(float(x > y) + 0.5 * float(x == y) for x in a.tolist() for y in b.tolist())
    both = [*a.tolist(), *b.tolist()]
    ties = sum(both.count(value) ** 3 - both.count(value) for value in set(both))
    variance = n * m / 12 * (n + m + 1 - ties / ((n + m) * (n + m - 1)))
    return copying(a, b), (u - n * m / 2) / variance**0.5


@closed_form(
    "copies",
    "50 samples of the data's own distribution against 149 held out, mean of 2,000 trials (seed 93), share 0.02",
    "⌊0.02 · 150⌋ / 150",
    errors=4,
)
def _() -> Values:
    draw = torch.Generator().manual_seed(93)
    found = [
        copies(torch.rand(50, generator=draw, dtype=F64), torch.rand(149, generator=draw, dtype=F64), 0.02)
        for _ in range(2000)
    ]
    shares = torch.stack(found).double().mean(1)
    return float(shares.mean()), 3 / 150, float(shares.std() / len(shares) ** 0.5)
