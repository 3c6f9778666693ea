"""__REFERENCE__

WRITE: the paper's idea in a few lines, with the equation that everything else follows from. What stands below is a
stand-in that really trains, to be replaced part by part: a mixture of K images of independent pixels, x in {0, 1}^D,

    log p(x) = log sum_k pi_k prod_d mu_kd^x_d (1 - mu_kd)^(1 - x_d)                                            (1)

Read from top to bottom: configuration, model, training, evaluation, figures, presets, probes.

Notation     here            shape        paper
             x_BD            (B, D)       x, a binary image
             log_pi_K        (K,)         log pi, the mixing proportions
             pixels          (K, D)       log(mu / (1 - mu)), the components' pixels as logits
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from common import plotting, probes
from common.data import Batch, Batches, Binarise, load
from common.distributions import bernoulli_log_prob
from common.errors import ConfigError
from common.evaluation.likelihood import mean_score
from common.evaluation.shards import by_batch
from common.experiment import Run
from common.records import Score
from common.training import State, fit, place, sgd_step


@dataclass(frozen=True)
class Config:
    """One run. The defaults are the paper's."""

    dataset: Literal["dynamic_mnist", "digits"] = "dynamic_mnist"
    components: int = 20  # K
    passes: int = 100  # over the training images
    learning_rate: float = 0.05
    batch_size: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("components", "passes", "learning_rate", "batch_size"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: it must be positive.")


# -- Model ------------------------------------------------------------------------------------------------------------
# WRITE: the paper's model, under the names and numbers that the paper gives to its parts.


class Mixture(nn.Module):
    """p(x), equation (1); images as vectors of D bits."""

    def __init__(self, config: Config, dims: int) -> None:
        super().__init__()
        self.mixing = nn.Parameter(torch.zeros(config.components))  # logits of pi: it starts even
        self.pixels = nn.Parameter(torch.randn(config.components, dims))  # components must not start alike

    def log_prob(self, x_BD: Tensor) -> Tensor:
        """log p(x), equation (1), exactly: (B,) nats."""
        log_pi_K = torch.log_softmax(self.mixing, 0)
        log_joint_KB = log_pi_K[:, None] + bernoulli_log_prob(x_BD, self.pixels[:, None])
        return torch.logsumexp(log_joint_KB, 0)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """mu_k for n draws k ~ pi: (n, D) probabilities of a pixel being one."""
        k_N = torch.multinomial(torch.softmax(self.mixing, 0), n, replacement=True, generator=generator)
        return torch.sigmoid(self.pixels[k_N])


# -- Training ---------------------------------------------------------------------------------------------------------


def build(config: Config) -> Mixture:
    """The untrained model, initialised from the configuration's seed."""
    torch.manual_seed(config.seed)
    return Mixture(config, dims={"digits": 64}.get(config.dataset, 784))


def train(config: Config, run: Run) -> Mixture:
    """Maximise the likelihood. The update is the paper's; `fit` keeps the books: resume, log, progress, signals."""
    data = run.uses(load(config.dataset))
    binarise = Binarise(data.levels)
    model = place(build(config), run.device)
    adam = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    batches = Batches(data.train, config.batch_size, seed=config.seed, device=run.device)
    state = State(model, {"adam": adam}, torch.Generator(run.device).manual_seed(config.seed))

    def step(state: State, batch: Batch) -> dict[str, Tensor]:
        x_BD, _ = binarise.encode(batch.x.flatten(1), state.generator)  # grey levels are sampled anew in every pass

        def loss_fn(x_BD: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            nll = -model.log_prob(x_BD).mean()
            return nll, {"nll": nll.detach()}

        return sgd_step(loss_fn, adam, x_BD)

    fit(state, batches, step, steps=config.passes * len(batches), run=run, log_every=max(1, len(batches) // 2))
    return model


# -- Evaluation -------------------------------------------------------------------------------------------------------


def evaluate(config: Config, model: Mixture, run: Run) -> list[Score]:
    """Test NLL in nats per example. `kind` says that it is exact; a bound or an estimate says so too."""
    data = run.uses(load(config.dataset))
    # Bits drawn by a generator of their own: every run of every seed is scored on the same ones.
    x_BD, _ = Binarise(data.levels).encode(data.test.x.flatten(1), torch.Generator().manual_seed(0))
    # A batch at a time, and under torchrun by whichever process it is dealt to.
    nll = by_batch(lambda x: -model.log_prob(x).double().cpu(), x_BD.to(run.device), batch_size=100)
    run.examples["nll"] = nll  # an example each, so that two runs can be compared pairwise
    protocol = f"{config.dataset}, binarised once, {len(nll)} test examples"
    return [mean_score(nll, "nll", unit="nats", kind="exact", split="test", protocol=protocol)]


def illustrate(config: Config, model: Mixture, run: Run) -> None:
    """Sixty-four samples, uncurated: the first that the seed gives."""
    probabilities = model.sample(64, generator=torch.Generator(run.device).manual_seed(config.seed + 2))
    side = math.isqrt(probabilities.shape[1])
    plotting.image_grid(probabilities.view(-1, side, side), run.directory / "samples.png")


# -- Presets ----------------------------------------------------------------------------------------------------------


def table(**settings: Any) -> dict[str, Config]:
    """The runs that the claims are about, by name."""
    return {f"k{components}": Config(components=components, **settings) for components in (1, 20)}


PRESETS: dict[str, dict[str, Config]] = {
    "smoke": table(dataset="digits", passes=30),  # seconds: the 8x8 digits that scikit-learn carries
    "laptop": table(passes=5),  # minutes on two CPU cores: real data, long enough for the orderings
    "paper": table(),  # the paper's own setting
}


# -- Probes: checks of the mathematics, on models small enough to know the answer -------------------------------------


BITS = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)  # all eight images of three bits


def tiny() -> Mixture:
    """Two components on three bits, untrained, in float64."""
    torch.manual_seed(0)
    return Mixture(Config(components=2), dims=3).double()


def probe_resume() -> probes.ProbeResult:
    """A pass over the digits in five updates, stopped and killed on the way."""
    config = Config(dataset="digits", components=2, passes=1, batch_size=256)
    return probes.resume(lambda directory: train(config, Run(directory, torch.device("cpu"), {}, 0, progress=False)))


PROBES = {
    "normalisation": lambda: probes.normalisation(tiny().log_prob, shape=(3,), levels=2),
    "invariance": lambda: probes.invariance(probes.per_example(tiny().log_prob), BITS),
    "resume": probe_resume,
}
