"""Denoising Diffusion Implicit Models. Song, Meng & Ermon, ICLR 2021. https://arxiv.org/abs/2010.02502

A DDPM's training objective knows the marginals q(x_t | x_0) and nothing of how the x_t hang together. So one trained
network serves a whole family of non-Markovian processes with the same marginals, one for every sigma, and of any
sub-sequence of their times. A step of the generative process goes from x_t to an earlier x_s by

    x_s = sqrt(alpha_s) x0_hat + sqrt(1 - alpha_s - sigma^2) epsilon_theta + sigma epsilon                          (12)

    x0_hat = (x_t - sqrt(1 - alpha_t) epsilon_theta(x_t)) / sqrt(alpha_t)                                           (9)
    sigma  = eta sqrt((1 - alpha_s) / (1 - alpha_t)) sqrt(1 - alpha_t / alpha_s)                                   (16)

eta = 1 is DDPM. With eta = 0, DDIM, nothing is random but x_T: x_0 is a function of it, few steps give good samples,
and since they are Euler's method for an ordinary differential equation, they can be gone backwards.

Nothing is trained here: the network is DDPM's, taken by address and digest, and samplers know it as a `Denoiser`.

Notation     here              shape          paper
             x_T, x_0          (B, C, H, W)   x_T, x_0; pixels from -1 to 1
             x_bar, level      (B, C, H, W)   x / sqrt(alpha), and sqrt(1 - alpha) / sqrt(alpha), which the paper calls
                                              sigma in section 4.3: another one than that of (12)
             x0_hat, eps       (B, C, H, W)   f_theta(x_t), epsilon_theta(x_t)
             alpha             (T + 1,)       alpha_0 = 1, ..., alpha_T: DDPM's alpha-bar
             tau               S + 1          0, tau_1, ..., tau_S = T
             eta, larger       ()             eta; or hat-sigma, if `larger`
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from common import plotting, probes, weights
from common.data import Data, load
from common.data.centred import Centred
from common.errors import ConfigError
from common.evaluation.features import Features, inception, lenet, raw_pixels
from common.evaluation.frechet import frechet_score
from common.evaluation.likelihood import mean_score
from common.evaluation.shards import Dealt, by_batch
from common.experiment import Run, load_weights
from common.nn import Denoiser, EpsilonDenoiser, UNet
from common.records import Score
from common.training import place

SHAPES = {"cifar10": (3, 32, 32), "mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28), "digits": (1, 8, 8)}


@dataclass(frozen=True)
class Config:
    """One run: a cell of Table 1. The defaults are the paper's for CIFAR10."""

    dataset: Literal["cifar10", "mnist", "fashion_mnist", "digits"] = "cifar10"
    weights: str = "ddpm/paper/eps-simple"  # project/preset/run
    weights_sha256: str = ""  # of its weights.safetensors
    # DDPM's, whose network it is
    T: int = 1000
    beta_1: float = 1e-4  # of a thousand steps; with fewer, each is larger in proportion
    beta_T: float = 0.02
    base: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention_at: tuple[int, ...] = (1,)
    patch: int = 1
    # The sampler's
    S: int = 50  # dim(tau)
    eta: float = 0.0
    larger: bool = False  # hat-sigma in the place of sigma(eta), which then has to be that of eta = 1
    spacing: Literal["linear", "quadratic"] = "quadratic"  # of tau (appendix D.2)
    # What is measured
    samples: int = 50_000  # for the Fréchet distance
    reconstructions: int = 0  # test images that are encoded and decoded (section 5.4); without randomness only
    latents: int = 0  # of the samples, compared with the same sampler's in more steps, other noise (section 5.2)
    S_longer: int = 1000  # dim(tau) of that
    batch_size: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("S", "S_longer"):
            if not 1 <= getattr(self, name) <= self.T:
                raise ConfigError(f"{name} = {getattr(self, name)}: it must lie between 1 and T = {self.T}.")
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"eta = {self.eta}: it must lie between 0 (DDIM) and 1 (DDPM).")
        if self.larger and self.eta != 1:
            raise ConfigError(f"larger, eta = {self.eta}: hat-sigma only replaces the noise of eta = 1.")
        if self.reconstructions and self.eta > 0:
            raise ConfigError(f"reconstructions, eta = {self.eta}: only a sampler without randomness goes back.")
        if not 0 < self.beta_1 <= self.beta_T or not self.beta_T * 1000 / self.T < 1:
            raise ConfigError(f"T = {self.T}, beta up to {self.beta_T}: 0 < beta_1 <= beta_T < T / 1000 is needed.")
        if min(self.samples, self.batch_size) < 1 or self.reconstructions < 0 or not 0 <= self.latents <= self.samples:
            raise ConfigError("samples and batch_size are 1 or more, reconstructions 0 or more, latents 0 to samples.")


# -- The process, and sub-sequences of it ------------------------------------------------------------------------------


def schedule(config: Config) -> Tensor:
    """alpha_0 = 1, ..., alpha_T, (T + 1,) float64: the product of DDPM's 1 - beta_t, whose beta rises linearly in t."""
    beta = torch.linspace(config.beta_1, config.beta_T, config.T, dtype=torch.float64) * (1000 / config.T)
    return torch.cat([beta.new_ones(1), (1 - beta).cumprod(0)])


def subsequence(T: int, S: int, spacing: str) -> list[int]:
    """0, tau_1, ..., tau_S = T, strictly increasing (appendix D.2): floor(c i), or floor(c i^2), with tau_S = T.

    Where squares leave less than one step between two times, they are one step apart.
    """
    power = 1 if spacing == "linear" else 2
    return [max(i, T * i**power // S**power) for i in range(S + 1)]


def trajectory(config: Config, S: int) -> list[float]:
    """alpha at 0, tau_1, ..., tau_S: S + 1 numbers, from 1 down."""
    return schedule(config)[subsequence(config.T, S, config.spacing)].tolist()


def sigma(alpha_t: float, alpha_s: float, eta: float) -> float:
    """The standard deviation of a step's noise: eq. 16. Zero for the step to s = 0, where alpha_s = 1."""
    return eta * math.sqrt((1 - alpha_s) / (1 - alpha_t) * (1 - alpha_t / alpha_s))


# -- Samplers: functions of a denoiser (sections 4.1 and 4.2) ----------------------------------------------------------


def predict(denoiser: Denoiser, x_t: Tensor, alpha_t: float, *, clip: bool = False) -> tuple[Tensor, Tensor]:
    """x0_hat, eq. 9, and epsilon_theta, of which x_t = sqrt(alpha_t) x0_hat + sqrt(1 - alpha_t) epsilon_theta.

    `clip` keeps x0_hat in [-1, 1], and lets epsilon_theta follow.
    """
    x0_hat = denoiser(x_t / math.sqrt(alpha_t), math.sqrt((1 - alpha_t) / alpha_t))
    x0_hat = x0_hat.clamp(-1, 1) if clip else x0_hat
    return x0_hat, (x_t - math.sqrt(alpha_t) * x0_hat) / math.sqrt(1 - alpha_t)


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    x_T: Tensor,
    alpha: Sequence[float],
    *,
    eta: float = 0.0,
    larger: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """x_0 from x_T, along alpha_0 = 1, ..., alpha_{tau_S}: eq. 12 with eq. 16; (B, ...) -> (B, ...).

    `larger` adds the noise of hat-sigma = sqrt(1 - alpha_t / alpha_s), and leaves all else as it is for eta = 1
    (appendix D.3), but that x0_hat is clipped. The last step adds no noise. Both are so in the authors' code.
    """
    x = x_T
    for alpha_s, alpha_t in reversed(list(itertools.pairwise(alpha))):
        x0_hat, eps = predict(denoiser, x, alpha_t, clip=larger)
        s = sigma(alpha_t, alpha_s, eta)
        x = math.sqrt(alpha_s) * x0_hat + math.sqrt(1 - alpha_s - s**2) * eps
        noise = math.sqrt(1 - alpha_t / alpha_s) if larger else s
        if alpha_s < 1 and noise > 0:
            x = x + noise * torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return x


@torch.no_grad()
def encode(denoiser: Denoiser, x_0: Tensor, alpha: Sequence[float], lowest: float) -> Tensor:
    """x_T from x_0, by the same steps backwards (sections 4.3 and 5.4); (B, ...) -> (B, ...).

    With x_bar = x / sqrt(alpha) and level = sqrt(1 - alpha) / sqrt(alpha), eq. 12 without noise is eq. 13, Euler's
    method for eq. 14,

        d x_bar = epsilon_theta(x_bar / sqrt(level^2 + 1)) d level

    which is solved here from level 0 upwards. At level 0 there is nothing that the network was trained to see, so
    the first step asks at the lowest level that it knows; `lowest` is alpha_1, whatever tau_1 is.
    """
    x_bar, levels = x_0, [math.sqrt((1 - a) / a) for a in alpha]
    for level, higher in itertools.pairwise(levels):
        at = max(level, math.sqrt((1 - lowest) / lowest))
        eps = (x_bar - denoiser(x_bar, at)) / at
        x_bar = x_bar + (higher - level) * eps
    return math.sqrt(alpha[-1]) * x_bar


def slerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """Spherical linear interpolation of two latents (appendix D.5), (B, ...): a at weight 0, b at 1."""
    a_BD, b_BD = a.flatten(1), b.flatten(1)
    cosine = (a_BD * b_BD).sum(1) / (a_BD.norm(dim=1) * b_BD.norm(dim=1))
    theta = cosine.clamp(-1, 1).acos().view(-1, *[1] * (a.dim() - 1))
    return (torch.sin((1 - weight) * theta) * a + torch.sin(weight * theta) * b) / torch.sin(theta)


# -- The network: DDPM's, as it is published ---------------------------------------------------------------------------


def build(config: Config) -> UNet:
    """The network without its weights."""
    channels = SHAPES[config.dataset][0]
    size = (config.base, config.multipliers, config.blocks, config.attention_at, 0.0, config.patch)
    return UNet(channels, channels, *size)


def train(config: Config, run: Run) -> nn.Module:
    """Nothing is trained: "no changes are needed with regards to the training procedure" (section 5)."""
    network = load_weights(build(config), weights.find(config.weights, config.weights_sha256))
    return place(network, run.device, channels_last=True)


def denoiser_of(config: Config, network: nn.Module) -> EpsilonDenoiser:
    """epsilon_theta as a denoiser at the levels of t = 1, ..., T."""
    return EpsilonDenoiser(network, schedule(config)[1:])


# -- Evaluation (section 5) --------------------------------------------------------------------------------------------


def latents(config: Config, n: int) -> Tensor:
    """The first n x_T: the same for every run of the same seed, whatever its S and eta."""
    shape = SHAPES[config.dataset]
    generator = torch.Generator().manual_seed(config.seed)
    return torch.cat([torch.randn((1, *shape), generator=generator) for _ in range(n)])


def draw(config: Config, network: nn.Module, x_T: Tensor, S: int, generator: torch.Generator | None = None) -> Tensor:
    """x_0 of these latents in S steps: (B, C, H, W)."""
    how = {"eta": config.eta, "larger": config.larger, "generator": generator}
    return sample(denoiser_of(config, network), x_T, trajectory(config, S), **how)


def reconstruct(config: Config, network: nn.Module, x_0: Tensor) -> Tensor:
    """Images encoded in S steps and decoded in S steps: (B, C, H, W)."""
    denoiser, alpha, lowest = denoiser_of(config, network), trajectory(config, config.S), float(schedule(config)[1])
    return sample(denoiser, encode(denoiser, x_0, alpha, lowest), alpha)


@functools.lru_cache(maxsize=2)  # the samples are measured, then shown
def images(config: Config, network: nn.Module, levels: int, n: int, S: int, *, stream: int = 1) -> Tensor:
    """What the first n latents become in S steps: codes, uint8 (n, C, H, W); `stream` picks the noise on the way."""
    x_T = latents(config, n).to(next(network.parameters()).device)

    def codes(x_T: Tensor, generator: torch.Generator) -> Tensor:
        return Centred(levels).decode(draw(config, network, x_T, S, generator)).cpu()

    return by_batch(codes, x_T, batch_size=config.batch_size, seed=config.seed + stream)


def features(config: Config, data: Data) -> Features:
    """What the Fréchet distance looks at: Inception for colour, as in the paper; a LeNet, or mere pixels, for grey."""
    if config.dataset in ("mnist", "fashion_mnist"):
        return lenet(config.dataset)
    return inception() if config.dataset == "cifar10" else raw_pixels(SHAPES[config.dataset], data.levels)


def latent_distance(x: Tensor, y: Tensor) -> Tensor:
    """How far images x are from y of the same latents, compared with images of other latents: (N,), 0 for equal ones.

    || x_i - y_i ||^2 over the mean of || x_i - y_j ||^2, j not i: 1 on average if the latent decided nothing.
    """
    squared = torch.cdist(x.flatten(1).double(), y.flatten(1).double()).square()
    n, own = len(x), squared.diagonal()
    return own / ((squared.sum() - own.sum()) / (n * (n - 1)))


def evaluate(config: Config, network: nn.Module, run: Run) -> list[Score]:
    """Table 1: the Fréchet distance of samples. Table 2: reconstruction errors. Section 5.2: how far latents decide."""
    data = run.uses(load(config.dataset))
    codes = images(config, network, data.levels, config.samples, config.S)
    how = {"split": "train", "weights": "ema", "protocol": f"weights {config.weights}, {config.spacing} tau"}
    trained_on = data.trainval if data.name == "cifar10" else data.train  # as DDPM was
    resamples = torch.Generator().manual_seed(0)
    found = [frechet_score(Dealt(features(config, data)), codes, trained_on.x, generator=resamples, **how)]

    def score(name: str, unit: str, values: Tensor, protocol: str) -> None:
        run.examples[name] = values
        found.append(
            mean_score(values, name, unit=unit, kind="estimate", split="test", protocol=protocol, weights="ema")
        )

    if n := config.reconstructions:
        x_0, _ = Centred(data.levels).encode(data.test.x[:n].to(run.device))

        def error(x_0: Tensor) -> Tensor:  # of pixels from 0 to 1
            return ((reconstruct(config, network, x_0) - x_0) / 2).square().flatten(1).mean(1).cpu()

        errors = by_batch(error, x_0, batch_size=config.batch_size)
        score("reconstruction_error", "MSE", errors, f"{config.dataset}, {n} test images")
    if n := config.latents:
        longer = images(config, network, data.levels, n, config.S_longer, stream=2)
        protocol = f"{n} latents, against {config.S_longer} steps of the same sampler"
        score("latent_distance", "ratio", latent_distance(codes[:n].float(), longer.float()), protocol)
    return found


def illustrate(config: Config, network: nn.Module, run: Run) -> None:
    """The images of the first sixty-four latents: `samples.png`, to be compared from run to run.

    Where latents are compared, `consistency.png`: a latent a column, 10, 20, 50 and S_longer steps in rows (figure 5).
    Without randomness also `interpolation.png`, rows between two latents (figure 6), and `reconstruction.png`.
    """
    data = load(config.dataset)
    centred = Centred(data.levels)

    def picture(x: Tensor, name: str, columns: int) -> None:
        plotting.image_grid((x.cpu() + 1) / 2, run.directory / name, columns=columns)

    drawn = images(config, network, data.levels, config.samples, config.S)
    picture(centred.encode(drawn[:64])[0], "samples.png", 8)
    x_T, noise = latents(config, 12).to(run.device), torch.Generator(run.device)
    if config.latents:
        lengths = sorted({min(S, config.S_longer) for S in (10, 20, 50, config.S_longer)})
        rows = [draw(config, network, x_T, S, noise.manual_seed(config.seed + S)) for S in lengths]
        picture(torch.cat(rows), "consistency.png", len(x_T))
    if config.eta > 0 or not config.latents:
        return
    a, b = x_T.chunk(2)
    between = torch.stack([slerp(a, b, i / 10) for i in range(11)], 1).flatten(0, 1)
    picture(draw(config, network, between, config.S), "interpolation.png", 11)
    x_0, _ = centred.encode(data.test.x[:12].to(run.device))
    picture(torch.cat([x_0, reconstruct(config, network, x_0)]), "reconstruction.png", len(x_0))


# -- Presets -----------------------------------------------------------------------------------------------------------

UNET = {"multipliers": (1, 2), "blocks": 1, "spacing": "linear"}  # linear: the paper's, but for CIFAR10
DIGITS = UNET | {"dataset": "digits", "base": 16, "samples": 150, "S_longer": 50, "weights": "ddpm/smoke/eps-simple"}
DIGITS["weights_sha256"] = "d8e62917340df2acafb5c8fb452d1ac93adb30449d64ef0e3b6a07b12b63fd3e"
MNIST = UNET | {"dataset": "mnist", "base": 32, "patch": 2, "S_longer": 200, "weights": "ddpm/laptop/eps-simple"}
MNIST |= {"weights_sha256": "7fd177720d3fdbb27956d9f8d0198775dfbc95c256c41bbdd0601cb0b17279fb", "batch_size": 100}
LONGER_SHA256 = "3501bd01e8d817704b8af0bf60f4b85f5449f576c04a5399a4a2ebedb20ed75f"
LONGER = MNIST | {"weights": "ddpm/workstation/eps-simple", "weights_sha256": LONGER_SHA256}  # trained for longer
FEW = (10, 20, 50, 100)


def table(lengths: Sequence[int], *etas: float, larger: bool = False, **settings: Any) -> dict[str, Config]:
    """Cells of Table 1: one for each eta and each length of trajectory."""
    return {
        f"{'hat' if larger else f'eta{eta:g}'}-s{S}": Config(S=S, eta=float(eta), larger=larger, **settings)
        for eta, S in itertools.product(etas, lengths)
    }


def four_samplers(**settings: Any) -> dict[str, Config]:
    """DDIM, which also reconstructs, one between the two, DDPM, and hat-sigma."""
    some = {"samples": 600, **settings}
    ddim = table(FEW, 0, latents=50, reconstructions=100, **some) | table(FEW, 0.5, **some)
    return ddim | table(FEW, 1, latents=50, **some) | table(FEW, 1, larger=True, **some)


PRESETS: dict[str, dict[str, Config]] = {  # seconds, on the digits; minutes, on MNIST; the same; CIFAR10
    "smoke": table((10, 25), 0, reconstructions=50, latents=30, **DIGITS)
    | table((10,), 1, latents=30, **DIGITS)
    | table((10,), 1, larger=True, **DIGITS),
    "laptop": four_samplers(**MNIST)
    | table((1000,), 0, samples=300, **MNIST)  # fewer: these two take most of the time
    | table((1000,), 1, samples=300, larger=True, **MNIST),
    "workstation": four_samplers(**LONGER),
    "paper": table((*FEW, 200, 500, 1000), 0, reconstructions=10_000, latents=1000)
    | table((*FEW, 1000), 0.2, 0.5, 1, latents=1000)
    | table((*FEW, 1000), 1, larger=True),
}


# -- Probes ------------------------------------------------------------------------------------------------------------

WHOLE = Config()  # the process of T = 1000


def probe_sampler() -> probes.ProbeResult:
    """DDIM, of trajectories of 250, 500 and 1000 steps: Euler's method, of order 1."""

    def ddim(denoiser: Any, noise: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        return sample(denoiser, noise, trajectory(dataclasses.replace(WHOLE, spacing="linear"), steps))

    alpha_T = float(schedule(WHOLE)[-1])
    return probes.sampler(ddim, steps=250, order=1, sigma_max=math.sqrt((1 - alpha_T) / alpha_T))


def probe_schedule() -> probes.ProbeResult:
    """alpha, and x0_hat from what the network says (eq. 9)."""
    alpha = schedule(WHOLE)

    def to_x0(x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        said = [EpsilonDenoiser(lambda x, t, i=i: eps[i : i + 1], alpha[1:]) for i in range(len(t))]
        return torch.cat([predict(said[i], x_t[i : i + 1], float(alpha[t[i]]))[0] for i in range(len(t))])

    return probes.schedule(alpha[1:], to_x0={"eps": to_x0})


def probe_invariance() -> probes.ProbeResult:
    """The image of a latent does not depend on what else is in the batch."""
    config = Config(dataset="digits", base=8, multipliers=(1, 2), blocks=1)
    network, x_T = build(config).double().eval(), latents(config, 7).double()
    for p in network.parameters():
        nn.init.normal_(p, std=0.2, generator=torch.Generator().manual_seed(p.numel()))
    denoiser, alpha = denoiser_of(config, network), trajectory(config, 5)
    return probes.invariance(probes.per_example(lambda x: sample(denoiser, x, alpha).flatten(1).sum(1)), x_T)


PROBES = {
    "sampler": probe_sampler,
    "schedule": probe_schedule,
    "invariance": probe_invariance,
}
