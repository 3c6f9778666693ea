"""Denoising Diffusion Probabilistic Models. Ho, Jain & Abbeel, NeurIPS 2020. https://arxiv.org/abs/2006.11239

An image is drowned in noise in T small steps that nobody has to learn; a network learns the way back. If it predicts
the noise, the variational bound on log p(x_0) becomes a weighted squared error, and without its weights,

    L_simple = E_{t, x_0, eps} || eps - eps_theta( sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, t ) ||^2         (14)

it gives better samples, though a worse bound.

    q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I)   p_theta(x_{t-1} | x_t) = N(mu_theta(x_t, t), sigma_t^2 I)

Notation     here                   shape          paper
             x_0, x_t               (B, C, H, W)   x_0, x_t; codes 0 ... levels-1 scaled to [-1, 1]
             t                      (B,)           t = 1 ... T
             beta, alpha, abar      (T + 1,)       beta_t, alpha_t, alpha-bar_t, at index t; t = 0 stands for the data
             beta_tilde, sigma2     (T + 1,)       beta-tilde_t, sigma_t^2
             mu_tilde, mu           (B, C, H, W)   mu-tilde_t(x_t, x_0), mu_theta(x_t, t)
             eps, x0_hat            (B, C, H, W)   epsilon, x-hat_0
             L                      (B,)           L_{t-1}, a term of the bound, in nats
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from common import plotting, probes
from common.data import Batch, Batches, Data, Split, bits_per_dim, load
from common.data.centred import Centred
from common.errors import ConfigError
from common.evaluation.features import Features, inception, lenet, raw_pixels
from common.evaluation.frechet import frechet_score
from common.evaluation.likelihood import mean_score
from common.evaluation.shards import Dealt, by_batch, drawn
from common.experiment import Run
from common.nn import Denoiser, UNet, epsilon_network
from common.records import Score
from common.training import EMA, State, fit, place, sgd_step

Network = Callable[[Tensor, Tensor], Tensor]
"""(x_t (B, C, H, W), t (B,)) -> what is predicted (B, C, H, W)."""
Step = tuple[int, Tensor, Tensor]

SHAPES = {"cifar10": (3, 32, 32), "mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28), "digits": (1, 8, 8)}


@dataclass(frozen=True)
class Config:
    """One run. The defaults are the paper's for CIFAR10 (section 4 and appendix B; warm-up and clip: its code)."""

    dataset: Literal["cifar10", "mnist", "fashion_mnist", "digits"] = "cifar10"
    predict: Literal["eps", "mu", "x0"] = "eps"  # what the network predicts (section 3.2)
    objective: Literal["simple", "vlb"] = "simple"  # eq. 14, or eq. 5
    variance: Literal["beta", "beta_tilde"] = "beta"  # sigma_t^2
    T: int = 1000  # steps of the diffusion
    beta_1: float = 1e-4  # of a thousand steps; with fewer, each is larger in proportion
    beta_T: float = 0.02
    base: int = 128  # the U-Net: see common.nn.UNet
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention_at: tuple[int, ...] = (1,)
    dropout: float = 0.1
    patch: int = 1
    steps: int = 800_000
    batch_size: int = 128
    learning_rate: float = 2e-4
    warmup: int = 5000  # updates over which the learning rate rises to that
    clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.9999
    flips: bool = True  # mirror training images at random
    bf16: bool = False  # train under bfloat16 autocast
    samples: int = 50_000  # that the Fréchet distance is of
    sample_steps: int = 1000  # of their chains; fewer than T: `Diffusion.respaced`
    eval_examples: int = 10_000  # the bound is on the first so many test examples
    eval_terms: int = 1000  # terms of the bound that are evaluated for each; fewer than T: `strata`
    eval_batch: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "learning_rate", "clip", "samples", "eval_examples", "eval_batch"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: it must be positive.")
        if not 0 < self.beta_1 <= self.beta_T < self.T / 1000:
            raise ConfigError(f"beta_1 = {self.beta_1}, beta_T = {self.beta_T}: 0 < beta_1 <= beta_T < T / 1000.")
        if not 2 <= min(self.sample_steps, self.eval_terms) <= max(self.sample_steps, self.eval_terms) <= self.T:
            raise ConfigError(f"sample_steps and eval_terms must lie between 2 and T = {self.T}.")


# -- The two processes (sections 2 and 3) ------------------------------------------------------------------------------


def normal_like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


class Diffusion:
    """q and p_theta for given betas. Tables are float64: products of a thousand factors lose digits in float32.

    beta (T,) is beta_1 ... beta_T. Networks know `full`, this process or one of more steps; t is times[t] there.
    """

    def __init__(self, beta: Tensor, predict: str, variance: str, levels: int) -> None:
        self.T, self.predict, self.variance, self.levels = len(beta), predict, variance, levels
        self.beta = torch.cat([beta.new_zeros(1), beta.double()])
        self.alpha = 1 - self.beta
        self.abar = self.alpha.cumprod(0)  # eq. 4; abar_0 = 1
        before = torch.cat([self.abar[:1], self.abar[:-1]])  # abar_{t-1}
        self.of_x_0 = before.sqrt() * self.beta / (1 - self.abar)  # eq. 7: mu_tilde's weights, and beta_tilde
        self.of_x_t = self.alpha.sqrt() * (1 - before) / (1 - self.abar)
        self.beta_tilde = self.beta * (1 - before) / (1 - self.abar)
        self.sigma2 = (self.beta if variance == "beta" else self.beta_tilde).clone()
        self.sigma2[1] = self.beta_tilde[2]  # the decoder's, as in the authors' code: beta_tilde_1 is zero
        self.full, self.times = self, torch.arange(self.T + 1)

    def at(self, table: Tensor, t: Tensor, like: Tensor) -> Tensor:
        """A table's values at t, (B,) -> (B, 1, ...), in the type and on the device of `like`."""
        return table.to(like.device)[t].to(like.dtype).view(-1, *[1] * (like.dim() - 1))

    def q_sample(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t ~ q(x_t | x_0), by its noise: eq. 4."""
        abar = self.at(self.abar, t, x_0)
        return abar.sqrt() * x_0 + self.at(1 - self.abar, t, x_0).sqrt() * eps

    def mu_tilde(self, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """The mean of q(x_{t-1} | x_t, x_0): eq. 7."""
        return self.at(self.of_x_0, t, x_t) * x_0 + self.at(self.of_x_t, t, x_t) * x_t

    def to_x0(self, x_t: Tensor, predicted: Tensor, t: Tensor) -> Tensor:
        """x0_hat from what the network predicts: eq. 15 for eps, eq. 7 solved for x_0 for mu."""
        if self.predict == "eps":
            return self.at(self.abar.rsqrt(), t, x_t) * x_t - self.at((1 / self.abar - 1).sqrt(), t, x_t) * predicted
        if self.predict == "mu":
            return (predicted - self.at(self.of_x_t, t, x_t) * x_t) / self.at(self.of_x_0, t, x_t)
        return predicted

    def p_mean(self, network: Network, x_t: Tensor, t: Tensor, clip: bool) -> tuple[Tensor, Tensor]:
        """mu_theta(x_t, t), eq. 11, and x0_hat: within [-1, 1] if `clip`, as in the authors' code but for training."""
        times = self.times.to(t.device)[t]
        predicted = network(x_t, times).to(x_t.dtype)
        x0_hat = self.full.to_x0(x_t, predicted, times).clamp(*(-1, 1) if clip else (-math.inf, math.inf))
        own = self.predict == "mu" and self.full is self  # else a predicted mu is the mean of a shorter step than ours
        return (predicted if own else self.mu_tilde(x_t, x0_hat, t)), x0_hat

    @torch.no_grad()
    def reverse(self, network: Network, start: int, x_t: Tensor, generator: torch.Generator) -> Iterator[Step]:
        """Algorithm 2 from x_start: yields (t, x_t, x0_hat) for t = start - 1, ..., 0. The last step adds no noise."""
        for t in range(start, 0, -1):
            mu, x0_hat = self.p_mean(network, x_t, torch.full((len(x_t),), t, device=x_t.device), clip=True)
            x_t = mu + math.sqrt(self.sigma2[t]) * normal_like(mu, generator) if t > 1 else mu
            yield t - 1, x_t, x0_hat

    def respaced(self, steps: int) -> "Diffusion":
        """The process at so many of its T levels, evenly spaced from the first to the last; beta is what lies between.

        Where they are fewer than T, sigma_t^2 is beta_tilde: beta is too much noise for large steps (DDIM, Table 1).
        """
        if steps == self.T:
            return self
        times = torch.linspace(1, self.T, steps, dtype=torch.float64).round().long()
        abar = self.abar[times]
        beta = 1 - abar / torch.cat([abar.new_ones(1), abar[:-1]])
        short = Diffusion(beta, self.predict, "beta_tilde", self.levels)
        short.full, short.times = self, torch.cat([times.new_zeros(1), times])
        return short

    def L(self, network: Network, x_0: Tensor, t: Tensor, eps: Tensor, *, clip: bool) -> tuple[Tensor, Tensor]:
        """L_{t-1}, a term of the bound (eq. 5) for one draw of x_t: (B,) nats; and x0_hat.

        KL(q(x_{t-1} | x_t, x_0) || p_theta(x_{t-1} | x_t)) in closed form; where t = 1, -log p_theta(x_0 | x_1).
        """
        x_t = self.q_sample(x_0, t, eps)
        mu, x0_hat = self.p_mean(network, x_t, t, clip)
        sigma2, ratio = self.at(self.sigma2, t, x_t), self.at(self.beta_tilde / self.sigma2, t, x_t)
        kl = 0.5 * (ratio - 1 - ratio.log() + (self.mu_tilde(x_t, x_0, t) - mu).square() / sigma2)
        L_0 = -self.decoder(x_0, mu, sigma2)
        return torch.where(t.view(-1, *[1] * (x_t.dim() - 1)) == 1, L_0, kl).flatten(1).sum(1), x0_hat

    def decoder(self, x_0: Tensor, mu: Tensor, sigma2: Tensor) -> Tensor:
        """log p_theta(x_0 | x_1), element by element, eq. 13: what of N(mu, sigma2) is in the cell of each code.

        The cells at both ends are endless, so that all codes together have probability 1.
        """
        half, far = 1 / (self.levels - 1), torch.full_like(x_0, 1e4)
        above = torch.where(x_0 > 1 - half, far, x_0 + half - mu) / sigma2.sqrt()
        below = torch.where(x_0 < -1 + half, -far, x_0 - half - mu) / sigma2.sqrt()
        # Phi(a) - Phi(b) = Phi(-b) - Phi(-a): on the left side of the bell no digits are lost.
        above, below = torch.where(below > 0, -below, above), torch.where(below > 0, -above, below)
        log_above, log_below = torch.special.log_ndtr(above), torch.special.log_ndtr(below)
        return log_above + torch.log(-torch.expm1((log_below - log_above).clamp_max(-1e-6)))

    def L_T(self, x_0: Tensor) -> Tensor:
        """KL(q(x_T | x_0) || N(0, I)): (B,) nats."""
        abar = float(self.abar[-1])
        return (0.5 * (abar * x_0.square() - abar - math.log1p(-abar))).flatten(1).sum(1)

    def loss(self, network: Network, x_0: Tensor, objective: str, generator: torch.Generator) -> Tensor:
        """Algorithm 1: the mean over the batch, (); per dimension.

        "simple" is eq. 14, or its like for another prediction. "vlb" is the mean of the bound's T terms, in bits.
        """
        t = torch.randint(1, self.T + 1, (len(x_0),), generator=generator, device=x_0.device)
        eps = normal_like(x_0, generator)
        if objective == "vlb":
            return bits_per_dim(-self.L(network, x_0, t, eps, clip=False)[0], x_0[0].numel()).mean()
        x_t = self.q_sample(x_0, t, eps)
        target = {"eps": eps, "mu": self.mu_tilde(x_t, x_0, t), "x0": x_0}[self.predict]
        return (target - network(x_t, self.times.to(t.device)[t])).square().mean()

    @torch.no_grad()
    def bound(self, network: Network, x_0: Tensor, terms: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Each example's bound on -log p(x_0) by parts, (B, terms + 1) nats in float64, and x0_hat's errors (B, terms).

        Column 0 is L_0; the next are sums over strata of t, estimated without bias by one of its t; the last is L_T.
        With as many terms as steps each t is its own stratum. The errors are mean squares over the pixels.
        """
        parts, errors = [], []
        for first, end in strata(self.T, terms):
            t = torch.randint(first, end, (len(x_0),), generator=generator, device=x_0.device)
            L, x0_hat = self.L(network, x_0, t, normal_like(x_0, generator), clip=True)
            parts.append(L.double() * (end - first))
            errors.append((x0_hat - x_0).square().flatten(1).mean(1).double())
        return torch.stack([*parts, self.L_T(x_0).double()], 1), torch.stack(errors, 1)


def strata(T: int, count: int) -> list[tuple[int, int]]:
    """1 ... T in `count` pieces [first, end): t = 1 alone, then wider and wider, as L_{t-1} varies less and less."""
    ends = [1]
    for k in range(1, count + 1):
        ends.append(max(ends[-1] + 1, 1 + round(T * (k / count) ** 2) if k > 1 else 2))
    return list(itertools.pairwise(ends))


def process(config: Config, levels: int = 256) -> Diffusion:
    """Betas "increasing linearly" (section 4); with T other than 1000, scaled so that as much noise comes together."""
    beta = torch.linspace(config.beta_1, config.beta_T, config.T, dtype=torch.float64) * (1000 / config.T)
    return Diffusion(beta, config.predict, config.variance, levels)


# -- Training (Algorithm 1; appendix B) --------------------------------------------------------------------------------


def training_split(data: Data) -> Split:
    """All that is not test on CIFAR10, where nothing is chosen by validation; elsewhere without the validation set."""
    return data.trainval if data.name == "cifar10" else data.train


def build(config: Config) -> UNet:
    """The untrained network, initialised from the configuration's seed."""
    torch.manual_seed(config.seed)
    c, channels = config, SHAPES[config.dataset][0]
    return UNet(channels, channels, c.base, c.multipliers, c.blocks, c.attention_at, c.dropout, c.patch)


def train(config: Config, run: Run) -> nn.Module:
    """Minimise the objective; the weights that are kept are the average over training."""
    data = run.uses(load(config.dataset))
    network, centred, diffusion = build(config), Centred(data.levels), process(config, data.levels)
    place(network, run.device, channels_last=True)
    adam = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True)
    batches = Batches(training_split(data), config.batch_size, seed=config.seed, device=run.device)
    generator = torch.Generator(run.device).manual_seed(config.seed)
    state = State(network, {"adam": adam}, generator, EMA(network, config.ema))

    def step(state: State, batch: Batch) -> dict[str, Tensor]:
        adam.param_groups[0]["lr"] = config.learning_rate * min(1.0, (state.step + 1) / max(1, config.warmup))
        x_0, _ = centred.encode(batch.x)
        if config.flips:
            mirrored = torch.rand((len(x_0), 1, 1, 1), generator=generator, device=x_0.device) < 0.5
            x_0 = torch.where(mirrored, x_0.flip(3), x_0)

        def loss_fn(x_0: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return diffusion.loss(network, x_0, config.objective, generator), {}

        return sgd_step(loss_fn, adam, x_0, clip=config.clip, amp="bf16" if config.bf16 else None)

    network.train()
    fit(state, batches, step, steps=config.steps, run=run, log_every=max(1, config.steps // 40))
    return state.ema.model


# -- Evaluation (section 4) --------------------------------------------------------------------------------------------


def sample(config: Config, chain: Diffusion, network: nn.Module, n: int, generator: torch.Generator) -> Tensor:
    """n images x_0 from p_theta (Algorithm 2): (n, C, H, W)."""
    x_T = torch.randn((n, *SHAPES[config.dataset]), generator=generator, device=generator.device)
    return next(x_0 for t, x_0, _ in chain.reverse(network, chain.T, x_T, generator) if t == 0)


def features(config: Config, data: Data) -> Features:
    """What the Fréchet distance looks at: Inception for colour, as in the paper; a LeNet, or mere pixels, for small."""
    own = {"cifar10": inception, "digits": lambda: raw_pixels(SHAPES["digits"], data.levels)}
    return own.get(config.dataset, lambda: lenet(config.dataset))()


def evaluate(config: Config, network: nn.Module, run: Run) -> list[Score]:
    """The bound on the test NLL in bits/dim, its rate and distortion (section 4.3); samples against training images."""
    data = run.uses(load(config.dataset))
    centred, diffusion = Centred(data.levels), process(config, data.levels)

    def bits_by_part(codes: Tensor, generator: torch.Generator) -> Tensor:
        x_0, ldj = centred.encode(codes)
        nats, _ = diffusion.bound(network, x_0, config.eval_terms, generator)
        nats[:, 0] -= ldj
        return bits_per_dim(-nats, data.dims).cpu()

    test = data.test.x[: config.eval_examples].to(run.device)
    bits = by_batch(bits_by_part, test, batch_size=config.eval_batch, seed=0)  # the same noise for every run
    how = {"unit": "bits/dim", "kind": "bound", "split": "test", "weights": "ema"}
    how["protocol"] = f"{config.dataset}, {config.eval_terms} of {config.T} terms, {len(bits)} test examples"
    run.examples |= {"bits_per_dim": bits.sum(1), "distortion": bits[:, 0], "rate": bits[:, 1:].sum(1)}
    scores = [mean_score(values, name, **how) for name, values in run.examples.items()]
    chain, see = diffusion.respaced(config.sample_steps), Dealt(features(config, data))
    draw = partial(sample, config, chain, network)
    x_0 = drawn(draw, config.samples, chunk=config.eval_batch, seed=config.seed + 1, device=run.device)
    how = {"split": "train", "weights": "ema", "protocol": f"chains of {chain.T} steps, sigma_t^2 = {chain.variance}"}
    resamples = torch.Generator().manual_seed(0)
    return [*scores, frechet_score(see, centred.decode(x_0).cpu(), training_split(data).x, generator=resamples, **how)]


def interpolate(chain: Diffusion, network: Network, ends: Tensor, t: int, generator: torch.Generator) -> Tensor:
    """Section 4.4: pairs of images, (2, B, C, H, W), noised to level t, mixed, denoised from there: (B, 9, C, H, W).

    The noise is the same for every lambda = 0, 1/8, ..., 1.
    """
    x_t, y_t = (chain.q_sample(x, torch.full((len(x),), t), normal_like(x, generator)) for x in ends)
    found, kept = [], generator.get_state()
    for weight in torch.linspace(0, 1, 9).tolist():
        generator.set_state(kept)
        *_, (_, x_0, _) = chain.reverse(network, t, (1 - weight) * x_t + weight * y_t, generator)
        found.append(x_0)
    return torch.stack(found, 1)


def illustrate(config: Config, network: nn.Module, run: Run) -> None:
    """64 uncurated samples; the nearest of 10,000 training images to each; x0_hat on the way; interpolations."""
    data = load(config.dataset)
    centred, diffusion = Centred(data.levels), process(config, data.levels)
    chain, generator = diffusion.respaced(config.sample_steps), torch.Generator(run.device).manual_seed(config.seed + 2)
    x_0, train = sample(config, chain, network, 64, generator), centred.encode(data.train.x[:10_000])[0]
    nearest = train[torch.cdist(x_0.cpu().flatten(1), train.flatten(1)).argmin(1)]
    x_T = torch.randn((8, *SHAPES[config.dataset]), generator=generator, device=run.device)
    shown = {round(chain.T * k / 10) for k in range(10)}
    moments = [x0_hat for t, _, x0_hat in chain.reverse(network, chain.T, x_T, generator) if t in shown]
    ends = centred.encode(data.test.x[:16].to(run.device))[0].unflatten(0, (2, 8))
    between = interpolate(chain, network, ends, chain.T // 2, generator)
    rows = torch.cat([ends[0][:, None], between, ends[1][:, None]], 1)  # figure 8, between the images themselves
    progressive = torch.stack(moments, 1).flatten(0, 1)  # figure 6
    pictures = {"samples": x_0, "nearest": nearest, "progressive": progressive, "interpolation": rows.flatten(0, 1)}
    for (name, x), columns in zip(pictures.items(), (8, 8, len(moments), 11), strict=True):
        unit = centred.decode(x).cpu().double() / (data.levels - 1)
        plotting.image_grid(unit, run.directory / f"{name}.png", columns)


# -- Presets -----------------------------------------------------------------------------------------------------------


def table(**settings: Any) -> dict[str, Config]:
    """Cells of Table 2, fixed isotropic Sigma: what is predicted, and the objective."""
    cells = [("eps", "simple"), ("eps", "vlb"), ("mu", "vlb"), ("mu", "simple")]
    return {f"{predict}-{which}": Config(predict=predict, objective=which, **settings) for predict, which in cells}


SMALL = {"multipliers": (1, 2), "blocks": 1, "dropout": 0.0, "batch_size": 64, "flips": False}
DIGITS = SMALL | {"base": 16, "learning_rate": 2e-3, "warmup": 20, "ema": 0.98}
MNIST = SMALL | {"base": 32, "patch": 2, "learning_rate": 4e-3, "warmup": 100, "ema": 0.995, "bf16": True}
TINY = {"samples": 200, "sample_steps": 25, "eval_examples": 100, "eval_terms": 25}
FEW = {"samples": 500, "sample_steps": 50, "eval_examples": 200, "eval_terms": 40, "eval_batch": 100}

LONGER = MNIST | {"learning_rate": 2e-3, "ema": 0.999}

PRESETS: dict[str, dict[str, Config]] = {  # seconds; minutes; twenty minutes, at settings of no trial; days
    "smoke": dict(list(table(dataset="digits", steps=200, **DIGITS, **TINY).items())[::2]),  # two cells
    "laptop": table(dataset="mnist", steps=1200, **MNIST, **FEW),
    "workstation": dict(list(table(dataset="mnist", steps=7000, **LONGER, **FEW).items())[:2]),  # predicting eps
    "paper": table(),
}


# -- Probes: on pixels that are N(0, 0.2^2), whose best network and whose likelihood under it are known ----------------


def exact_log_p(diffusion: Diffusion, network: Network, x_0: Tensor) -> Tensor:
    """log p_theta(x_0), (B,), where mu_theta is a multiple of x_t: x_T, ..., x_1 are Gaussian, one after the other."""
    var = torch.tensor(1.0, dtype=torch.float64)
    for t in range(diffusion.T, 0, -1):
        factor = diffusion.p_mean(network, x_0.new_ones(1, 1), torch.tensor([t]), clip=False)[0].squeeze()
        var = factor**2 * var + diffusion.sigma2[t]
    return diffusion.decoder(x_0, torch.zeros_like(x_0), var).sum(1)  # the codes' cells, under the last of them


SHORT = process(Config(T=25, sample_steps=25, eval_terms=25), levels=9)
IDEAL = epsilon_network(lambda x, sigma: x / (1 + (sigma / 0.2) ** 2), SHORT.abar[1:])
CODES = torch.cartesian_prod(*[torch.tensor([-0.25, 0.0, 0.25], dtype=torch.float64)] * 2)  # of two pixels


def probe_schedule() -> probes.ProbeResult:
    """The paper's, and that a network's eps or mu is turned into x_0 as the schedule says."""
    named = {predict: process(Config(predict=predict)) for predict in ("eps", "mu")}
    to_x0 = {predict: each.to_x0 for predict, each in named.items()}
    return probes.schedule(named["eps"].abar[1:], q_sample=named["eps"].q_sample, to_x0=to_x0)


def probe_sampler() -> probes.ProbeResult:
    """Algorithm 2, on chains of the paper's process."""
    diffusion = process(Config())

    def sample(denoiser: Denoiser, noise: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        chain, network = diffusion.respaced(steps), epsilon_network(denoiser, diffusion.abar[1:])
        return [x_t for _, x_t, _ in chain.reverse(network, chain.T, noise, generator)][-1]

    return probes.sampler(sample, steps=100)


def probe_bound() -> probes.ProbeResult:
    """The bound, of which only x_t is drawn, against the likelihood of a chain of Gaussians."""

    return probes.bound(
        lambda x, k, generator: -SHORT.bound(IDEAL, x, SHORT.T, generator)[0].sum(1),
        exact_log_p(SHORT, IDEAL, CODES), CODES, ks=(1,),
    )  # fmt: skip


def probe_invariance() -> probes.ProbeResult:
    """A term of each example's bound, with noise that is a part of the example."""
    x = torch.cat([CODES, normal_like(CODES, torch.Generator().manual_seed(0))], 1)
    term = probes.per_example(lambda x: SHORT.L(IDEAL, x[:, :2], torch.full((len(x),), 3), x[:, 2:], clip=True)[0])
    return probes.invariance(term, x)


def probe_resume() -> probes.ProbeResult:
    """A few updates on the digits, stopped and killed on the way; the average's weights are what is compared."""
    config, cpu = Config(dataset="digits", base=8, steps=6, **SMALL), torch.device("cpu")
    return probes.resume(lambda directory: train(config, Run(directory, cpu, {}, config.seed, progress=False)))


PROBES = {
    "schedule": probe_schedule,
    "sampler": probe_sampler,
    "bound": probe_bound,
    "bits": lambda: probes.bits(Centred(256), bits_per_dim=bits_per_dim),
    "quantise": lambda: probes.quantise(Centred(256)),
    "invariance": probe_invariance,
    "resume": probe_resume,
}
