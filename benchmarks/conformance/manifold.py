"""Balls from points to their neighbours: precision, recall, density and coverage."""

import math
from functools import cache

import torch
from torch import Tensor

from benchmarks.conformance.table import Values, closed_form, implementation, load, slow
from common.evaluation.bank import Bank
from common.evaluation.manifold import Manifold, expected_coverage, manifold, manifold_scores

F64 = torch.float64
NAMES = ("precision", "recall", "density", "coverage")


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=F64)


@cache
def apart() -> tuple[Tensor, Tensor]:
    """Samples and data that overlap in part."""
    return 0.9 * normal(500, 16, 50) + 0.15, normal(600, 16, 51)


APART = "500 normal samples, moved and shrunk, and 600 normal points, d = 16 (seeds 50, 51)"


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Real images far from the origin: whole numbers, so that many distances are equal."""
    from sklearn.datasets import load_digits

    x = torch.from_numpy(load_digits().data)
    return x[::2] + 4096, x[1::2] + 4096


DIGITS = "scikit-learn's digits, even as samples, odd as data, every pixel 4,096 more, d = 64"


@cache
def ours(data: str, k_pr: int, k_dc: int) -> dict[str, float]:
    samples, reference = {"apart": apart, "digits": digits}[data]()
    banks = Bank("", "samples", "test").add(samples), Bank("", "data", "test").add(reference)
    scores = manifold_scores(*banks, generator=torch.Generator(), k_pr=k_pr, k_dc=k_dc, halvings=2)
    return {score.name.partition("[")[0]: score.value for score in scores}


@cache
def slowly(data: str, k: int) -> dict[str, float]:
    """All four by their definition: every distance from its differences, every comparison made."""
    y, x = {"apart": apart, "digits": digits}[data]()
    xx, yy, xy = (torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist") for a, b in ((x, x), (y, y), (x, y)))
    r_x, r_y = (within.sort(1).values[:, k] for within in (xx, yy))  # the first is the point itself
    held = xy <= r_x[:, None]
    return {
        "precision": float(held.any(0).double().mean()),
        "recall": float((xy <= r_y).any(1).double().mean()),
        "density": float(held.double().sum(0).mean() / k),
        "coverage": float(held.any(1).double().mean()),
    }


for _name in NAMES:
    _k = 3 if _name in ("precision", "recall") else 5
    for _data, _words in (("apart", APART), ("digits", DIGITS)):

        @slow(
            _name, f"{_words}, k = {_k}", "all distances from their differences, every ball and point", relative=1e-12
        )
        def _(name: str = _name, data: str = _data, k: int = _k) -> Values:
            return ours(data, 3, 5)[name], slowly(data, k)[name]

    @implementation("prdc", _name, f"{APART}, k = {_k}", "compute_prdc", relative=1e-12)
    def _(name: str = _name, k: int = _k) -> Values:
        samples, reference = apart()
        found = load("prdc").compute_prdc(reference.numpy(), samples.numpy(), k)
        return ours("apart", 3, 5)[name], float(found[name])


for _name in NAMES[:2]:

    @implementation("torch-fidelity", _name, f"{APART}, k = 3", "metric_prc.prc_features_to_metric", relative=1e-6)
    def _(name: str = _name) -> Values:
        samples, reference = apart()
        found = load("torch_fidelity.metric_prc").prc_features_to_metric(
            samples, reference, prc_neighborhood=3, prc_batch_size=500, save_cpu_ram=False, verbose=False
        )
        return ours("apart", 3, 5)[name], float(found[name])


# -- Samples of the data's own distribution ---------------------------------------------------------------------------

N, M, TRIALS = 80, 60, 100
SAME = f"{M} samples and {N} points of one distribution in 4 dimensions, k = 5, mean of {TRIALS} trials (seed 52)"


@cache
def trials() -> list[Manifold]:
    draw = torch.Generator().manual_seed(52)
    return [
        manifold(torch.randn(M, 4, generator=draw, dtype=F64), torch.randn(N, 4, generator=draw, dtype=F64))
        for _ in range(TRIALS)
    ]


def mean(values: list[float]) -> tuple[float, float]:
    found = torch.tensor(values, dtype=F64)
    return float(found.mean()), float(found.std() / math.sqrt(len(found)))


@closed_form("density", SAME, "1 (Naeem et al. 2020, section 3.3)", errors=4)
def _() -> Values:
    value, stderr = mean([found.density for found in trials()])
    return value, 1.0, stderr


@closed_form("coverage", SAME, "1 − Π_{i<k} (N − 1 − i) / (N + M − 1 − i)", errors=4)
def _() -> Values:
    value, stderr = mean([found.coverage for found in trials()])
    return value, 1 - math.prod((N - 1 - i) / (N + M - 1 - i) for i in range(5)), stderr


@closed_form(
    "coverage",
    "expected_coverage of 10,000 points, 10,000 samples, k = 5",
    "1 − C(2N − 1 − k, N) / C(2N − 1, N)",
    relative=1e-9,
)
def _() -> Values:
    n, k = 10_000, 5
    return expected_coverage(n, n, k), 1 - math.comb(2 * n - 1 - k, n) / math.comb(2 * n - 1, n)
