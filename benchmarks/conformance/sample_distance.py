"""Distances between sets of samples, on features that every implementation is given alike."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from benchmarks.conformance.table import Values, closed_form, implementation, load, slow
from common.evaluation.bank import Bank
from common.evaluation.class_score import from_log_probs
from common.evaluation.frechet import Moments, frechet_distance
from common.evaluation.frechet_bias import distance, fd_infinity_score
from common.evaluation.kernels import gaussian, kid, mmd_squared
from common.evaluation.sliced import directions, sliced_wasserstein
from common.evaluation.two_sample import c2st

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


@slow("fd", CORRELATED, "`frechet_distance` against `frechet_bias.distance`, which is faster", relative=1e-9)
def _() -> Values:
    a, b = (Moments().add(x) for x in correlated())
    return distance(a, b), frechet_distance(a, b)


@closed_form(
    "fd_infinity",
    "4,000 samples of N(μ, 1.2² I) against a reference whose moments are 0 and I exactly, d = 24 (seed 60)",
    "|μ|² + d (1.2 − 1)²",
    errors=4,
)
def _() -> Values:
    d, spread = 24, 1.2
    mean = torch.full((d,), 0.3, dtype=F64)
    samples = Bank("", "samples", "test").add(spread * normal(4000, d, 60) + mean)
    reference = Bank("", "data", "test").add(exact(torch.zeros(d, dtype=F64), torch.eye(d, dtype=F64)))
    score = fd_infinity_score(samples, reference, generator=torch.Generator().manual_seed(61))
    assert score.stderr is not None
    return score.value, float(mean.square().sum()) + d * (spread - 1) ** 2, score.stderr


# -- Kernels ----------------------------------------------------------------------------------------------------------

ONE_SUBSET = "700 of each of the normals above (d = 256), all pairs"


@cache
def equally_many() -> tuple[Tensor, Tensor]:
    a, b = correlated()
    return a[:700], b[:700]


def trials(estimate: Callable[[Tensor, Tensor], float], d: int, shift: float) -> tuple[float, float]:
    """Mean and its error of an estimate for N(shift e, I) against N(0, I), 200 times 100 samples against 80."""
    found = []
    for seed in range(200):
        x, y = normal(100, d, 1000 + seed), normal(80, d, 2000 + seed)
        x[:, 0] += shift
        found.append(estimate(x, y))
    values = torch.tensor(found, dtype=F64)
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


MOVED = "100 samples of N(1.5 e₁, I) against 80 of N(0, I), d = 6, mean of 200 trials (seeds 1000 and 2000 on)"


@closed_form(
    "kid",
    MOVED,
    "3s/d + 3s²/d² + (s³ + 6s² + 3sd + 6s)/d³, s = 1.5²: the kernel's moments",
    errors=4,
)
def _() -> Values:
    d, s = 6, 1.5**2
    value, stderr = trials(kid, d, 1.5)
    return value, 3 * s / d + 3 * s**2 / d**2 + (s**3 + 6 * s**2 + 3 * s * d + 6 * s) / d**3, stderr


@closed_form("mmd", f"{MOVED}, σ = 2", "2 (σ²/(σ² + 2))^(d/2) (1 − exp(−1.5² / (2 (σ² + 2))))", errors=4)
def _() -> Values:
    d, shift, square = 6, 1.5, 4.0
    value, stderr = trials(lambda x, y: mmd_squared(x, y, gaussian((2.0,))).value, d, shift)
    expected = 2 * (square / (square + 2)) ** (d / 2) * (1 - math.exp(-(shift**2) / (2 * (square + 2))))
    return value, expected, stderr


@implementation("torch-fidelity", "kid", ONE_SUBSET, "metric_kid.kid_features_to_metric, one subset", relative=1e-9)
def _() -> Values:
    a, b = equally_many()
    return kid(a, b), fidelity_kid(a, b)


@implementation(
    "torch-fidelity",
    "mmd",
    f"{ONE_SUBSET}, σ = 20",
    "metric_kid.kid_features_to_metric, kernel rbf, one subset",
    relative=1e-9,
)
def _() -> Values:
    a, b = equally_many()
    ours = mmd_squared(a, b, gaussian((20.0,))).value
    return ours, fidelity_kid(a, b, kid_kernel="rbf", kid_kernel_rbf_sigma=20.0)


def fidelity_kid(a: Tensor, b: Tensor, **settings: object) -> float:
    metric = load("torch_fidelity.metric_kid")
    found = metric.kid_features_to_metric(a, b, kid_subsets=1, kid_subset_size=len(a), verbose=False, **settings)
    return float(found["kernel_inception_distance_mean"])


@implementation("clean-fid", "kid", ONE_SUBSET, "cleanfid.fid.kernel_distance, one subset", relative=1e-9)
def _() -> Values:
    a, b = equally_many()
    theirs = load("cleanfid.fid").kernel_distance(b.numpy(), a.numpy(), num_subsets=1, max_subset_size=len(a))
    return kid(a, b), theirs


@implementation(
    "torchmetrics", "kid", ONE_SUBSET, "KernelInceptionDistance in float64, two subsets of all", relative=1e-9
)
def _() -> Values:
    a, b = equally_many()
    metric = load("torchmetrics.image.kid").KernelInceptionDistance(
        feature=Identity(a.shape[1]), subsets=2, subset_size=len(a)
    )
    metric.set_dtype(F64)
    metric.update(b, real=True)
    metric.update(a, real=False)
    return kid(a, b), float(metric.compute()[0])


@slow("kid", "70 against 50 of the normals above (d = 256)", "pair by pair", relative=1e-9)
def _() -> Values:
    x, y = correlated()[0][:70], correlated()[1][:50]

    def k(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    def within(z: Tensor) -> float:
        pairs = [k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j]
        return sum(pairs) / len(pairs)

    between = [k(a, b) for a in x for b in y]
    return kid(x, y), within(x) + within(y) - 2 * sum(between) / len(between)


# -- Class score ------------------------------------------------------------------------------------------------------

LOGITS = "1,000 samples of 10 classes, logits 3 times normal (seed 65)"


def logits() -> Tensor:
    return 3 * normal(1000, 10, 65)


@closed_form("class_score", "700 samples, each certainly of one of 7 of 10 classes, evenly", "7", relative=1e-12)
def _() -> Values:
    certain = torch.eye(10, dtype=F64)[torch.arange(700) % 7]
    return from_log_probs(certain.log()), 7.0


@implementation("torch-fidelity", "class_score", LOGITS, "metric_isc.isc_features_to_metric, one split", relative=1e-10)
def _() -> Values:
    return from_log_probs(logits().log_softmax(1)), fidelity_isc(1)


@implementation(
    "torch-fidelity",
    "class_score",
    LOGITS,
    "metric_isc.isc_features_to_metric, as it comes",
    relative=1e-6,
    differs="The mean over ten splits of a tenth of the samples each, which is lower: ours is of all samples at once.",
)
def _() -> Values:
    return from_log_probs(logits().log_softmax(1)), fidelity_isc(10)


def fidelity_isc(splits: int) -> float:
    found = load("torch_fidelity.metric_isc").isc_features_to_metric(logits(), splits=splits)
    return float(found["inception_score_mean"])


@implementation("torchmetrics", "class_score", LOGITS, "InceptionScore, one split, float64", relative=1e-6)
def _() -> Values:
    metric = load("torchmetrics.image.inception").InceptionScore(feature=Identity(10), splits=1)
    metric.set_dtype(F64)
    metric.update(logits())
    return from_log_probs(logits().log_softmax(1)), float(metric.compute()[0])


# -- Sliced Wasserstein -----------------------------------------------------------------------------------------------

LINES = 50


def along(p: int, x: Tensor, y: Tensor) -> float:
    """Ours, along lines that are drawn again for the reference."""
    return sliced_wasserstein(x, y, generator=torch.Generator().manual_seed(70), p=p, slices=LINES)[0]


def lines(d: int) -> Tensor:
    return directions(LINES, d, torch.Generator().manual_seed(70))


@closed_form(
    "sliced_wasserstein",
    "300 normal points (seed 71) against the same moved by δ, d = 8, 2,000 directions: SW₂",
    "|δ| / √d",
    errors=4,
)
def _() -> Values:
    x, delta = normal(300, 8, 71), torch.linspace(-1, 2, 8, dtype=F64)
    draw = torch.Generator().manual_seed(72)
    value, stderr = sliced_wasserstein(x + delta, x, generator=draw, p=2, slices=2000)
    return value, float(delta.norm()) / 8**0.5, stderr


for _p in (1, 2):

    @implementation(
        "POT",
        "sliced_wasserstein",
        f"600 and 400 of the normals above (d = 256), the same {LINES} directions (seed 70): SW_{_p}",
        "ot.sliced_wasserstein_distance",
        relative=1e-9,
    )
    def _(p: int = _p) -> Values:
        x, y = correlated()[0][:600], correlated()[1][:400]
        theirs = load("ot").sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=lines(256).T.numpy(), p=p)
        return along(p, x, y), float(theirs)


@implementation(
    "scipy",
    "sliced_wasserstein",
    f"600 and 400 of the normals above (d = 256), the same {LINES} directions (seed 70): SW_1",
    "scipy.stats.wasserstein_distance along each",
    relative=1e-9,
)
def _() -> Values:
    from scipy.stats import wasserstein_distance

    x, y = correlated()[0][:600], correlated()[1][:400]
    return along(1, x, y), float(np.mean([wasserstein_distance(x @ one, y @ one) for one in lines(256)]))


# -- Classifier two-sample test ---------------------------------------------------------------------------------------


@closed_form(
    "c2st",
    "3,000 samples of N(0.8 e₁, I) against 3,000 of N(0, I), d = 4, logistic regression (seed 80): accuracy",
    "Φ(0.8 / 2), of the best classifier that there is",
    errors=4,
    note="Logistic regression has the best classifier's form, and enough to learn it from.",
)
def _() -> Values:
    x, y = normal(3000, 4, 80), normal(3000, 4, 81)
    x[:, 0] += 0.8
    found = c2st(x, y, generator=torch.Generator().manual_seed(82))
    best = 0.5 * (1 + math.erf(0.4 / 2**0.5))
    return found.accuracy, best, (best * (1 - best) / (2 * found.t)) ** 0.5


@implementation(
    "scipy",
    "c2st",
    "400 samples of N(0.4 e₁, I) against 300 of N(0, I), d = 4 (seed 83): p-value",
    'scipy.stats.fisher_exact(alternative="greater") of the held-out counts',
    relative=1e-9,
)
def _() -> Values:
    from scipy.stats import fisher_exact

    x, y = normal(400, 4, 83), normal(300, 4, 84)
    x[:, 0] += 0.4
    found = c2st(x, y, generator=torch.Generator().manual_seed(85))
    counts = [[found.hits, found.t - found.hits], [found.false_alarms, found.t - found.false_alarms]]
    return found.p_value, float(fisher_exact(counts, alternative="greater").pvalue)
