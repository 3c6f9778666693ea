"""Auto-Encoding Variational Bayes. Kingma & Welling, ICLR 2014. https://arxiv.org/abs/1312.6114

A latent variable z explains each datapoint x through a decoder p(x|z) whose posterior p(z|x) is out of reach. The
paper trains an encoder q(z|x) together with the decoder by stochastic gradient ascent on one lower bound,

    log p(x)  >=  L(theta, phi; x)  =  -KL(q(z|x) || p(z)) + E_q[ log p(x|z) ]                                  (3)

made differentiable by writing z ~ q(z|x) as a function of the data and of noise, z = mu + sigma * eps (section 2.4).
The wake-sleep algorithm, which the paper compares with, trains the same two networks on two different objectives.

Notation     here            shape        paper
             x               (B, D)       x, a datapoint: D grey levels in [0, 1]
             z, eps          (L, B, J)    z and the noise epsilon it is made from; J is N_z in figure 2
             mean, log_var   (B, J)       mu and log sigma^2 of q(z|x), eq. (9)
             encoder         phi          the recognition model q(z|x)
             decoder         theta        the generative model p(x|z)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adagrad, Optimizer

from common import plotting, probes
from common.data import Batch, Batches, Data, Scale, load
from common.distributions import bernoulli_log_prob, normal_kl, normal_log_prob, standard_normal_log_prob
from common.errors import ConfigError
from common.evaluation.likelihood import log_mean_exp, mean_score
from common.evaluation.shards import by_batch
from common.experiment import Run
from common.records import Score
from common.training import State, fit, place, sgd_step

SHAPES = {"mnist": (28, 28), "frey_faces": (28, 20), "digits": (8, 8)}
TARGETS = {"bernoulli": "grey levels as Bernoulli targets", "gaussian": "density of grey levels scaled to [0, 1]"}


@dataclass(frozen=True)
class Config:
    """One run. The defaults are the paper's for MNIST (section 5)."""

    dataset: Literal["mnist", "frey_faces", "digits"] = "mnist"
    algorithm: Literal["aevb", "wake_sleep"] = "aevb"
    decoder: Literal["bernoulli", "gaussian"] = "bernoulli"  # p(x|z): appendix C.1 or C.2
    latents: int = 20  # N_z
    hidden: int = 500  # units of the one hidden layer of encoder and decoder
    samples: int = 100_000_000  # training examples evaluated: the horizontal axis of figure 2
    step_size: float = 0.02  # Adagrad's; of 0.01, 0.02 and 0.1 the best in the first 2,000 updates
    init_std: float = 0.1  # of every parameter; the paper's "N(0, 0.01)", read as a variance
    batch_size: int = 100  # M
    z_samples: int = 1  # L, samples of z per example in training
    estimator: Literal["a", "b"] = "b"  # eq. (6), or eq. (7) with the KL in closed form; aevb only
    eval_z_samples: int = 10  # L in the reported bound
    seed: int = 0

    def __post_init__(self) -> None:
        positive = ("latents", "hidden", "batch_size", "z_samples", "eval_z_samples", "step_size", "init_std")
        if wrong := [f"{name} = {getattr(self, name)}" for name in positive if not getattr(self, name) > 0]:
            raise ConfigError(f"{', '.join(wrong)}: must be above 0.")
        if self.samples < self.batch_size:
            raise ConfigError(f"samples = {self.samples}: less than one minibatch of {self.batch_size}.")


# -- Model (appendix C: one hidden layer of tanh units) ---------------------------------------------------------------


class BernoulliMLP(nn.Module):
    """Appendix C.1: p(x|z) a factorised Bernoulli whose probabilities are y = sigmoid(W2 tanh(W1 z + b1) + b2).

    Grey levels are its targets as they are, as in the paper: the cross-entropy is then not the log of a density.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.hidden, self.logits = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)

    def forward(self, z: Tensor) -> Tensor:
        return self.logits(torch.tanh(self.hidden(z)))

    def log_prob(self, x: Tensor, given: Tensor) -> Tensor:
        """Eq. (11), summed over the pixels: (..., B) nats."""
        return bernoulli_log_prob(x, self(given))

    def expected(self, z: Tensor) -> Tensor:
        """E[x|z], (..., D)."""
        return torch.sigmoid(self(z))

    def sample(self, z: Tensor, generator: torch.Generator) -> Tensor:
        return torch.bernoulli(self.expected(z), generator=generator)


class GaussianMLP(nn.Module):
    """Appendix C.2: N(mean, diag exp(log_var)), both linear in tanh(W3 z + b3). In the encoder x and z change places.

    unit_mean: a sigmoid puts the means into (0, 1), as in the decoder for Frey faces (section 5).
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, unit_mean: bool = False) -> None:
        super().__init__()
        self.hidden, self.unit_mean = nn.Linear(inputs, hidden), unit_mean
        self.mean, self.log_var = nn.Linear(hidden, outputs), nn.Linear(hidden, outputs)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.hidden(z))
        return torch.sigmoid(self.mean(h)) if self.unit_mean else self.mean(h), self.log_var(h)

    def log_prob(self, x: Tensor, given: Tensor) -> Tensor:
        """Eq. (12), summed over the dimensions: (..., B) nats."""
        return normal_log_prob(x, *self(given))

    def expected(self, z: Tensor) -> Tensor:
        return self(z)[0]

    def sample(self, z: Tensor, generator: torch.Generator) -> Tensor:
        mean, log_var = self(z)
        return mean + torch.exp(0.5 * log_var) * normal(mean.shape, generator)


class VAE(nn.Module):
    """p(z) = N(0, I), p(x|z) the decoder, q(z|x) the encoder; x and z as vectors."""

    def __init__(self, config: Config, dims: int) -> None:
        super().__init__()
        self.latents = config.latents
        self.encoder = GaussianMLP(dims, config.hidden, config.latents)
        self.decoder: BernoulliMLP | GaussianMLP
        if config.decoder == "bernoulli":
            self.decoder = BernoulliMLP(config.latents, config.hidden, dims)
        else:
            self.decoder = GaussianMLP(config.latents, config.hidden, dims, unit_mean=True)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=config.init_std)

    def log_joint(self, x_BD: Tensor, z: Tensor) -> Tensor:
        """log p(x, z), z (..., B, J) -> (..., B) nats."""
        return standard_normal_log_prob(z) + self.decoder.log_prob(x_BD, z)

    def elbo(self, x_BD: Tensor, *, z_samples: int = 1, generator: torch.Generator) -> Tensor:
        """The lower bound by estimator B, one draw of it: (B,) nats."""
        return estimator_b(self, x_BD, normal((z_samples, len(x_BD), self.latents), generator))

    @torch.no_grad()
    def dream(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """n draws of the pair (x, z) from p(x, z): (n, D), (n, J)."""
        z_BJ = normal((n, self.latents), generator)
        return self.decoder.sample(z_BJ, generator), z_BJ

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """E[x|z] for n draws z ~ p(z): (n, D) in [0, 1]."""
        return self.decoder.expected(normal((n, self.latents), generator))


def normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Standard normal noise, on the generator's device."""
    return torch.randn(tuple(shape), generator=generator, device=generator.device)


# -- The SGVB estimators (section 2.3): functions of the datapoint and of the noise -----------------------------------


def reparameterise(mean: Tensor, log_var: Tensor, eps: Tensor) -> Tensor:
    """z = g_phi(eps, x) = mu + sigma * eps, eq. (4) and section 2.4: the gradient passes through the sample."""
    return mean + torch.exp(0.5 * log_var) * eps


def log_weights(model: VAE, x_BD: Tensor, eps_LBJ: Tensor) -> Tensor:
    """log p(x, z) - log q(z|x), (L, B) nats."""
    mean, log_var = model.encoder(x_BD)
    z_LBJ = reparameterise(mean, log_var, eps_LBJ)
    return model.log_joint(x_BD, z_LBJ) - normal_log_prob(z_LBJ, mean, log_var)


def estimator_a(model: VAE, x_BD: Tensor, eps_LBJ: Tensor) -> Tensor:
    """Eq. (6): everything is sampled, so it asks nothing of q and the prior; (B,) nats."""
    return log_weights(model, x_BD, eps_LBJ).mean(0)


def estimator_b(model: VAE, x_BD: Tensor, eps_LBJ: Tensor) -> Tensor:
    """Eq. (7), for a Gaussian q eq. (10): the KL in closed form (appendix B), only log p(x|z) sampled; (B,) nats."""
    mean, log_var = model.encoder(x_BD)
    log_p = model.decoder.log_prob(x_BD, reparameterise(mean, log_var, eps_LBJ))
    return log_p.mean(0) - normal_kl(mean, log_var)


# -- The two algorithms (section 5): what each minimises, and over which parameters -----------------------------------

Loss = tuple[Tensor, dict[str, Tensor]]


def negative_bound(model: VAE, x_BD: Tensor, config: Config, generator: torch.Generator) -> Loss:
    """AEVB, algorithm 1: one objective for theta and phi."""
    estimator = estimator_a if config.estimator == "a" else estimator_b
    bound = estimator(model, x_BD, normal((config.z_samples, len(x_BD), model.latents), generator)).mean()
    return -bound, {"bound": bound.detach()}


def wake_loss(model: VAE, x_BD: Tensor, config: Config, generator: torch.Generator) -> Loss:
    """Wake: explain the data by what the recognition model sees in them, -E_q[log p(x|z)]. Its step is for theta."""
    with torch.no_grad():
        mean, log_var = model.encoder(x_BD)
        z_LBJ = reparameterise(mean, log_var, normal((config.z_samples, *mean.shape), generator))
    log_p = model.decoder.log_prob(x_BD, z_LBJ).mean()
    return -log_p, {"bound": log_p.detach() - normal_kl(mean, log_var).mean()}  # the bound only to be drawn


def sleep_loss(model: VAE, dream: tuple[Tensor, Tensor]) -> Loss:
    """Sleep: recognise the causes of a dream (x, z) ~ p(x, z), -log q(z|x). Its step is for phi."""
    x_BD, z_BJ = dream
    return -model.encoder.log_prob(z_BJ, given=x_BD).mean(), {}


def optimizers(model: VAE, config: Config, examples: int) -> dict[str, Optimizer]:
    """One Adagrad over theta and phi for AEVB, one over each for wake-sleep.

    MAP, section 5: the objective is sum_i L(x_i) + log N(theta; 0, I). Here it is divided by the number of examples N,
    which Adagrad's steps do not feel, and so the prior is a weight decay of 1 / N on theta.
    """
    theta = {"params": list(model.decoder.parameters()), "weight_decay": 1 / examples}
    phi = {"params": list(model.encoder.parameters())}
    owners = {"aevb": [theta, phi]} if config.algorithm == "aevb" else {"wake": [theta], "sleep": [phi]}
    fused = not next(model.parameters()).is_mps  # there is no fused Adagrad on that device
    return {name: Adagrad(groups, lr=config.step_size, fused=fused) for name, groups in owners.items()}


# -- Training ---------------------------------------------------------------------------------------------------------


def grey(data: Data, images: Tensor) -> Tensor:
    """Images of a data set as x in [0, 1], (B, D)."""
    return Scale(data.levels).encode(images.flatten(1))[0]


def build(config: Config) -> VAE:
    """The untrained model, initialised from the configuration's seed."""
    torch.manual_seed(config.seed)
    return VAE(config, dims=math.prod(SHAPES[config.dataset]))


def train(config: Config, run: Run) -> VAE:
    """Train on all that is not test, by AEVB or wake-sleep, until `samples` examples were evaluated."""
    data = run.uses(load(config.dataset))
    model = build(config)
    place(model, run.device)
    batches = Batches(data.trainval, config.batch_size, seed=config.seed, device=run.device)
    adagrad = optimizers(model, config, examples=len(data.trainval))
    state = State(model, adagrad, torch.Generator(run.device).manual_seed(config.seed))

    def step(state: State, batch: Batch) -> dict[str, Tensor]:
        x_BD, noise = grey(data, batch.x), state.generator
        if config.algorithm == "aevb":
            return sgd_step(lambda x: negative_bound(model, x, config, noise), adagrad["aevb"], x_BD)
        wake = sgd_step(lambda x: wake_loss(model, x, config, noise), adagrad["wake"], x_BD)
        sleep = sgd_step(lambda dream: sleep_loss(model, dream), adagrad["sleep"], model.dream(len(x_BD), noise))
        return {**wake, "sleep_loss": sleep["loss"]}

    steps, x_test = config.samples // config.batch_size, grey(data, data.test.x.to(run.device))
    due = {round(10 ** (j / 4) / config.batch_size) for j in range(16, 33)} | {steps}  # even on figure 2's axis

    def test_curve(state: State) -> dict[str, float] | None:  # to be drawn; nothing is ever chosen by it
        return {"test_bound": float(bounds(model, x_test, 1, config.seed + 3).mean())} if state.step in due else None

    fit(state, batches, step, steps=steps, run=run, log_every=max(1, steps // 400), hooks=[test_curve])
    return model


# -- Evaluation (the average lower bound per datapoint, figure 2) -----------------------------------------------------


def bounds(model: VAE, x_ND: Tensor, z_samples: int, seed: int) -> Tensor:
    """The lower bound of each example: (N,) nats, float64, on the CPU."""

    def bound(x_BD: Tensor, generator: torch.Generator) -> Tensor:
        return model.elbo(x_BD, z_samples=z_samples, generator=generator).double().cpu()

    return by_batch(bound, x_ND, batch_size=max(1, 1000 // z_samples), seed=seed)


def evaluate(config: Config, model: VAE, run: Run) -> list[Score]:
    """The lower bound on the whole test set, and on as many training examples, in nats per example."""
    data = run.uses(load(config.dataset))
    n = min(len(data.test), len(data.train))
    scores = []
    for name, split, images in (("elbo", "test", data.test.x), ("elbo_train", "train", data.train.x[:n])):
        elbo = bounds(model, grey(data, images.to(run.device)), config.eval_z_samples, config.seed + 1)
        run.examples[name] = elbo
        protocol = f"{data.name}, {TARGETS[config.decoder]}, L={config.eval_z_samples}, {len(elbo)} {split} examples"
        scores.append(mean_score(elbo, name, unit="nats", kind="bound", split=split, protocol=protocol))
    return scores


# -- Figures ----------------------------------------------------------------------------------------------------------


def manifold_codes(side: int) -> Tensor:
    """Figure 4's z: a grid even in probability, by the inverse CDF of p(z); z_2 grows to the right, (side^2, 2)."""
    z = torch.special.ndtri((torch.arange(side) + 0.5) / side)
    return torch.cartesian_prod(z, z)


@torch.no_grad()
def illustrate(config: Config, model: VAE, run: Run) -> None:
    """Sixty-four means of p(x|z) for z ~ p(z), uncurated; with two latents, the learned manifold of figure 4 too."""
    generator = torch.Generator(run.device).manual_seed(config.seed + 2)
    shape = (-1, *SHAPES[config.dataset])
    plotting.image_grid(model.sample(64, generator=generator).view(shape), run.directory / "samples.png")
    if config.latents == 2:
        x = model.decoder.expected(manifold_codes(20).to(run.device))
        plotting.image_grid(x.view(shape), run.directory / "manifold.png", columns=20)


# -- Presets ----------------------------------------------------------------------------------------------------------

Runs = dict[str, Config]

DIGITS = {"dataset": "digits", "hidden": 100}
MNIST = {"dataset": "mnist"}
FREY = {"dataset": "frey_faces", "hidden": 200, "decoder": "gaussian", "step_size": 0.01}


def curves(name: str, data: dict[str, Any], samples: int, aevb: Sequence[int], wake_sleep: Sequence[int]) -> Runs:
    """Curves of figure 2: a run for each number of latents, by either algorithm."""
    settings = {"samples": samples, **data}
    ours = {f"{name}-nz{n}": Config(latents=n, **settings) for n in aevb}
    return ours | {f"{name}-nz{n}-ws": Config(latents=n, algorithm="wake_sleep", **settings) for n in wake_sleep}


PRESETS: dict[str, Runs] = {
    # Seconds: the 8x8 digits that scikit-learn carries.
    "smoke": curves("digits", DIGITS, 200_000, (2, 10), (10,)),
    # Minutes: ten passes over MNIST for figure 2, more for the manifold of figure 4; a million faces.
    "laptop": curves("mnist", MNIST, 600_000, (3, 5, 10, 20), (10,))
    | curves("mnist", MNIST, 2_000_000, (2,), ())
    | curves("frey", FREY, 1_000_000, (2, 10), (10,)),
    # An hour: five million examples, a twentieth of the paper's.
    "workstation": curves("mnist", MNIST, 5_000_000, (2, 3, 5, 10, 20, 200), (3, 10, 20))
    | curves("frey", FREY, 5_000_000, (2, 5, 10, 20), (2, 10, 20)),
    # Figure 2 whole, 10^8 examples a run, and the manifolds of figure 4.
    "paper": curves("mnist", MNIST, 100_000_000, (2, 3, 5, 10, 20, 200), (3, 5, 10, 20, 200))
    | curves("frey", FREY, 100_000_000, (2, 5, 10, 20), (2, 5, 10, 20)),
}


# -- Probes: with one or two latents log p(x) is an integral that quadrature can do -----------------------------------


def log_prob_by_quadrature(model: VAE, x_BD: Tensor) -> Tensor:
    """log p(x) of a model with one or two latents: (B,) nats."""

    def log_joint(x_BD: Tensor, z_MJ: Tensor) -> Tensor:
        return model.log_joint(x_BD, z_MJ[:, None].expand(-1, len(x_BD), -1))

    return probes.log_marginal(log_joint, x_BD, latents=model.latents)


BITS = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)  # all eight images of three bits


def tiny(latents: int, dims: int, decoder: Literal["bernoulli", "gaussian"] = "bernoulli") -> VAE:
    """An untrained model in float64 with weights far from zero, so that its bound is visibly loose."""
    torch.manual_seed(0)
    return VAE(Config(latents=latents, hidden=5, decoder=decoder, init_std=0.6), dims).double()


def probe_bound() -> probes.ProbeResult:
    """The bound is below log p(x), and both estimators are the bound."""
    model = tiny(2, dims=3)

    def log_w(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
        return log_weights(model, x, normal((k, len(x), model.latents), generator))

    log_p, elbo = partial(log_prob_by_quadrature, model), lambda x, generator: model.elbo(x, generator=generator)
    return probes.bound(lambda *a: log_mean_exp(log_w(*a), 0), log_p, BITS, elbo=elbo, log_weights=log_w)


def probe_invariance() -> probes.ProbeResult:
    """The noise of the reparameterisation belongs to the example, so it is put beside it."""
    model, noise = tiny(2, dims=3), normal((8, 2), torch.Generator().manual_seed(0))
    score = probes.batch_mean(lambda both: -estimator_b(model, both[:, :3], both[None, :, 3:]).mean())
    return probes.invariance(score, torch.cat([BITS, noise], 1))


def probe_resume() -> probes.ProbeResult:
    """A few wake-sleep updates of both optimisers, stopped and killed on the way."""
    config = Config(dataset="digits", algorithm="wake_sleep", latents=2, hidden=8, samples=800)
    cpu = torch.device("cpu")
    return probes.resume(lambda directory: train(config, Run(directory, cpu, {}, config.seed, progress=False)))


PROBES = {
    "bound": probe_bound,
    "normalisation": lambda: probes.normalisation(partial(log_prob_by_quadrature, tiny(1, 3)), shape=(3,), levels=2),
    "density": lambda: probes.density(partial(log_prob_by_quadrature, tiny(1, 1, "gaussian")), dims=1, extent=12.0),
    "quantise": lambda: probes.quantise(Scale(256)),
    "invariance": probe_invariance,
    "resume": probe_resume,
}
