"""MADE: Masked Autoencoder for Distribution Estimation. Germain, Gregor, Murray & Larochelle, ICML 2015.
https://arxiv.org/abs/1502.03509

An autoencoder says nothing about probability. Take away connections until output d depends on no input but those before
d in some order, and its outputs are conditionals whose product is a distribution, at the cost of one forward pass:

    p(x) = prod_d p(x_d | x_<d)          h^l = g(b^l + (W^l * M^{W^l}) h^{l-1})          h^0 = x
    p(x_d = 1 | x_<d) = sigm(c + (V * M^V) h^L + (A * M^A) x)_d

Unit k of layer l gets a number m^l(k): it may see the first m^l(k) inputs. m^0(d) is input d's place in the order.

    M^{W^l}_{k,j} = 1 if m^l(k) >= m^{l-1}(j)        M^V_{d,k} = 1 if m^0(d) > m^L(k)         (eqs. 12 and 13)

All numbers can be drawn anew while training, which gives many models in one: over orders, over connectivities.

Notation     here            shape               paper
             x               (B, D)              x, a binary vector
             m               (D,), (K_l,), ...   m^0, ..., m^L, from inputs to the last hidden layer
             W, b, V, c, A   (K_l, K_{l-1}) ...  W^l, b^l, V, c, A; with U^l where connectivity is an input too
             M_W, M_V, M_A   as W, V, A          the masks
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adadelta, Adagrad, Optimizer

from common import plotting, probes
from common.data import Batch, Batches, Binarise, Data, load
from common.distributions import bernoulli_log_prob
from common.errors import ConfigError
from common.evaluation.likelihood import mean_score
from common.evaluation.shards import by_batch
from common.experiment import Run
from common.records import Score
from common.training import State, fit, place, sgd_step
from common.training.checkpoint import load as load_checkpoint

DIMS = {"binarized_mnist": 784, "uci_dna": 180, "uci_mushrooms": 112, "uci_nips": 500, "digits": 64}
NAMES = {"binarized_mnist": "static binarised MNIST", "digits": "digits, binarised by sampling"}


@dataclass(frozen=True)
class Config:
    """One run. The defaults are those of the authors' command for dna, but for masks (0) and val_masks (300)."""

    dataset: Literal["binarized_mnist", "uci_dna", "uci_mushrooms", "uci_nips", "digits"] = "uci_dna"
    hidden: tuple[int, ...] = (500,)  # units of each hidden layer
    masks: int = 1  # how many masks the updates go through, one after the other, again and again; 0: always a new one
    resample: Literal["both", "order", "connectivity"] = "both"  # in what masks differ: m^0, or m^1 ... m^L, or all
    activation: Literal["relu", "softplus"] = "relu"  # g
    direct: bool = True  # A, from inputs to outputs
    conditioning: bool = False  # U^l, by which hidden units know their connectivity
    optimizer: Literal["adadelta", "adagrad"] = "adadelta"
    step_size: float = 1e-5  # Adadelta's epsilon, which sets the size of its steps; Adagrad's learning rate
    batch_size: int = 100
    patience: int = 30  # passes over the training set without a better validation NLL before training ends
    passes: int = 100_000  # over the training set, at most
    val_masks: int = 30  # with masks = 0: masks averaged over after every pass,
    test_masks: int = 1000  # and in the end
    seed: int = 0

    def __post_init__(self) -> None:
        positive = ("hidden", "step_size", "batch_size", "patience", "passes", "val_masks", "test_masks")
        for name in positive:
            value = getattr(self, name)
            values = value if isinstance(value, Sequence) else (value,)
            if not values or not min(values) > 0:
                raise ConfigError(f"{name} = {value}: it must be positive.")
        if self.masks < 0:
            raise ConfigError(f"masks = {self.masks}: give the number of masks, or 0 for a new one at every update.")


# -- Masks (eqs. 12 and 13) --------------------------------------------------------------------------------------------

TRAIN, VAL, TEST = range(3)  # sequences of masks that have nothing to do with each other


def numbers(config: Config, dims: int, sequence: int, index: int) -> list[Tensor]:
    """m^0, ..., m^L of one mask of a sequence: int64 (D,), (K_1,), ..., (K_L,).

    m^0 is a random order of 1 ... D, m^l(k) uniform between the smallest number of the layer below and D - 1. They
    depend on the seed and (sequence, index) alone, by numpy's RandomState, which never changes: no mask is saved.
    """
    new, same = (sequence, index), (TRAIN, 0)
    order = np.random.RandomState([config.seed, 0, *(same if config.resample == "connectivity" else new)])
    units = np.random.RandomState([config.seed, 1, *(same if config.resample == "order" else new)])
    m = [order.permutation(dims) + 1]
    for size in config.hidden:
        m.append(units.randint(m[-1].min(), dims, size=size, dtype=np.int64))
    return [torch.from_numpy(each).long() for each in m]


def training_mask(config: Config, dims: int, step: int) -> list[Tensor]:
    """The mask of an update, the first being 0: the cycle's next, or a new one."""
    return numbers(config, dims, TRAIN, step % config.masks if config.masks else step)


def ensemble(config: Config, dims: int, sequence: int) -> Iterable[list[Tensor]]:
    """The masks that are averaged over: those of the cycle; else new ones, the same whenever they are asked for."""
    if config.masks:
        return (numbers(config, dims, TRAIN, index) for index in range(config.masks))
    count = config.test_masks if sequence == TEST else config.val_masks
    return (numbers(config, dims, sequence, index) for index in range(count))


# -- Model -------------------------------------------------------------------------------------------------------------


class MADE(nn.Module):
    """p(x) for binary vectors of D values, under the mask set last."""

    def __init__(self, config: Config, dims: int) -> None:
        super().__init__()
        sizes = (dims, *config.hidden)
        self.g = {"relu": F.relu, "softplus": F.softplus}[config.activation]

        def weights(rows: int, columns: int) -> nn.Parameter:
            return nn.Parameter(nn.init.orthogonal_(torch.empty(rows, columns)))

        layers = [(k, j) for j, k in itertools.pairwise(sizes)]
        self.W = nn.ParameterList(itertools.starmap(weights, layers))
        self.b = nn.ParameterList(nn.Parameter(torch.zeros(k)) for k in config.hidden)
        self.V, self.c = weights(dims, sizes[-1]), nn.Parameter(torch.zeros(dims))
        self.A = weights(dims, dims) if config.direct else None
        self.U = nn.ParameterList(itertools.starmap(weights, layers)) if config.conditioning else None
        for l, shape in enumerate(layers):  # masks follow from the seed: they are buffers, and are not saved
            self.register_buffer(f"M_W{l}", torch.empty(shape), persistent=False)
        self.register_buffer("M_V", torch.empty(dims, sizes[-1]), persistent=False)
        self.register_buffer("M_A", torch.empty(dims, dims) if config.direct else None, persistent=False)
        self.set_mask(numbers(config, dims, TRAIN, 0))

    @torch.no_grad()
    def set_mask(self, m: Sequence[Tensor]) -> None:
        """Connect the units as their numbers m^0, ..., m^L say (eqs. 12 and 13)."""
        m = [each.to(self.c.device) for each in m]
        self.order = m[0]
        for l in range(len(self.W)):
            self.get_buffer(f"M_W{l}").copy_(m[l + 1][:, None] >= m[l][None, :])
        self.M_V.copy_(m[0][:, None] > m[-1][None, :])
        if self.M_A is not None:
            self.M_A.copy_(m[0][:, None] > m[0][None, :])

    def forward(self, x: Tensor) -> Tensor:
        """Logits of p(x_d = 1 | x_<d), (B, D) -> (B, D)."""
        h = x
        for l, (W, b) in enumerate(zip(self.W, self.b, strict=True)):
            M = self.get_buffer(f"M_W{l}")
            if self.U is not None:
                b = b + (self.U[l] * M).sum(1)  # (U * M) 1
            h = self.g(F.linear(h, W * M, b))
        logits = F.linear(h, self.V * self.M_V, self.c)
        return logits if self.A is None else logits + F.linear(x, self.A * self.M_A)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) = sum_d log p(x_d | x_<d): (B, D) -> (B,) nats, exact."""
        return bernoulli_log_prob(x, self(x))

    @torch.no_grad()
    def sample(self, n: int, masks: Sequence[Sequence[Tensor]], *, generator: torch.Generator) -> Tensor:
        """n draws, (n, D), an equal share by each mask: every value from its conditional, in the mask's order."""
        draws = []
        for rows in torch.arange(n).tensor_split(len(masks)):
            self.set_mask(masks[len(draws)])
            x = torch.zeros(len(rows), len(self.c), device=self.c.device, dtype=self.c.dtype)
            u = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            for d in self.order.argsort().tolist():
                x[:, d] = (u[:, d] < torch.sigmoid(self(x)[:, d])).to(x)
            draws.append(x)
        return torch.cat(draws)


@torch.no_grad()
def ensemble_log_prob(model: MADE, x_ND: Tensor, masks: Iterable[Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
    """Averages over masks: log of the mean probability, and mean of the log-probabilities; each (N,) nats, float64.

    The first is a distribution's, the mixture of all masks; the second says what one mask gives alone.
    """
    total = torch.full((len(x_ND),), -math.inf, dtype=torch.float64, device=x_ND.device)
    single, count = torch.zeros_like(total), 0
    for m in masks:
        model.set_mask(m)
        log_p = torch.cat([model.log_prob(x) for x in x_ND.split(2000)]).double()
        total, single, count = torch.logaddexp(total, log_p), single + log_p, count + 1
    return (total - math.log(count)).cpu(), (single / count).cpu()


# -- Training (algorithm 1; early stopping on the validation set) ------------------------------------------------------


class EarlyStopping:
    """After every pass, the validation NLL; the weights that had the best, and when they had it. Survives a kill."""

    def __init__(self, model: MADE, nll: Callable[[], float], every: int) -> None:
        self.model, self.nll, self.every = model, nll, every
        self.best, self.best_pass, self.weights = math.inf, 0, dict[str, Tensor]()

    def __call__(self, state: State) -> dict[str, float] | None:
        if state.step % self.every:
            return None
        nll = self.nll()
        if nll < self.best:
            self.best, self.best_pass = nll, state.step // self.every
            self.weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        return {"val_nll": nll}

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_pass": self.best_pass, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_pass, self.weights = state["best"], state["best_pass"], state["weights"]


def as_bits(data: Data, examples: Tensor) -> Tensor:
    """Examples for evaluation, (N, D) of {0, 1}: what is grey is drawn once and for all, the same for every run."""
    return Binarise(data.levels).encode(examples.flatten(1), torch.Generator().manual_seed(0))[0]


def descent(config: Config, model: MADE) -> Optimizer:
    if config.optimizer == "adadelta":
        return Adadelta(model.parameters(), lr=1.0, rho=0.95, eps=config.step_size)
    return Adagrad(model.parameters(), lr=config.step_size, eps=1e-6)


def build(config: Config) -> MADE:
    """The untrained model, initialised from the configuration's seed."""
    torch.manual_seed(config.seed)
    return MADE(config, DIMS[config.dataset])


def train(config: Config, run: Run) -> MADE:
    """Maximise log p(x) under one mask after the other, until the validation NLL has not improved for long."""
    data = run.uses(load(config.dataset))
    model, binarise = place(build(config), run.device), Binarise(data.levels)
    optimizer = descent(config, model)
    batches = Batches(data.train, config.batch_size, seed=config.seed, device=run.device, drop_last=False)
    state = State(model, {config.optimizer: optimizer}, torch.Generator(run.device).manual_seed(config.seed))

    def step(state: State, batch: Batch) -> dict[str, Tensor]:
        if config.masks != 1:
            model.set_mask(training_mask(config, data.dims, state.step))
        x_BD, _ = binarise.encode(batch.x.flatten(1), state.generator)
        return sgd_step(lambda x: (-model.log_prob(x).mean(), {}), optimizer, x_BD)

    x_val = as_bits(data, data.val.x).to(run.device)

    def validation_nll() -> float:
        return -float(ensemble_log_prob(model, x_val, ensemble(config, data.dims, VAL))[0].mean())

    stopping = EarlyStopping(model, validation_nll, every=len(batches))

    def last_step() -> int:
        return min(config.passes, stopping.best_pass + config.patience) * len(batches)

    saved = run.directory / "checkpoint.pt"
    done = load_checkpoint(saved)["state"]["step"] if saved.exists() else 0
    while state.step < (steps := max(done, last_step())):  # each better validation NLL puts the end off
        fit(state, batches, step, steps=steps, run=run, log_every=len(batches), hooks=[stopping])
    model.load_state_dict(stopping.weights)
    return model


# -- Evaluation (exact NLL; probabilities are averaged over masks) -----------------------------------------------------


def log_probs(model: MADE, x_ND: Tensor, masks: Sequence[Sequence[Tensor]]) -> Tensor:
    """log p(x) under each mask: (M, N) nats, float64."""
    return by_batch(
        lambda i: ensemble_log_prob(model, x_ND, [masks[int(i)]])[1][None], torch.arange(len(masks)), batch_size=1
    )


def evaluate(config: Config, model: MADE, run: Run) -> list[Score]:
    """Test NLL, in nats per example: of the mixture over masks, and of a mask alone; the validation NLL, too."""
    data = run.uses(load(config.dataset))
    scores = []
    for split, examples, sequence in (("test", data.test.x, TEST), ("val", data.val.x, VAL)):
        x = as_bits(data, examples).to(run.device)
        log_p_MN = log_probs(model, x, list(ensemble(config, data.dims, sequence)))
        mixture = functools.reduce(torch.logaddexp, log_p_MN) - math.log(len(log_p_MN))
        alone = functools.reduce(torch.add, log_p_MN) / len(log_p_MN)
        found = {"nll": -mixture, "nll_one_mask": -alone} if split == "test" else {"nll_val": -mixture}
        protocol = f"{NAMES.get(config.dataset, config.dataset)}, {len(x)} {split} examples"
        for name, values in found.items():
            run.examples[name] = values
            scores.append(mean_score(values, name, unit="nats", kind="exact", split=split, protocol=protocol))
    return scores


def illustrate(config: Config, model: MADE, run: Run) -> None:
    """Sixty-four draws, uncurated, from up to eight masks: `samples.png`, and the nearest training examples of each.

    Vectors that are no images are drawn as rows, above sixty-four test examples.
    """
    data = load(config.dataset)
    masks = list(itertools.islice(ensemble(config, data.dims, TEST), 8))
    x = model.sample(64, masks, generator=torch.Generator(run.device).manual_seed(config.seed + 2)).cpu()
    if data.train.x.dim() == 2:
        rows = torch.stack([x, as_bits(data, data.test.x[:64])])
        plotting.image_grid(rows, run.directory / "samples.png", columns=1)
    else:
        side, train_ND = math.isqrt(data.dims), as_bits(data, data.train.x)
        nearest = train_ND[torch.cdist(x, train_ND, p=1).argmin(1)]
        plotting.image_grid(x.view(-1, side, side), run.directory / "samples.png")
        plotting.image_grid(nearest.view(-1, side, side), run.directory / "nearest.png")


# -- Presets -----------------------------------------------------------------------------------------------------------

Runs = dict[str, Config]

DNA = {"dataset": "uci_dna"}
MUSHROOMS = {"dataset": "uci_mushrooms"}
NIPS = {"dataset": "uci_nips", "activation": "softplus"}
MNIST = {"dataset": "binarized_mnist", "optimizer": "adagrad", "step_size": 0.01}


# Step sizes, activations and numbers of masks are those that the validation NLL preferred.
UCI = {
    "dna-1": Config(**DNA, step_size=1e-9),
    "dna-sampling": Config(**DNA, masks=0),  # the authors' command
    "mushrooms-1": Config(**MUSHROOMS, step_size=1e-7),
    "mushrooms-sampling": Config(**MUSHROOMS, step_size=1e-7, masks=8),
    "nips-1": Config(**NIPS, step_size=1e-9),
    "nips-sampling": Config(**NIPS, step_size=1e-7, masks=32),
}

PRESETS: dict[str, Runs] = {
    # Seconds: the 8x8 digits that scikit-learn carries.
    "smoke": {f"digits-{masks}": Config("digits", (100,), masks, passes=60) for masks in (1, 8)},
    # Minutes: the UCI sets, for which the paper's own networks are small.
    "laptop": UCI,
    # Minutes more: MNIST in its fixed binarisation, with a sixteenth of the authors' units and few passes.
    "workstation": {f"mnist-1l-{masks}": Config(masks=masks, passes=20, **MNIST) for masks in (1, 32)},
    # All of it, with the authors' large networks on MNIST.
    "paper": UCI
    | {
        f"mnist-{len(hidden)}l-{masks}": Config(hidden=hidden, masks=masks, **MNIST)
        for hidden in ((8000,), (8000, 8000))
        for masks in (1, 32)
    },
}


# -- Probes: on a few bits, whose states can be counted ----------------------------------------------------------------

TINY = Config(hidden=(24, 16), masks=3, conditioning=True)


def tiny() -> MADE:
    """An untrained model of five bits in float64 whose weights are far from zero."""
    torch.manual_seed(0)
    model = MADE(TINY, dims=5).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def probe_causality() -> probes.ProbeResult:
    """Under a mask whose order is not the natural one; A alone lets every output see all that comes before it."""
    model = tiny()
    x = torch.randint(0, 2, (16, 5), generator=torch.Generator().manual_seed(0)).double()
    return probes.causality(model, x, order=model.order)


def probe_normalisation() -> probes.ProbeResult:
    """A mixture over three masks: an average of logarithms would sum to less than one."""
    model, masks = tiny(), list(ensemble(TINY, 5, TEST))
    return probes.normalisation(lambda x: ensemble_log_prob(model, x, masks)[0], shape=(5,), levels=2)


def probe_invariance() -> probes.ProbeResult:
    model, masks = tiny(), list(ensemble(TINY, 5, TEST))
    x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 5)
    return probes.invariance(probes.per_example(lambda x: ensemble_log_prob(model, x, masks)[0]), x)


def probe_resume() -> probes.ProbeResult:
    """A new mask at every update, and an end that early stopping decides, stopped and killed on the way."""
    config = Config(dataset="digits", hidden=(16,), masks=0, step_size=1.0, batch_size=700, patience=2, val_masks=2)
    cpu = torch.device("cpu")
    return probes.resume(lambda directory: train(config, Run(directory, cpu, {}, config.seed, progress=False)))


PROBES = {
    "causality": probe_causality,
    "normalisation": probe_normalisation,
    "invariance": probe_invariance,
    "resume": probe_resume,
}
