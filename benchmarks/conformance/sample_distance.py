"""Distances between sets of samples, on features that every implementation is given alike."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from benchmarks.conformance.table import Values, closed_form, implementation, load
from common.evaluation.frechet import Moments, frechet_distance

F64 = torch.float64


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=F64)


@cache
def correlated(n: int = 4000, d: int = 256) -> tuple[Tensor, Tensor]:
    """Features like a network's: correlated, of very different sizes, one set moved and stretched."""
    mix = normal(d, d, 0) / d**0.5
    sizes = torch.logspace(-2, 1, d, dtype=F64)
    return normal(n, d, 1) @ mix * sizes, normal(n, d, 2) @ mix * sizes * 1.2 + 0.1


CORRELATED = "correlated normals, sizes 0.01 to 10, n = m = 4,000, d = 256 (seeds 0, 1, 2)"


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Real images, with pixels that are always black: covariances that are singular."""
    from sklearn.datasets import load_digits

    x = torch.from_numpy(load_digits().data)
    return x[::2], x[1::2]


DIGITS = "scikit-learn's digits, even against odd, raw pixels, n = 899, m = 898, d = 64, three always black"


def exact(mean: Tensor, root: Tensor, n: int = 2000) -> Tensor:
    """n points whose mean and covariance are `mean` and root rootᵀ to the last digits."""
    x = normal(n, len(mean), 1)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1))).T
    return x @ root.T + mean


# -- Fréchet distance -------------------------------------------------------------------------------------------------


def fd(a: Tensor, b: Tensor) -> float:
    return frechet_distance(Moments().add(a), Moments().add(b))


@closed_form(
    "fd",
    "commuting covariances, deviations 0.01 to 100 against the same in other order, n = 2,000, d = 32",
    "|μₐ − μ_b|² + Σ (σₐ − σ_b)²",
    relative=1e-9,
)
def _() -> Values:
    d = 32
    sizes, mean = torch.logspace(-2, 2, d, dtype=F64), torch.linspace(-1, 1, d, dtype=F64)
    turn = torch.linalg.qr(normal(d, d, 4))[0]
    a, b = exact(mean, turn @ sizes.diag()), exact(torch.zeros(d, dtype=F64), turn @ sizes.flip(0).diag())
    return fd(a, b), float(mean.square().sum() + (sizes - sizes.flip(0)).square().sum())


@closed_form(
    "fd",
    "commuting covariances, the second singular: half of its deviations are 0, n = 2,000, d = 32",
    "|μₐ − μ_b|² + Σ (σₐ − σ_b)²",
    relative=1e-9,
)
def _() -> Values:
    d = 32
    a, b = torch.linspace(0.5, 2, d, dtype=F64), torch.linspace(1, 3, d, dtype=F64)
    b[::2] = 0
    mean = torch.ones(d, dtype=F64)
    return fd(exact(mean, a.diag()), exact(0 * mean, b.diag())), float(d + (a - b).square().sum())


def statistics(x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return x.numpy().mean(0), np.cov(x.numpy(), rowvar=False)


def by_scipy(a: Tensor, b: Tensor) -> float:
    from scipy.linalg import sqrtm

    (m_a, c_a), (m_b, c_b) = statistics(a), statistics(b)
    return float(((m_a - m_b) ** 2).sum() + np.trace(c_a + c_b - 2 * np.real(sqrtm(c_a @ c_b))))


def by_torch_fidelity(a: Tensor, b: Tensor) -> float:
    metric = load("torch_fidelity.metric_fid")
    found = metric.fid_statistics_to_metric(
        metric.fid_features_to_statistics(a), metric.fid_features_to_statistics(b), False
    )
    return float(found["frechet_inception_distance"])


def by_clean_fid(a: Tensor, b: Tensor) -> float:
    return float(load("cleanfid.fid").frechet_distance(*statistics(a), *statistics(b)))


def by_torchmetrics(a: Tensor, b: Tensor) -> float:
    metric = load("torchmetrics.image.fid").FrechetInceptionDistance(feature=Identity(a.shape[1]))
    metric.set_dtype(F64)
    metric.update(a, real=True)
    metric.update(b, real=False)
    return float(metric.compute())


class Identity(torch.nn.Module):
    """Takes features for images, and gives them back."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.num_features = d

    def forward(self, x: Tensor) -> Tensor:
        return x


PEERS = {
    "scipy": ("scipy.linalg.sqrtm of the covariances' product", by_scipy),
    "torch-fidelity": ("metric_fid.fid_statistics_to_metric", by_torch_fidelity),
    "clean-fid": ("cleanfid.fid.frechet_distance", by_clean_fid),
    "torchmetrics": ("FrechetInceptionDistance, in float64", by_torchmetrics),
}
for _package, (_function, _by) in PEERS.items():

    @implementation(_package, "fd", CORRELATED, _function, relative=1e-6)
    def _(by=_by) -> Values:
        return fd(*correlated()), by(*correlated())

    @implementation(_package, "fd", DIGITS, _function, relative=1e-6)
    def _(by=_by) -> Values:
        return fd(*digits()), by(*digits())
