"""Importance Weighted Autoencoders. Burda, Grosse & Salakhutdinov, ICLR 2016. https://arxiv.org/abs/1509.00519

A variational autoencoder bounds log p(x) by averaging k log importance weights. Averaging the weights first, and
taking the logarithm after, gives a bound that is never looser and tightens with k (Theorem 1):

    L_VAE = E[ 1/k sum_i log w_i ]  <=  L_k = E[ log 1/k sum_i w_i ]  <=  log p(x),     w_i = p(x, h_i) / q(h_i | x)

Read from top to bottom: configuration, model, objectives, training, evaluation, figures, presets.

Notation     here            shape        paper
             x               (B, 784)     x, a binary image
             h_1, h_2        (k, B, H)    h^1, h^2, stochastic layers from the bottom up
             log_w           (k, B)       log w_i, the log importance weights
             recognition                  q(h | x)
             generation                   p(x | h)
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from common import plotting, probes
from common.data import Batches, Binarise, Data, Split, load
from common.distributions import bernoulli_log_prob, normal_log_prob, standard_normal_log_prob
from common.errors import ConfigError
from common.evaluation.likelihood import importance_log_likelihood, log_mean_exp, mean_score
from common.evaluation.shards import by_batch
from common.experiment import Run
from common.records import Score
from common.training import State, fit, place, sgd_step


@dataclass(frozen=True)
class Config:
    """One run. The defaults are the paper's (section 5.1 and appendix C)."""

    dataset: Literal["dynamic_mnist", "binarized_mnist", "omniglot", "digits"] = "dynamic_mnist"
    objective: Literal["vae", "iwae"] = "iwae"  # which bound is maximised
    k: int = 50  # samples of h per example
    stochastic: tuple[int, ...] = (50,)  # units of each stochastic layer, from the bottom up: (50,) or (100, 50)
    hidden: tuple[int, ...] = (200,)  # units of the two tanh layers before each stochastic one: (200,) or (200, 100)
    passes: tuple[int, ...] = (1, 3, 9, 27, 81, 243, 729, 2187)  # over the data, in each stage of the schedule
    learning_rate: float = 1e-3  # of the first stage; stage i has 10^(-i/7) of it
    batch_size: int = 20
    adam_epsilon: float = 1e-4
    eval_k: int = 5000  # samples per example of the reported bound
    eval_examples: int = 10_000  # evaluate the first so many test examples
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("k", "eval_k"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: a bound needs at least one sample ({name} >= 1).")
        if self.objective not in ("vae", "iwae"):
            raise ConfigError(f"objective = '{self.objective}': it is 'vae' or 'iwae'.")
        if len(self.stochastic) != len(self.hidden) or not self.stochastic:
            raise ConfigError(
                f"stochastic = {self.stochastic} and hidden = {self.hidden} must name the same number of layers, "
                "at least one."
            )
        for name in ("passes", "batch_size", "eval_examples", "stochastic", "hidden", "learning_rate", "adam_epsilon"):
            value = getattr(self, name)
            numbers = value if isinstance(value, Sequence) else (value,)
            if not numbers or min(numbers) <= 0:
                raise ConfigError(f"{name} = {value}: it must be positive.")


# -- Model (section 5.1 and appendix C) -------------------------------------------------------------------------------


def tanh_layers(inputs: int, hidden: int) -> nn.Sequential:
    """The two deterministic layers before each set of stochastic units."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())


def normal_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of x's shape, type and device."""
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


class Gaussian(nn.Module):
    """A stochastic layer: a diagonal Gaussian whose mean and log-variance a small network gives."""

    def __init__(self, inputs: int, hidden: int, units: int) -> None:
        super().__init__()
        self.body = tanh_layers(inputs, hidden)
        self.mean = nn.Linear(hidden, units)
        self.log_var = nn.Linear(hidden, units)  # "an exp nonlinearity was applied to the predicted variances"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.body(x)
        return self.mean(y), self.log_var(y)


class IWAE(nn.Module):
    """q(h|x) and p(x, h) with one or more stochastic layers; images as vectors of D bits."""

    def __init__(self, config: Config, dims: int) -> None:
        super().__init__()
        sizes, hidden = config.stochastic, config.hidden
        below = (dims, *sizes[:-1])
        self.recognition = nn.ModuleList(Gaussian(b, n, s) for b, n, s in zip(below, hidden, sizes, strict=True))
        self.generation = nn.ModuleList(  # p(h_l | h_{l+1}), from the bottom up
            Gaussian(above, n, b) for above, n, b in zip(sizes[1:], hidden[1:], sizes[:-1], strict=True)
        )
        self.pixels = nn.Sequential(tanh_layers(sizes[0], hidden[0]), nn.Linear(hidden[0], dims))  # logits of p(x|h_1)
        for module in self.modules():
            if isinstance(module, nn.Linear):  # the heuristic of Glorot & Bengio (2010), section 5.1
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    @torch.no_grad()
    def init_output_bias(self, mean_D: Tensor) -> None:
        """Let the pixels' biases give the training set's mean image, (D,) in [0, 1], as the authors' code does."""
        mean_D = mean_D.clamp(0.001, 0.999)
        self.pixels[-1].bias.copy_(torch.log(mean_D) - torch.log1p(-mean_D))

    def log_weights(self, x_BD: Tensor, k: int, generator: torch.Generator) -> Tensor:
        """log w_i = log p(x, h_i) - log q(h_i | x) for k samples of h, reparameterised (eq. 4): (k, B) nats."""
        log_q: Tensor | float = 0.0
        hs: list[Tensor] = []
        below = x_BD
        for layer in self.recognition:
            mean, log_var = layer(below)  # (B, H) in the first layer, (k, B, H) above it
            eps_KBH = normal_like(mean.expand(k, *mean.shape[-2:]), generator)
            h_KBH = mean + torch.exp(0.5 * log_var) * eps_KBH
            log_q = log_q + standard_normal_log_prob(eps_KBH) - 0.5 * log_var.sum(-1)
            hs.append(h_KBH)
            below = h_KBH
        return self.log_joint(x_BD, hs) - log_q

    def log_joint(self, x_BD: Tensor, hs: list[Tensor]) -> Tensor:
        """log p(x, h) = log p(h_L) + sum_l log p(h_l | h_{l+1}) + log p(x | h_1): (k, B) nats."""
        log_p = standard_normal_log_prob(hs[-1])
        for layer, h_below, h_above in zip(self.generation, hs[:-1], hs[1:], strict=True):
            log_p = log_p + normal_log_prob(h_below, *layer(h_above))
        return log_p + bernoulli_log_prob(x_BD, self.pixels(hs[0]))

    def elbo(self, x_BD: Tensor, *, k: int = 1, generator: torch.Generator) -> Tensor:
        """L_k, eq. (8), one draw of it: (B,) nats. With k = 1 it is the VAE's bound."""
        return log_mean_exp(self.log_weights(x_BD, k, generator), 0)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """p(x = 1 | h) for n draws h ~ p(h), from the top down: (n, D) probabilities."""
        top = self.recognition[-1].mean  # gives the top layer's size, type and device
        h = normal_like(top.bias.expand(n, -1), generator)
        for layer in reversed(self.generation):
            mean, log_var = layer(h)
            h = mean + torch.exp(0.5 * log_var) * normal_like(mean, generator)
        return torch.sigmoid(self.pixels(h))

    @torch.no_grad()
    def posterior_means(self, x_BD: Tensor, *, generator: torch.Generator) -> list[Tensor]:
        """E[h_l | x] under q of each stochastic layer, a list of (B, H): exact in the first, above it by 100 draws."""
        draws = 1 if len(self.recognition) == 1 else 100
        means: list[Tensor | float] = [0.0] * len(self.recognition)
        for _ in range(draws):
            below = x_BD
            for i, layer in enumerate(self.recognition):
                mean, log_var = layer(below)
                means[i] = means[i] + mean / draws
                below = mean + torch.exp(0.5 * log_var) * normal_like(mean, generator)
        return means


# -- Objectives -------------------------------------------------------------------------------------------------------


def objective(log_w_KB: Tensor, which: Literal["vae", "iwae"]) -> Tensor:
    """The bound that is maximised, per example: (k, B) -> (B,) nats.

    Differentiating the IWAE bound weighs each sample's gradient by w_i / sum_j w_j, eqs. (13) and
    (14); autograd finds that from the value, so what is reported and what is followed are the same thing.
    """
    return log_w_KB.mean(0) if which == "vae" else log_mean_exp(log_w_KB, 0)


# -- Training (section 5.1: Adam, minibatches of 20, 3^i passes at 1e-3 * 10^(-i/7)) ----------------------------------


def learning_rate(config: Config, epoch: int) -> float:
    """Of a pass over the data, the first being 0: that of the first stage, times 10^(-i/7) in stage i."""
    stage = sum(epoch >= end for end in itertools.accumulate(config.passes))
    return config.learning_rate * 10 ** (-stage / 7)


def training_split(data: Data) -> Split:
    """All that is not test; but of the fixed binarisation the first 50,000 images only, as in appendix D."""
    return data.train if data.name == "binarized_mnist" else data.trainval


def build(config: Config) -> IWAE:
    """The untrained model, initialised from the configuration's seed."""
    torch.manual_seed(config.seed)
    return IWAE(config, dims={"digits": 64}.get(config.dataset, 784))


def train(config: Config, run: Run) -> IWAE:
    """Maximise the bound."""
    data = run.uses(load(config.dataset))
    split, binarise = training_split(data), Binarise(data.levels)
    model = build(config)
    model.init_output_bias(split.x.flatten(1).double().mean(0).div(data.levels - 1).float())
    place(model, run.device)
    adam = torch.optim.Adam(model.parameters(), betas=(0.9, 0.999), eps=config.adam_epsilon, fused=True)
    batches = Batches(split, config.batch_size, seed=config.seed, device=run.device)
    state = State(model, {"adam": adam}, torch.Generator(run.device).manual_seed(config.seed))

    def step(state: State, batch: Tensor) -> dict[str, Tensor]:
        adam.param_groups[0]["lr"] = learning_rate(config, batches.epoch(state.step))
        x_BD, _ = binarise.encode(batch.x.flatten(1), state.generator)  # grey levels are sampled anew in every pass

        def loss_fn(x_BD: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            bound = objective(model.log_weights(x_BD, config.k, state.generator), config.objective).mean()
            return -bound, {"bound": bound.detach()}

        return sgd_step(loss_fn, adam, x_BD)

    fit(state, batches, step, steps=sum(config.passes) * len(batches), run=run, log_every=max(1, len(batches) // 10))
    return model


# -- Evaluation (section 5.1: the test NLL by L_5000; active units) ----------------------------------------------------


def active_units(means: list[Tensor]) -> list[int]:
    """Units u with A_u = Cov_x(E[u | x]) > 0.01 (section 5.2), one count a layer; from their E[u | x], (B, H) each."""
    return [int((mean.double().var(0) > 1e-2).sum()) for mean in means]


def active_units_stderr(means: list[Tensor], generator: torch.Generator, resamples: int = 100) -> tuple[float, ...]:
    """Standard errors of the count in all and in each layer: the deviation over bootstrap resamples of examples."""
    drawn = []
    for _ in range(resamples):
        chosen = torch.randint(len(means[0]), (len(means[0]),), generator=generator).to(means[0].device)
        drawn.append(active_units([mean[chosen] for mean in means]))
    counts = torch.tensor(drawn, dtype=torch.float64)
    return float(counts.sum(1).std()), *counts.std(0).tolist()


def evaluate(config: Config, model: IWAE, run: Run) -> list[Score]:
    """Test NLL by L_{eval_k} in nats per example, and the number of active units, in all and in each layer."""
    data = run.uses(load(config.dataset))
    # Grey test sets are binarised by a generator of their own: every run of every seed is scored on the same bits.
    x, _ = Binarise(data.levels).encode(data.test.x.flatten(1), torch.Generator().manual_seed(0))
    x = x[: config.eval_examples].to(run.device)

    def log_likelihood(x_BD: Tensor, generator: torch.Generator) -> Tensor:
        return importance_log_likelihood(model.log_weights, x_BD, k=config.eval_k, generator=generator)

    def posterior_means(x_BD: Tensor, generator: torch.Generator) -> Tensor:
        return torch.cat(model.posterior_means(x_BD, generator=generator), 1)

    progress = "evaluate" if run.progress else ""
    log_p = by_batch(log_likelihood, x, batch_size=100, seed=config.seed + 1, progress=progress)
    run.examples["nll"] = -log_p
    which = {"dynamic_mnist": "dynamically binarised MNIST", "binarized_mnist": "static binarised MNIST"}
    protocol = f"{which.get(config.dataset, config.dataset)}, L_{config.eval_k}, {len(x)} test examples"
    nll = mean_score(-log_p, "nll", unit="nats", kind="bound", split="test", protocol=protocol)
    means = list(by_batch(posterior_means, x, batch_size=100, seed=config.seed + 2).split(config.stochastic, 1))
    counts = active_units(means)
    rule = f"Cov_x(E[u]) > 0.01, {len(x)} test examples"
    if len(counts) == 1:  # of these examples the count is known exactly
        return [nll, Score("active_units", counts[0], None, len(x), "units", "exact", "test", "raw", rule)]
    errors = active_units_stderr(means, torch.Generator().manual_seed(config.seed))
    names = ("active_units", *(f"active_units_{i}" for i in range(1, len(counts) + 1)))
    return [nll] + [
        Score(name, count, error, len(x), "units", "estimate", "test", "raw", rule)
        for name, count, error in zip(names, (sum(counts), *counts), errors, strict=True)
    ]


def illustrate(config: Config, model: IWAE, run: Run) -> None:
    """Sixty-four samples of p(x), uncurated: the first that the seed gives."""
    generator = torch.Generator(run.device).manual_seed(config.seed + 2)
    probabilities = model.sample(64, generator=generator)
    side = math.isqrt(probabilities.shape[1])
    plotting.image_grid(probabilities.view(-1, side, side), run.directory / "samples.png")


# -- Presets ----------------------------------------------------------------------------------------------------------


def table(prefix: str = "", **settings: Any) -> dict[str, Config]:
    """The cells of the paper's Table 1, by name: objective, stochastic layers, k. At k = 1 the two objectives agree."""
    runs = {}
    for layers, shape in (("1l", {}), ("2l", {"stochastic": (100, 50), "hidden": (200, 100)})):
        for which, k in (("vae", 1), ("vae", 5), ("iwae", 5), ("vae", 50), ("iwae", 50)):
            runs[f"{prefix}{which}-{layers}-k{k}"] = Config(objective=which, k=k, **shape, **settings)
    return runs


def pick(runs: dict[str, Config], *names: str) -> dict[str, Config]:
    """Some runs of a table."""
    return {name: runs[name] for name in names}


ONE_LAYER = ("vae-1l-k1", "iwae-1l-k5", "iwae-1l-k50")
ORDERINGS = (*ONE_LAYER, "vae-1l-k5", "iwae-2l-k5")  # the cheapest cells that show what the paper orders
BRIEF = {"batch_size": 50, "learning_rate": 2e-3}  # the paper's minibatches of 20 at 1e-3 want many more passes

PRESETS: dict[str, dict[str, Config]] = {
    # Seconds: the 8x8 digits that scikit-learn carries.
    "smoke": pick(table(dataset="digits", **BRIEF, passes=(3,) * 8, eval_k=200, eval_examples=200), *ONE_LAYER),
    # Minutes: all eight stages, each a single pass, in larger batches; L_1000 on the first 2,500 test images, which
    # costs what L_5000 costs on 500, and tells runs apart twice as well.
    "laptop": pick(table(**BRIEF, passes=(1,) * 8, eval_k=1000, eval_examples=2500), *ORDERINGS),
    # Half an hour: three times as many passes, L_5000 on the whole test set.
    "workstation": pick(table(**BRIEF, passes=(3,) * 8), *ORDERINGS, "vae-2l-k1"),
    # The paper: Table 1 on MNIST and Omniglot, and appendix D on MNIST in its fixed binarisation.
    "paper": {
        **table(),
        **table(prefix="omniglot-", dataset="omniglot"),
        **table(prefix="static-", dataset="binarized_mnist"),
    },
}


# -- Probes: on three bits and two latent units in all, where log p(x) is an integral that quadrature can do -----------


def log_prob_by_quadrature(model: IWAE, x_BD: Tensor) -> Tensor:
    """log p(x) of a model with two latent units in all: (B,) nats."""
    units = [layer.mean.out_features for layer in model.recognition]

    def log_joint(x_BD: Tensor, h_MH: Tensor) -> Tensor:
        hs = [h[:, None].expand(-1, len(x_BD), -1) for h in h_MH.split(units, dim=1)]
        return model.log_joint(x_BD, hs)

    return probes.log_marginal(log_joint, x_BD, latents=sum(units))


def tiny(stochastic: tuple[int, ...]) -> IWAE:
    """An untrained model in float64 whose weights are far from zero, so that its bound is visibly loose."""
    torch.manual_seed(0)
    model = IWAE(Config(stochastic=stochastic, hidden=(5,) * len(stochastic)), dims=3).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def few_bits() -> Tensor:
    """All eight images of three bits."""
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)


def probe_bound() -> probes.ProbeResult:
    """Theorem 1, on two stochastic layers."""
    model = tiny((1, 1))
    return probes.bound(
        lambda x, k, generator: model.elbo(x, k=k, generator=generator),
        lambda x: log_prob_by_quadrature(model, x),
        few_bits(),
        elbo=lambda x, generator: objective(model.log_weights(x, 1, generator), "vae"),
        log_weights=model.log_weights,
    )


def probe_resume() -> probes.ProbeResult:
    """A pass over the digits in a few updates, stopped and killed on the way."""
    config = Config(dataset="digits", k=2, stochastic=(3,), hidden=(8,), passes=(1,), batch_size=256)
    cpu = torch.device("cpu")
    return probes.resume(lambda directory: train(config, Run(directory, cpu, {}, config.seed, progress=False)))


PROBES = {
    "bound": probe_bound,
    "normalisation": lambda: probes.normalisation(
        lambda x: log_prob_by_quadrature(tiny((1, 1)), x), shape=(3,), levels=2
    ),
    "invariance": lambda: probes.invariance(
        probes.per_example(lambda x: log_prob_by_quadrature(tiny((2,)), x)), few_bits()
    ),
    "resume": probe_resume,
}
