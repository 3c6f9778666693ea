"""Each probe passes a right subject for many seeds, and finds each of the mistakes known from other code."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from common.errors import ConfigError
from common.probes import bits, bound, density, impossible, log_marginal, normalisation
from common.probes.result import ProbeResult

LOG_2PI = math.log(2 * math.pi)


def assert_caught(result: ProbeResult, words: str) -> None:
    assert not result.passed, result
    assert words in result.detail, result


# bits ------------------------------------------------------------------------------------------------------------


class Preprocessing:
    """(u8 + noise) / levels, then logit with alpha; each part can be made wrong."""

    def __init__(self, levels: int = 256, alpha: float | None = 0.05, **wrong: object) -> None:
        self.levels, self.alpha, self.wrong = levels, alpha, wrong

    def noise(self, u8: Tensor, generator: torch.Generator) -> Tensor:
        u = torch.rand(u8.shape, generator=generator)
        match self.wrong.get("noise"):
            case "none":
                return torch.full_like(u, 0.5)
            case "half":
                return u / 2
            case "wide":
                return 2 * u
            case "bell":
                return (u + torch.rand(u8.shape, generator=generator)) / 2
        return u

    def encode(self, u8: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        levels = self.levels
        y = (u8.double() + self.noise(u8, generator)) / self.wrong.get("divide_by", levels)
        per_value = torch.full_like(y, -math.log(levels))
        if self.wrong.get("gamma"):
            y = y.square()
        if self.wrong.get("no_levels"):
            per_value = torch.zeros_like(y)
        if self.alpha is not None:
            y = self.alpha + (1 - 2 * self.alpha) * y
            slope = self.wrong.get("slope", 1 - 2 * self.alpha)
            per_value = per_value + math.log(slope) - y.log() - (1 - y).log()
            y = y.logit()
        if self.wrong.get("reduce") == "channels":
            return y, per_value.flatten(2).mean(2).sum(1)
        if self.wrong.get("reduce") == "mean":
            return y, per_value.flatten(1).mean(1)
        if self.wrong.get("reduce") == "batch":
            return y, per_value.flatten(1).sum(1).mean().expand(len(y))
        if self.wrong.get("reduce") == "batch of images" and y[0].numel() > 1:
            return y, per_value.flatten(1).sum(1).mean().expand(len(y))
        if self.wrong.get("reduce") == "one number":
            return y, per_value.sum() / len(y)
        if self.wrong.get("sign"):
            return y, -per_value.flatten(1).sum(1)
        return y, per_value.flatten(1).sum(1)


class Discrete:
    """u8 / (levels - 1), without noise: a mass, so ldj = 0 is right and anything else wrong."""

    def __init__(self, levels: int, ldj: float = 0.0, collapse: int = 1) -> None:
        self.levels, self.ldj, self.collapse = levels, ldj, collapse

    def encode(self, u8: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = (u8 // self.collapse).float() / (self.levels - 1)
        return x, torch.full((len(u8),), self.ldj)


@pytest.mark.parametrize("alpha", [None, 1e-6, 0.05])
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_bits_of_right_preprocessing(levels: int, alpha: float | None) -> None:
    result = bits(Preprocessing(levels, alpha), levels=levels)
    assert result.passed, result
    assert result.numbers["bits_per_dim"] == pytest.approx(math.log2(levels), abs=1e-3)


def test_bits_raises_no_false_alarm() -> None:
    for seed in range(15):
        assert (result := bits(Preprocessing(alpha=1e-6), seed=seed)).passed, result


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_bits_of_discrete_values(levels: int) -> None:
    assert (result := bits(Discrete(levels), levels=levels)).passed, result


def test_bits_shows_the_number_that_a_mixed_up_alpha_gives() -> None:
    """1 - alpha in the log-determinant where 1 - 2 alpha was applied: log2(0.95 / 0.90) = 0.078 bits too few."""
    result = bits(Preprocessing(slope=1 - 0.05))
    assert_caught(result, "integrates")
    assert result.numbers["bits_per_dim"] == pytest.approx(8 - math.log2(0.95 / 0.90), abs=2e-3)


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        (Preprocessing(no_levels=True), "integrates"),
        (Preprocessing(divide_by=255), "integrates"),
        (Preprocessing(sign=True), "integrates"),
        (Preprocessing(noise="half", alpha=None), "code"),
        (Preprocessing(noise="wide", alpha=None), "code"),
        (Preprocessing(noise="bell"), "not uniform"),
        (Preprocessing(noise="none", alpha=None), "ldj must be 0"),
        (Preprocessing(reduce="channels"), "bits/dim"),
        (Preprocessing(reduce="mean"), "bits/dim"),
        (Preprocessing(reduce="batch"), "bits/dim"),
        (Preprocessing(reduce="batch of images"), "right on average only"),
        (Preprocessing(gamma=True, alpha=None), "of the probability it should have"),
        (Preprocessing(reduce="one number"), "one value per example"),
        (Discrete(256, ldj=-1.0), "ldj must be 0"),
        (Discrete(256, collapse=2), "not one to one"),
    ],
)
def test_bits_finds_wrong_preprocessing(subject: Preprocessing | Discrete, words: str) -> None:
    assert_caught(bits(subject), words)


@pytest.mark.parametrize(
    "formula",
    [
        lambda log_p, dims: -log_p / dims,  # nats
        lambda log_p, dims: -log_p / (dims / 3 * math.log(2)),  # pixels instead of dimensions
        lambda log_p, dims: -log_p / (dims * math.log(2)) - 8,  # the levels counted twice
    ],
)
def test_bits_finds_a_wrong_formula(formula: Callable[[Tensor, int], Tensor]) -> None:
    assert_caught(bits(Preprocessing(), bits_per_dim=formula), "bits/dim instead of")


# bound -----------------------------------------------------------------------------------------------------------


class LinearGaussian:
    """h ~ N(0, I), x|h ~ N(W h, 0.5 I), 3-dimensional, so log p(x) is exact; the encoder is deliberately not."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.w = torch.randn(3, 2, generator=generator)
        self.x = torch.randn(8, 3, generator=generator)

    def log_p(self, x: Tensor) -> Tensor:
        covariance = self.w @ self.w.T + 0.5 * torch.eye(3)
        return torch.distributions.MultivariateNormal(torch.zeros(3), covariance).log_prob(x)

    def encode(self, x: Tensor) -> tuple[Tensor, float]:
        return 0.4 * (x @ self.w), 0.7  # mean, standard deviation

    def log_joint(self, x: Tensor, h: Tensor) -> Tensor:
        return self.log_likelihood(x, h) + self.log_prior(h)

    def log_likelihood(self, x: Tensor, h: Tensor) -> Tensor:
        return -(x - h @ self.w.T).square().sum(-1) - 1.5 * math.log(math.pi)

    def log_prior(self, h: Tensor) -> Tensor:
        return -0.5 * (h.square() + LOG_2PI).sum(-1)

    def log_weights(self, x: Tensor, k: int, generator: torch.Generator) -> Tensor:
        mean, std = self.encode(x)
        eps = torch.randn(k, *mean.shape, generator=generator)
        log_q = -0.5 * (eps.square() + LOG_2PI + 2 * math.log(std)).sum(-1)
        return self.log_joint(x, mean + std * eps) - log_q

    def bound(self, x: Tensor, k: int, generator: torch.Generator) -> Tensor:
        return self.log_weights(x, k, generator).logsumexp(0) - math.log(k)

    def kl(self, x: Tensor) -> Tensor:
        mean, std = self.encode(x)
        return 0.5 * (mean.square() + std**2 - 1 - 2 * math.log(std)).sum(-1)

    def reconstruction(self, x: Tensor, generator: torch.Generator) -> Tensor:
        mean, std = self.encode(x)
        return self.log_likelihood(x, mean + std * torch.randn(mean.shape, generator=generator))

    def closed_form(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return self.reconstruction(x, generator) - self.kl(x)


MODEL = LinearGaussian()


def test_bound_of_a_right_model() -> None:
    result = bound(MODEL.bound, MODEL.log_p, MODEL.x, elbo=lambda x, g: MODEL.log_weights(x, 1, g)[0])
    assert result.passed, result
    assert result.numbers["L_1 is the ELBO"] == "to the bit"
    assert result.numbers["L_1"] < result.numbers["L_5"] < result.numbers["L_50"]
    assert result.numbers["L_50"] < result.numbers["log_p"]


def test_bound_raises_no_false_alarm() -> None:
    for seed in range(20):
        result = bound(MODEL.bound, MODEL.log_p, MODEL.x, ks=(1, 2, 5), covering=True, seed=seed)
        assert result.passed, result


def test_bound_accepts_an_elbo_with_its_kl_in_closed_form() -> None:
    def mixed(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
        return MODEL.closed_form(x, generator) if k == 1 else MODEL.bound(x, k, generator)

    result = bound(mixed, MODEL.log_p, MODEL.x, log_weights=MODEL.log_weights, elbo=MODEL.closed_form)
    assert result.passed, result
    result = bound(MODEL.bound, MODEL.log_p, MODEL.x, elbo=MODEL.closed_form)
    assert result.passed, result
    assert result.numbers["L_1 is the ELBO"] == "in expectation"


def surrogate(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """sum of normalised weights times log weights: has the gradient of L_k and not its value."""
    log_w = MODEL.log_weights(x, k, generator)
    return (log_w.softmax(0) * log_w).sum(0)


def always_30(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    return MODEL.bound(x, 30, generator)


def off_by_one(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    return MODEL.bound(x, k + 1, generator)


def off_by_one_above_one(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    return MODEL.bound(x, k + (k > 1), generator)


def no_log_k(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    return MODEL.log_weights(x, k, generator).logsumexp(0)


def mean_of_logs(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    return MODEL.log_weights(x, k, generator).mean(0)


def best_of(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    return MODEL.log_weights(x, k, generator).amax(0)


def kl_over_batch(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    return MODEL.reconstruction(x, generator) - MODEL.kl(x) / len(x)


def mean_over_pixels(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    return MODEL.bound(x, k, generator) / x.shape[1]


def no_kl_constant(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """The -1 of the closed-form KL forgotten."""
    return MODEL.closed_form(x, generator) - 1.0


def mean_over_batch(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    return MODEL.bound(x, k, generator).mean()


def global_noise(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    return MODEL.bound(x, k, torch.default_generator)


def frozen_noise(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    return MODEL.bound(x, k, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("given_weights", [True, False])
@pytest.mark.parametrize(
    "subject",
    [
        surrogate,
        always_30,
        off_by_one,
        off_by_one_above_one,
        no_log_k,
        mean_of_logs,
        best_of,
        kl_over_batch,
        mean_over_pixels,
        mean_over_batch,
        global_noise,
        frozen_noise,
    ],
)
def test_bound_finds_wrong_bounds(subject: Callable[..., Tensor], given_weights: bool) -> None:
    log_weights = MODEL.log_weights if given_weights else None
    result = bound(subject, MODEL.log_p, MODEL.x, log_weights=log_weights, ks=(1, 2, 20))
    assert not result.passed, result


def test_bound_finds_a_wrong_elbo() -> None:
    result = bound(MODEL.bound, MODEL.log_p, MODEL.x, elbo=lambda x, g: no_kl_constant(x, 1, g))
    assert_caught(result, "L_1 is not the ELBO")


def test_bound_finds_a_bound_of_another_model() -> None:
    """A constant of the likelihood counted twice leaves a bound, which is never tight."""

    def too_low(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
        return MODEL.bound(x, k, generator) - 0.5

    assert bound(MODEL.bound, MODEL.log_p, MODEL.x, covering=True).passed
    assert_caught(bound(too_low, MODEL.log_p, MODEL.x, covering=True), "not those of this log p")
    assert_caught(bound(too_low, MODEL.log_p, MODEL.x, log_weights=MODEL.log_weights), "log-mean")


def test_bound_names_the_mistake() -> None:
    assert_caught(bound(surrogate, MODEL.log_p, MODEL.x), "L_50 exceeds log p")
    assert_caught(bound(off_by_one_above_one, MODEL.log_p, MODEL.x), "L_2 is not the log-mean of 2")
    assert_caught(bound(frozen_noise, MODEL.log_p, MODEL.x), "same noise in every call")
    assert_caught(bound(global_noise, MODEL.log_p, MODEL.x), "noise comes from elsewhere")
    assert_caught(bound(mean_over_batch, MODEL.log_p, MODEL.x), "one value per example")


def test_bound_does_not_pass_where_it_cannot_see() -> None:
    """With the exact posterior every weight is p(x), and no number of samples can be told from another."""
    result = bound(lambda x, k, g: MODEL.log_p(x), MODEL.log_p, MODEL.x)
    assert_caught(result, "inconclusive")


def test_bound_finds_a_tanh_for_the_normal_cdf() -> None:
    """A decoder of discretised normals, scored with the usual approximation of Phi, has another p(x) in the tail."""

    def log_mass(phi: Callable[[Tensor], Tensor], x: Tensor, h: Tensor) -> Tensor:
        """log P(x|h) for a cell of width 1 and mean 0.2 h; x (B, 1), h (k, B, 1)."""
        return (phi(x - 0.2 * h + 0.5) - phi(x - 0.2 * h - 0.5)).log()[..., 0]

    def subject(phi: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
        def bound_fn(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
            h = torch.randn(k, len(x), 1, generator=generator, dtype=x.dtype)  # q(h|x) is the prior
            return log_mass(phi, x, h).logsumexp(0) - math.log(k)

        return bound_fn

    x = torch.tensor([[-4.0], [-4.5], [-5.0]], dtype=torch.float64)
    phi = torch.special.ndtr
    log_p = log_marginal(lambda x, h: log_mass(phi, x, h[:, None]) + MODEL.log_prior(h)[:, None], x, latents=1)
    assert (result := bound(subject(phi), log_p, x, covering=True)).passed, result
    assert_caught(bound(subject(tanh_phi), log_p, x, covering=True), "not those of this log p")


def test_bound_refuses_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match="k >= 1"):
        bound(MODEL.bound, MODEL.log_p, MODEL.x, ks=(0, 1))
    with pytest.raises(ConfigError, match="at least 40"):
        bound(MODEL.bound, MODEL.log_p, MODEL.x, repeats=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_marginal_is_exact(dtype: torch.dtype) -> None:
    x = MODEL.x.to(dtype)
    value = log_marginal(lambda x, h: MODEL.log_joint(x.float(), h.float()[:, None]).to(dtype), x, latents=2)
    torch.testing.assert_close(value, MODEL.log_p(MODEL.x).double(), atol=1e-4, rtol=0)


def test_log_marginal_refuses_a_grid_that_is_too_coarse() -> None:
    with pytest.raises(ConfigError, match="not converged"):
        log_marginal(lambda x, h: MODEL.log_joint(x, 50 * h[:, None]), MODEL.x, latents=2, points=21)


# normalisation ---------------------------------------------------------------------------------------------------


def autoregressive(leak: float = 0.0, temperature: float = 1.0) -> Callable[[Tensor], Tensor]:
    """p(x) = product of categoricals over 3 levels, logits linear in earlier pixels; `leak` lets later ones in."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 4, 3, generator=generator, dtype=torch.float64)
    mask = torch.ones(4, 4, dtype=torch.float64).tril(-1)
    mask = mask + leak * (1 - mask)

    def log_prob(x: Tensor) -> Tensor:
        flat = x.flatten(1)
        logits = torch.einsum("bj,ijl->bil", flat, weight * mask[..., None]) / temperature
        return logits.log_softmax(-1).gather(-1, flat.long()[..., None]).sum((-1, -2))

    return log_prob


def discretised_normal(
    phi: Callable[[Tensor], Tensor], ends: bool = True, mean: float = 40.0
) -> Callable[[Tensor], Tensor]:
    """256 cells of a normal; the first and last reach to infinity if `ends`."""

    def log_prob(x: Tensor) -> Tensor:
        low, high = (x - 0.5 - mean) / 20, (x + 0.5 - mean) / 20
        lower, upper = phi(low), phi(high)
        if ends:
            lower, upper = torch.where(x == 0, 0.0, lower), torch.where(x == 255, 1.0, upper)
        return (upper - lower).clamp_min(1e-300).log()[:, 0]

    return log_prob


def tanh_phi(t: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (t + 0.044715 * t**3)))


def test_normalisation_of_right_models() -> None:
    result = normalisation(autoregressive(), shape=(1, 2, 2), levels=3)
    assert result.passed, result
    assert result.numbers["states"] == 81
    exact = discretised_normal(torch.special.ndtr)
    assert (result := normalisation(exact, shape=(1,), levels=256)).passed, result
    single = autoregressive()
    result = normalisation(lambda x: single(x).float(), shape=(1, 2, 2), levels=3)
    assert result.passed, result


@pytest.mark.parametrize(
    ("log_prob", "words"),
    [
        (autoregressive(leak=0.01), "sum to"),
        (lambda x: autoregressive()(x) / 4, "sum to"),  # mean over pixels
        (lambda x: autoregressive()(x) + 10, "not a mass"),
        (lambda x: autoregressive()(x).mean(), "one value per example"),
        (lambda x: autoregressive()(x)[:, None], "one value per example"),
        (lambda x: autoregressive()(x) * math.nan, "sum to nan"),
    ],
)
def test_normalisation_finds_wrong_models(log_prob: Callable[[Tensor], Tensor], words: str) -> None:
    assert_caught(normalisation(log_prob, shape=(1, 2, 2), levels=3), words)


def test_normalisation_finds_a_wrong_discretised_normal() -> None:
    no_ends = discretised_normal(torch.special.ndtr, ends=False)
    assert_caught(normalisation(no_ends, shape=(1,), levels=256), "sum to")
    # A tanh for the normal CDF still sums to 1; the exact formula tells the difference.
    tanh, exact = discretised_normal(tanh_phi), discretised_normal(torch.special.ndtr)
    assert normalisation(tanh, shape=(1,), levels=256).passed
    assert normalisation(exact, shape=(1,), levels=256, reference=exact).passed
    assert_caught(normalisation(tanh, shape=(1,), levels=256, reference=exact), "log-probability")


def test_normalisation_refuses_a_large_space() -> None:
    with pytest.raises(ConfigError, match="states"):
        normalisation(autoregressive(), shape=(1, 28, 28), levels=2)


def normal(scale: float, log_det: float = 1.0) -> Callable[[Tensor], Tensor]:
    """x = scale z; `log_det` = 0 forgets the change of variables."""

    def log_prob(x: Tensor) -> Tensor:
        z = x / scale
        return -0.5 * (z.square() + LOG_2PI + 2 * log_det * math.log(scale)).sum(1)

    return log_prob


def box(x: Tensor) -> Tensor:
    return torch.where((x.abs() <= 1).all(1), -x.shape[1] * math.log(2), -math.inf)


@pytest.mark.parametrize("dims", [1, 2])
def test_density_integrates_to_one(dims: int) -> None:
    assert (result := density(normal(1.7), dims=dims, extent=12)).passed, result
    assert (result := density(box, dims=dims, extent=1.37)).passed, result  # with edges
    assert (result := density(lambda x: normal(1.0)(x).float(), dims=dims, extent=8)).passed, result
    assert_caught(density(normal(1.2, log_det=0), dims=dims, extent=9), "integrates to")
    assert_caught(density(normal(1.2, log_det=2), dims=dims, extent=9), "integrates to")
    assert_caught(density(normal(1.0), dims=dims, extent=2), "integrates to")  # box too small
    assert_caught(density(normal(1e-3), dims=dims, extent=8), "inconclusive")
    assert_caught(density(lambda x: normal(1.0)(x) * math.nan, dims=dims, extent=8), "NaN")


# impossible ------------------------------------------------------------------------------------------------------

ENTROPY = 0.5 * (1 + LOG_2PI) * 2 + 2 * math.log(1.7)


def draws(seed: int, n: int = 2000) -> Tensor:
    return 1.7 * torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_impossible_raises_no_false_alarm() -> None:
    """Neither the density itself nor models close to it, whichever draws they are given."""
    for seed in range(150):
        x = draws(seed)
        for model in (normal(1.7), normal(1.69), normal(1.72)):
            result = impossible(model, x, entropy=ENTROPY, true_log_prob=normal(1.7))
            assert result.passed, (seed, result)


def memorising(x: Tensor) -> Callable[[Tensor], Tensor]:
    """A kernel density of the very points it is scored on."""

    def log_prob(y: Tensor) -> Tensor:
        return (-torch.cdist(y, x).square() / 0.02 - math.log(0.02 * math.pi)).logsumexp(1) - math.log(len(x))

    return log_prob


def test_impossible_finds_impossible_models() -> None:
    x = draws(0)
    known = {"entropy": ENTROPY, "true_log_prob": normal(1.7)}
    assert_caught(impossible(normal(1.7, log_det=0), x, entropy=ENTROPY), "above what is possible")
    assert_caught(impossible(lambda x: normal(1.7)(x) / 2, x, **known), "above what is possible")
    assert_caught(impossible(memorising(x), x, **known), "times their true likelihood")
    # A hundredth of a nat too much is lost in the noise of log p, and plain against the true log p.
    slightly = lambda x: normal(1.7)(x) + 0.01  # noqa: E731
    assert impossible(slightly, x, entropy=ENTROPY).passed
    assert_caught(impossible(slightly, x, **known), "times their true likelihood")


def test_impossible_finds_a_log_prob_that_modifies_its_input() -> None:
    def shifting(x: Tensor) -> Tensor:
        x -= 1e-3
        return normal(1.7)(x)

    assert_caught(impossible(shifting, draws(0), entropy=ENTROPY), "modifies the tensor")


def test_impossible_refuses_draws_from_elsewhere() -> None:
    with pytest.raises(ConfigError, match="not from the known density"):
        impossible(normal(1.7), 2 * draws(0), entropy=ENTROPY, true_log_prob=normal(1.7))
    with pytest.raises(ConfigError, match="too few"):
        impossible(normal(1.7), draws(0, n=10), entropy=ENTROPY)
