"""Improved Training of Wasserstein GANs. Gulrajani, Ahmed, Arjovsky, Dumoulin & Courville, NeurIPS 2017.
https://arxiv.org/abs/1704.00028

A generator turns noise into samples, a critic tells them from data, and each learns from the other. If the critic is
1-Lipschitz, what it can make of the difference is the Wasserstein distance W(P_r, P_g), which does not go flat where
the two hardly overlap. Clipping the critic's weights keeps its slope bounded at the price of very simple critics; a
penalty holds the slope near 1 where it matters, on the lines between data and samples:

    GAN (eq. 1)       min_G max_D  E[log D(x)] + E[log(1 - D(x~))]                          Goodfellow et al. 2014
    WGAN (eq. 2)      min_G max_D  E[D(x)] - E[D(x~)],      every weight of D in [-c, c]    Arjovsky et al. 2017
    WGAN-GP (eq. 3)   L = E[D(x~)] - E[D(x)] + lambda E[(||grad_x^ D(x^)|| - 1)^2],      x^ = eps x + (1 - eps) x~

Read from top to bottom: configuration, data, networks, losses, training, evaluation, figures, presets.

Notation     here            shape          paper
             x               (B, ...)       x ~ P_r, data: points (B, 2), or images (B, 1, H, W) in [-1, 1]
             z               (B, Z)         z ~ p(z), noise
             x_fake          as x           x~ = G(z) ~ P_g
             eps             (B, 1, ...)    epsilon, one an example
             x_hat           as x           x^, between x and x~
             critic(x)       (B,)           D(x); for the GAN the logit of D(x)
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from common import plotting, probes
from common.data import Batch, Batches, load, toy
from common.data.centred import Centred
from common.data.points import Endless, Sampler, digest, swiss_roll
from common.errors import ConfigError
from common.evaluation.critics import Critic, critic_scores, layer_gradients, rank_correlation
from common.evaluation.features import Features, lenet, raw_pixels
from common.evaluation.frechet import frechet_distance, frechet_score, moments
from common.evaluation.modes import mode_scores
from common.evaluation.shards import Dealt, drawn
from common.experiment import Run
from common.records import Score, read_metrics
from common.training import State, fit, place, sgd_step

# Points in the plane, as the authors' gan_toy.py has them: each Gaussian's centres (K, 2) and deviation, for
# coordinates of deviation 1; and what draws them.
ANGLE, AXIS = torch.arange(8) * (math.pi / 4), torch.arange(-2.0, 3.0)
MIXTURES = {
    "ring8": (2**0.5 * torch.stack([ANGLE.cos(), ANGLE.sin()], 1), 0.02 / 2**0.5),
    "grid25": (torch.cartesian_prod(AXIS, AXIS) / 2**0.5, 0.05 / 8**0.5),
}
POINTS: dict[str, Sampler] = {name: toy.mixture(name, *each).sample for name, each in MIXTURES.items()}
POINTS["swiss_roll"] = swiss_roll

Loss = tuple[Tensor, dict[str, Tensor]]  # and what else is worth a line in the log


@dataclass(frozen=True)
class Config:
    """One run. The defaults are the paper's (Algorithm 1), and its authors' code's where the paper is silent."""

    dataset: Literal["ring8", "grid25", "swiss_roll", "mnist", "fashion_mnist", "digits"] = "mnist"
    method: Literal["gp", "clip", "gan"] = "gp"
    fixed_generator: bool = False  # P_g is P_r plus Gaussian noise and stays so (figure 1a); for points
    penalty: float = 10.0  # lambda
    c: float = 0.01  # weights are clipped to [-c, c]
    n_critic: int = 5  # updates of the critic for one of the generator
    optimizer: Literal["adam", "rmsprop"] = "adam"
    learning_rate: float = 1e-4  # alpha
    betas: tuple[float, float] = (0.0, 0.9)  # beta_1, beta_2
    batch_size: int = 64  # m
    steps: int = 200_000  # updates of the generator
    layers: int = 3  # hidden layers of both networks, for points
    width: int = 64  # units of each, for points; channels at half the size, for images
    latent: int = 128  # Z
    critic_batch_norm: bool = False  # for images; not with a gradient penalty
    log_every: int = 1000  # updates of the generator between looks at what it makes
    samples: int = 10_000  # drawn to be scored in the end
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("n_critic", "batch_size", "steps", "layers", "width", "latent", "log_every", "samples")
        for name in (*counts, "penalty", "c", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: it must be positive.")
        if self.method == "gp" and self.critic_batch_norm:  # section 4
            raise ConfigError("critic_batch_norm: a gradient penalty wants a critic that sees each example by itself.")
        if self.fixed_generator and self.dataset not in POINTS:
            raise ConfigError(f"fixed_generator is for points ({', '.join(POINTS)}), not for '{self.dataset}'.")


# -- Networks (the authors' gan_toy.py; for images a small DCGAN) ------------------------------------------------------


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with He's initialisation, ReLU between them."""
    network = nn.Sequential()
    for i in range(1, len(sizes)):
        network.extend([linear := nn.Linear(sizes[i - 1], sizes[i]), nn.ReLU()])
        nn.init.kaiming_uniform_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
    return network[:-1]


def image_generator(latent: int, width: int, side: int) -> nn.Sequential:
    """z (B, Z) -> images (B, 1, side, side) in [-1, 1]."""
    small = (2 * width, side // 4, side // 4)
    return nn.Sequential(
        *(nn.Linear(latent, math.prod(small), bias=False), nn.Unflatten(1, small)),
        *(nn.BatchNorm2d(2 * width), nn.ReLU()),
        nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False),
        *(nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1), nn.Tanh()),
    )


def image_critic(width: int, side: int, batch_norm: bool) -> nn.Sequential:
    """Images (B, 1, side, side) -> (B, 1)."""
    return nn.Sequential(
        *(nn.Conv2d(1, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)),
        nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
        *([nn.BatchNorm2d(2 * width)] if batch_norm else []),
        *(nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(2 * width * (side // 4) ** 2, 1)),
    )


class GAN(nn.Module):
    """G and D."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.latent, self.real = config.latent, POINTS.get(config.dataset)
        if self.real is None:
            side = 8 if config.dataset == "digits" else 28
            self.generator = image_generator(config.latent, config.width, side)
            self.network = image_critic(config.width, side, config.critic_batch_norm)
        else:
            hidden = [config.width] * config.layers
            self.generator = None if config.fixed_generator else mlp(config.latent, *hidden, 2)
            self.network = mlp(2, *hidden, 1)

    def critic(self, x: Tensor) -> Tensor:
        """D(x): (B, ...) -> (B,)."""
        return self.network(x).squeeze(1)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """n draws x~ = G(z) ~ P_g; of a fixed generator, data plus noise of variance 1."""
        device = next(self.parameters()).device
        if self.generator is None:
            return (self.real(n, generator) + torch.randn(n, 2, generator=generator)).to(device)
        return self.generator(torch.randn(n, self.latent, generator=generator, device=generator.device).to(device))


# -- Losses (eqs. 1 to 3) ----------------------------------------------------------------------------------------------


def gradient_penalty(critic: Critic, x: Tensor, x_fake: Tensor, generator: torch.Generator) -> Tensor:
    """E[(||grad_x^ D(x^)||_2 - 1)^2], of eq. (3): two-sided, one eps an example, the norm over all its values."""
    eps = torch.rand(len(x), *[1] * (x.dim() - 1), generator=generator, device=generator.device).to(x)
    x_hat = (eps * x + (1 - eps) * x_fake).detach().requires_grad_()
    # D(x^) of an example depends on that example alone, so row b of the sum's gradient is the gradient of example b.
    (gradient,) = torch.autograd.grad(critic(x_hat).sum(), x_hat, create_graph=True)
    # Not the root of a sum of squares: that has no derivative at 0, where a clipped or dead critic may be.
    return (torch.linalg.vector_norm(gradient.flatten(1), dim=1) - 1).square().mean()


def critic_loss(config: Config, critic: Critic, x: Tensor, x_fake: Tensor, generator: torch.Generator) -> Loss:
    """What D minimises; and the part of it that is a penalty."""
    if config.method == "gan":  # eq. (1), with log D = logsigmoid(logit) and log(1 - D) = logsigmoid(-logit)
        return -logsigmoid(critic(x)).mean() - logsigmoid(-critic(x_fake)).mean(), {}
    loss = critic(x_fake).mean() - critic(x).mean()  # eq. (2)
    if config.method == "gp":
        penalty = gradient_penalty(critic, x, x_fake, generator)
        return loss + config.penalty * penalty, {"penalty": penalty.detach()}
    return loss, {}


def generator_loss(config: Config, critic: Critic, x_fake: Tensor) -> Tensor:
    """What G minimises: -D(x~); in the GAN -log D(x~), whose gradient does not vanish while D wins."""
    return -logsigmoid(critic(x_fake)).mean() if config.method == "gan" else -critic(x_fake).mean()


# -- Training (Algorithm 1) --------------------------------------------------------------------------------------------


def optimizers(config: Config, model: GAN) -> dict[str, torch.optim.Optimizer]:
    """One for each player; a fixed generator has none."""
    players = {"critic": model.network, "generator": model.generator}
    weights = {name: list(network.parameters()) for name, network in players.items() if network is not None}
    if config.optimizer == "rmsprop":
        return {name: torch.optim.RMSprop(w, lr=config.learning_rate, alpha=0.9) for name, w in weights.items()}
    return {name: torch.optim.Adam(w, lr=config.learning_rate, betas=config.betas) for name, w in weights.items()}


def critic_step(config: Config, model: GAN, state: State, x: Tensor) -> dict[str, Tensor]:
    """Lines 3 to 9 of Algorithm 1, on m examples x; WGAN then clips. What made the samples gets no gradient."""

    def loss_fn(x: Tensor) -> Loss:
        with torch.no_grad():
            x_fake = model.sample(len(x), generator=state.generator)
        return critic_loss(config, model.critic, x, x_fake, state.generator)

    metrics = sgd_step(loss_fn, state.optimizers["critic"], x)
    if config.method == "clip":
        for w in model.network.parameters():
            w.data.clamp_(-config.c, config.c)
    return metrics


def generator_step(config: Config, model: GAN, state: State, x: Tensor) -> dict[str, Tensor]:
    """Lines 11 and 12, with as many samples as there are examples x. The critic gets no gradient."""

    def loss_fn(x: Tensor) -> Loss:
        return generator_loss(config, model.critic, model.sample(len(x), generator=state.generator)), {}

    return sgd_step(loss_fn, state.optimizers["generator"], x)


def update(config: Config, model: GAN, state: State, x: Tensor) -> dict[str, Tensor]:
    """Lines 2 to 12: n_critic steps of D, each on its own m of the examples x, then one of G."""
    for part in x.chunk(config.n_critic):
        metrics = critic_step(config, model, state, part)
    metrics["critic_loss"] = metrics.pop("loss")
    if model.generator is not None:
        metrics["generator_loss"] = generator_step(config, model, state, part)["loss"]
    return metrics


def build(config: Config) -> GAN:
    """The untrained networks, initialised from the configuration's seed."""
    torch.manual_seed(config.seed)
    return GAN(config)


def train(config: Config, run: Run) -> GAN:
    """Algorithm 1, with a look now and then: at the samples (images), or at the critic's gradients (points)."""
    model, size = place(build(config), run.device), config.n_critic * config.batch_size
    if points := config.dataset in POINTS:
        batches: Endless | Batches = Endless(POINTS[config.dataset], size, config.seed, run.device)
    else:
        data, features = run.uses(load(config.dataset)), features_of(config.dataset)
        batches = Batches(data.train, size, seed=config.seed, device=run.device)
        reference = moments(features, data.val.x)
    generator = torch.Generator("cpu" if points else run.device).manual_seed(config.seed)
    state = State(model, optimizers(config, model), generator)

    def step(state: State, batch: Batch) -> dict[str, Tensor]:
        return update(config, model, state, batch.x if points else Centred(data.levels).encode(batch.x)[0])

    def look(state: State) -> dict[str, float]:
        if state.step % config.log_every:
            return {}
        if points:
            norms = layer_gradients(model.network, *held_out(config, model, 256)).log10()
            return {f"log10_gradient_{layer:02}": each for layer, each in enumerate(norms.tolist(), start=1)}
        model.eval()
        found = moments(features, sample_codes(model, 2000, data.levels, config.seed))
        model.train()
        return {"fd_val": frechet_distance(found, reference)}

    fit(state, batches, step, steps=config.steps, run=run, log_every=config.log_every, hooks=[look])
    return model


# -- Evaluation: points (figure 1), then images (figures 3 and 5) ------------------------------------------------------


def held_out(config: Config, model: GAN, n: int) -> tuple[Tensor, Tensor]:
    """Data and samples, (n, 2) each: the same data in every run, and the same samples of a fixed generator."""
    generator = torch.Generator().manual_seed(10**6)
    x = POINTS[config.dataset](n, generator).to(next(model.parameters()).device)
    with torch.no_grad():
        return x, model.sample(n, generator=generator)


def evaluate_points(config: Config, model: GAN, run: Run) -> list[Score]:
    """What figure 1 shows, in numbers; of mixtures, which of their Gaussians a trained generator reaches."""
    x, x_fake = held_out(config, model, config.samples)
    run.data[config.dataset] = digest(x)
    scores, values = critic_scores(model.network, x, x_fake, dual=config.fixed_generator)
    if config.dataset in MIXTURES and not config.fixed_generator:
        modes, values["high_quality"] = mode_scores(x_fake, *MIXTURES[config.dataset])
        scores += modes
    run.examples |= values
    return scores


def features_of(dataset: str) -> Features:
    """What sees the images for the Fréchet distance: a LeNet of the same data, or for digits the pixels."""
    return raw_pixels((1, 8, 8), levels=17) if dataset == "digits" else lenet(dataset)


@torch.no_grad()
def sample_codes(model: GAN, n: int, levels: int, seed: int) -> Tensor:
    """n samples in codes like the data's, uint8 (n, 1, H, W) on the CPU; the same noise whenever it is asked for."""
    generator = torch.Generator().manual_seed(10**6 + seed)
    draws = [model.sample(min(500, n - done), generator=generator).cpu() for done in range(0, n, 500)]
    return Centred(levels).decode(torch.cat(draws))


def evaluate(config: Config, model: GAN, run: Run) -> list[Score]:
    """Fréchet distance from the test images; and whether D's loss told the samples' quality while G learned."""
    if config.dataset in POINTS:
        return evaluate_points(config, model, run)
    data, features = run.uses(load(config.dataset)), Dealt(features_of(config.dataset))

    def codes_of(n: int, generator: torch.Generator) -> Tensor:
        return Centred(data.levels).decode(model.sample(n, generator=generator)).cpu()

    codes = drawn(codes_of, config.samples, chunk=500, seed=10**6 + config.seed)
    resamples = torch.Generator().manual_seed(config.seed + 1)
    scores = [frechet_score(features, codes, data.test.x, split="test", generator=resamples)]
    looks = torch.tensor(
        [(-row["critic_loss"], row["fd_val"]) for row in read_metrics(run.directory) if "fd_val" in row]
    )
    if (n := len(looks)) > 3:
        rho, error = rank_correlation(*looks.T)
        rule = f"Spearman's, of the negative critic loss and fd[{features.name}] on val, {n} checkpoints"
        scores.append(Score("loss_quality", rho, error, n, "rank correlation", "estimate", "val", "raw", rule))
    return scores


def illustrate(config: Config, model: GAN, run: Run) -> None:
    """Sixty-four samples, uncurated; of points the value surface, the critic's weights, its gradients by layer."""
    path = run.directory / "samples.png"
    if config.dataset in POINTS:
        x, x_fake = held_out(config, model, 512)
        weights = torch.cat([w.flatten() for w in model.network.parameters() if w.dim() > 1])
        plotting.critic_picture(path, model.critic, x, x_fake, weights, layer_gradients(model.network, x, x_fake))
    else:
        levels = load(config.dataset).levels
        plotting.image_grid(sample_codes(model, 64, levels, config.seed + 1).float() / (levels - 1), path)


# -- Presets -----------------------------------------------------------------------------------------------------------

GP: dict[str, Any] = {}  # each method with the optimiser of its own paper
WGAN: dict[str, Any] = {"method": "clip", "optimizer": "rmsprop", "learning_rate": 5e-5}
DCGAN: dict[str, Any] = {"method": "gan", "n_critic": 1, "learning_rate": 2e-4, "betas": (0.5, 0.999)}
METHODS = {"gp": GP, "clip": WGAN, "gan": DCGAN}
NORM = {"critic_batch_norm": True}  # as WGAN and DCGAN have it
IMAGES = {"gp": GP, "gp-rmsprop": WGAN | {"method": "gp"}, "clip": WGAN | NORM, "gan": DCGAN | NORM}


def points(methods: dict[str, dict[str, Any]], only: tuple[str, ...] = ("",), **size: Any) -> dict[str, Config]:
    """Figure 1a, critics of a fixed generator; figure 1b, deep networks; and generators trained on the mixtures."""
    fixed, deep = {"fixed_generator": True}, {"dataset": "swiss_roll", "layers": 12}
    runs = {f"surface-{p}-{m}": methods[m] | fixed | {"dataset": p} for p in POINTS for m in ("gp", "clip")}
    runs |= {"deep-gp": methods["gp"] | deep}
    runs |= {f"deep-clip-{c}": methods["clip"] | deep | {"c": c} for c in (0.1, 0.01, 0.001)}
    runs |= {f"{p}-{m}": methods[m] | {"dataset": p} for p in MIXTURES for m in methods}
    return {name: Config(**each | size) for name, each in runs.items() if name.startswith(only)}


def images(dataset: str, **size: Any) -> dict[str, Config]:
    """Figure 3, on small images: the methods, and the penalty with the optimiser of clipping."""
    return {f"{dataset}-{name}": Config(dataset, **each | size) for name, each in IMAGES.items()}


FAST = {"learning_rate": 1e-3}
BRIEF: dict[str, Any] = {"width": 128, "batch_size": 128, "latent": 2, "log_every": 50}
QUICK = {"gp": GP | FAST, "clip": WGAN, "gan": DCGAN | FAST}

PRESETS: dict[str, dict[str, Config]] = {
    # Seconds: scikit-learn's 8x8 digits, and a glance at figure 1.
    "smoke": images("digits", **FAST, width=16, latent=16, steps=60, log_every=10, samples=500, batch_size=32)
    | points(QUICK, ("surface-ring8", "deep"), **BRIEF | {"width": 16, "steps": 50, "samples": 1000}),
    # Minutes: smaller networks, longer steps, a hundredth of the updates or less. The README says how they were chosen.
    "laptop": points(QUICK, **BRIEF, steps=1000)
    | images("mnist", **FAST, width=32, latent=64, batch_size=32, steps=1000, log_every=40),
    # As many updates as the authors' code makes.
    "paper": points(METHODS, width=512, batch_size=256, latent=2, steps=100_000)
    | images("mnist")
    | images("fashion_mnist"),
}


# -- Probes ------------------------------------------------------------------------------------------------------------

TINY = Config("digits", width=2, latent=3, batch_size=4, n_critic=2, steps=4, log_every=2)


def probe_gan() -> probes.ProbeResult:
    """The two steps of Algorithm 1, and the penalty of eq. (3)."""
    model = build(TINY)
    state = State(model, optimizers(TINY, model), torch.Generator().manual_seed(0))
    x = torch.rand(4, 1, 8, 8, generator=state.generator)
    steps = (lambda: critic_step(TINY, model, state, x), lambda: generator_step(TINY, model, state, x))
    return probes.gan(model.network, model.generator, *steps, penalty=gradient_penalty)


def probe_invariance() -> probes.ProbeResult:
    """What the critic says of an image depends on that image alone, in training too."""
    model = build(TINY).double().train()
    x = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return probes.invariance(probes.per_example(model.critic), x)


PROBES = {
    "gan": probe_gan,
    "quantise": lambda: probes.quantise(Centred(256)),
    "invariance": probe_invariance,
    "resume": lambda: probes.resume(lambda d: train(TINY, Run(d, torch.device("cpu"), {}, TINY.seed, progress=False))),
}
