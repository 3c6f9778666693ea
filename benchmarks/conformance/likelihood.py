"""Likelihoods, on models whose log p(x) is known."""

import math
from functools import cache

import torch
from torch import Tensor

from benchmarks.conformance.table import Values, closed_form, implementation, slow
from common.data.preprocess import Compose, Dequantise, Logit, bits_per_dim
from common.distributions import normal_log_prob, standard_normal_log_prob
from common.evaluation.ais import Decoder, Sandwich, ais_log_likelihood, bdmc
from common.evaluation.likelihood import importance_log_likelihood

F64 = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- Bits per dimension -----------------------------------------------------------------------------------------------


@closed_form(
    "bits_per_dim",
    "50 uniform 3×5×7 images of bytes (seed 0), dequantised, logit with α = 0.05, under the uniform density",
    "log₂ 256 = 8",
    relative=1e-6,
    note="In float32, as models have it.",
)
def _() -> Values:
    codes = torch.randint(0, 256, (50, 3, 5, 7), generator=seeded(), dtype=torch.uint8)
    alpha = 0.05
    y, ldj = Compose(Dequantise(256), Logit(alpha)).encode(codes, seeded(1))
    s = y.double().sigmoid()
    log_p = (s.log() + (1 - s).log() - math.log(1 - 2 * alpha)).flatten(1).sum(1)  # of y where x is uniform
    return float(bits_per_dim(log_p + ldj, 3 * 5 * 7).mean()), 8.0


# -- The importance-weighted bound ------------------------------------------------------------------------------------


class LinearGaussian:
    """h ~ N(0, I), x ~ N(W h + b, s^2 I): x is Gaussian, and so is h given x."""

    def __init__(self, d: int = 12, latent: int = 3, s: float = 0.7) -> None:
        draw = seeded(3)
        self.W = torch.randn(d, latent, generator=draw, dtype=F64)
        self.b = torch.randn(d, generator=draw, dtype=F64)
        self.s = s
        self.covariance = self.W @ self.W.T + s**2 * torch.eye(d, dtype=F64)
        self.precision = torch.eye(latent, dtype=F64) + self.W.T @ self.W / s**2  # of h given x

    def draw(self, n: int) -> Tensor:
        noise, draw = torch.randn(n, len(self.b), generator=seeded(4), dtype=F64), seeded(5)
        return torch.randn(n, self.W.shape[1], generator=draw, dtype=F64) @ self.W.T + self.b + self.s * noise

    def posterior_mean(self, x: Tensor) -> Tensor:
        return torch.linalg.solve(self.precision, self.W.T @ (x - self.b).T / self.s**2).T

    def log_joint(self, x: Tensor, h: Tensor) -> Tensor:
        log_var = torch.full_like(self.b, 2 * math.log(self.s))
        return standard_normal_log_prob(h) + normal_log_prob(x, h @ self.W.T + self.b, log_var)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x) by the Gaussian's formula."""
        away = x - self.b
        size = torch.linalg.slogdet(self.covariance)[1] + len(self.b) * math.log(2 * math.pi)
        return -0.5 * (size + (away * torch.linalg.solve(self.covariance, away.T).T).sum(-1))

    def decoder(self) -> Decoder:
        """As annealing takes it."""
        log_var = torch.full_like(self.b, 2 * math.log(self.s))

        def simulate(z: Tensor, generator: torch.Generator) -> Tensor:
            mean = z.to(F64) @ self.W.T + self.b
            return mean + self.s * torch.randn(mean.shape, generator=generator, dtype=F64)

        def log_likelihood(x: Tensor, z: Tensor) -> Tensor:
            return normal_log_prob(x, z @ self.W.T + self.b, log_var)

        return Decoder(self.W.shape[1], log_likelihood, simulate)

    def proposals(self, widened: float) -> "LogWeightsOf":
        return LogWeightsOf(self, widened)


class LogWeightsOf:
    """Log importance weights with q(h|x) the posterior, its covariance `widened` times as large."""

    def __init__(self, model: LinearGaussian, widened: float) -> None:
        self.model, self.widened = model, widened
        self.root = torch.linalg.cholesky(torch.linalg.inv(model.precision) * widened)

    def __call__(self, x: Tensor, k: int, generator: torch.Generator) -> Tensor:
        noise = torch.randn(k, len(x), len(self.root), generator=generator, dtype=F64)
        h = self.model.posterior_mean(x) + noise @ self.root.T
        log_q = standard_normal_log_prob(noise) - self.root.diagonal().log().sum()
        return self.model.log_joint(x, h) - log_q


LINEAR = "linear-Gaussian decoder, 3 latent and 12 observed (seed 3)"


@closed_form(
    "importance_bound",
    f"{LINEAR}, 100 examples, k = 7, proposals from the posterior",
    "log N(x; b, W Wᵀ + s² I), which every L_k is then",
    relative=1e-12,
)
def _() -> Values:
    model = LinearGaussian()
    x = model.draw(100)
    ours = importance_log_likelihood(model.proposals(1.0), x, k=7, generator=seeded(6), samples_at_once=5)
    return float(ours.mean()), float(model.log_evidence(x).mean())


@implementation(
    "scipy",
    "importance_bound",
    f"{LINEAR}, 100 examples, k = 7, proposals from the posterior",
    "scipy.stats.multivariate_normal.logpdf",
    relative=1e-12,
)
def _() -> Values:
    from scipy.stats import multivariate_normal

    model = LinearGaussian()
    x = model.draw(100)
    ours = importance_log_likelihood(model.proposals(1.0), x, k=7, generator=seeded(6))
    return float(ours.mean()), float(multivariate_normal.logpdf(x, model.b, model.covariance).mean())


@closed_form(
    "importance_bound",
    f"{LINEAR}, 4,000 examples, k = 1, proposals twice as wide as the posterior",
    "log p(x) − KL(q, p(h|x)), the evidence lower bound; KL = 3/2 (2 − 1 − log 2)",
    errors=4,
)
def _() -> Values:
    model, widened = LinearGaussian(), 2.0
    x = model.draw(4000)
    off = importance_log_likelihood(model.proposals(widened), x, k=1, generator=seeded(7)) - model.log_evidence(x)
    mean = float(model.log_evidence(x).mean())
    kl = 0.5 * model.W.shape[1] * (widened - 1 - math.log(widened))
    return mean + float(off.mean()), mean - kl, float(off.std() / math.sqrt(len(x)))


@closed_form(
    "importance_bound",
    f"{LINEAR}, 2,000 examples, k = 50, proposals four times as wide as the posterior: exp L_k / p(x)",
    "1: the mean of the weights is p(x) without bias",
    errors=4,
)
def _() -> Values:
    model = LinearGaussian()
    x = model.draw(2000)
    off = importance_log_likelihood(model.proposals(4.0), x, k=50, generator=seeded(8)) - model.log_evidence(x)
    ratio = off.exp()
    return float(ratio.mean()), 1.0, float(ratio.std() / math.sqrt(len(x)))


# -- Annealed importance sampling -------------------------------------------------------------------------------------

ANNEALED = (
    "linear-Gaussian decoder, 2 latent and 4 observed, s = 1.5 (seed 3), 100 simulated examples, 8 chains, "
    "60 temperatures, 5 leapfrog steps"
)
TAME = "A likelihood so mild that weights vary little: else their mean hangs on some that hardly ever come."


@cache
def sandwich() -> tuple[Sandwich, Tensor]:
    """Both directions, and log p(x)."""
    model = LinearGaussian(d=4, latent=2, s=1.5)
    found = bdmc(model.decoder(), 100, chains=8, temperatures=60, leapfrog=5, generator=seeded(9))
    return found, model.log_evidence(found.x)


def mean_weight(log_ratio: Tensor) -> Values:
    ratio = log_ratio.exp()
    return float(ratio.mean()), 1.0, float(ratio.std() / math.sqrt(len(ratio)))


@closed_form("ais", f"{ANNEALED}: mean of w / p(x)", "1: E[w] = p(x), however badly a chain mixes", errors=4, note=TAME)
def _() -> Values:
    found, log_p = sandwich()
    return mean_weight(found.lower.log_p - log_p)


@closed_form("bdmc", f"{ANNEALED}: mean of p(x) / w of the reversed chains", "1: E[1/w] = 1/p(x)", errors=4, note=TAME)
def _() -> Values:
    found, log_p = sandwich()
    return mean_weight(log_p - found.upper.log_p)


@slow(
    "ais",
    "decoder of sines, 2 latent and 5 observed (seed 11), 100 simulated examples, 4 chains, 30 temperatures, "
    "3 leapfrog steps: mean of w / p(x)",
    "p(x) summed over a grid of 200 × 200 points from −6 to 6",
    errors=4,
    note="Posteriors with several modes, between which chains seldom move.",
)
def _() -> Values:
    W, s = torch.randn(5, 2, generator=seeded(11), dtype=F64), 0.5
    log_var = torch.full((5,), 2 * math.log(s), dtype=F64)
    z = torch.randn(100, 2, generator=seeded(12), dtype=F64)
    x = (2 * z @ W.T).sin() + s * torch.randn(100, 5, generator=seeded(13), dtype=F64)

    def log_likelihood(x: Tensor, z: Tensor) -> Tensor:
        return normal_log_prob(x, (2 * z @ W.T).sin(), log_var)

    axis = torch.linspace(-6, 6, 200, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)
    cell = 2 * math.log(12 / 199)
    log_prior = standard_normal_log_prob(grid)
    log_p = torch.stack([torch.logsumexp(log_prior + log_likelihood(one, grid), 0) + cell for one in x])
    found = ais_log_likelihood(Decoder(2, log_likelihood), x, chains=4, temperatures=30, leapfrog=3, generator=seeded())
    return mean_weight(found.log_p - log_p)
