"""VAE training against pythae's trainer: the same network, data, batch size, optimiser and epochs.

Both maximise the ELBO with one sample and the closed-form KL on binarised images; both are scored by the same function
afterwards, so that speed is not bought with a worse model. A bare loop that does the same steps and nothing else says
what any trainer on PyTorch could reach. Needs the peers' environment (`make bench` makes it).
"""

import contextlib
import io
import logging
import multiprocessing
import shutil
import statistics
import tempfile
import time
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.measure import Agreement, Result, Row, Setting, Target, Turns
from common.data import Batches, Binarise, Split, load
from common.distributions import bernoulli_log_prob, normal_kl
from common.errors import DataError
from common.experiment import Run
from common.training import State, fit, sgd_step

HIDDEN, LATENT, BATCH, EPOCHS, LR = 400, 20, 100, 2, 1e-3
TURNS, OURS, PEER, BARE = 5, "fit", "pythae BaseTrainer", "bare loop"


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(784, HIDDEN), nn.ReLU())
        self.mean, self.log_var = nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        return self.mean(h), self.log_var(h)


def decoder() -> nn.Sequential:
    return nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 784))  # logits


def elbo(x: Tensor, mean: Tensor, log_var: Tensor, logits: Tensor) -> Tensor:
    return bernoulli_log_prob(x, logits) - normal_kl(mean, log_var)


def reparameterise(mean: Tensor, log_var: Tensor, generator: torch.Generator) -> Tensor:
    return mean + torch.exp(0.5 * log_var) * torch.randn(mean.shape, generator=generator)


@torch.inference_mode()
def test_bound(encode: nn.Module, decode: nn.Module, x: Tensor) -> float:
    generator = torch.Generator().manual_seed(0)
    mean, log_var = encode(x)
    draws = [elbo(x, mean, log_var, decode(reparameterise(mean, log_var, generator))) for _ in range(10)]
    return float(torch.stack(draws).mean())


def images() -> tuple[Tensor, Tensor]:
    """60,000 and 10,000 images of MNIST, binarised once; random bits of that size where MNIST can't be had."""
    try:
        data = load("dynamic_mnist")
    except DataError:
        bits = torch.rand(70_000, 784, generator=torch.Generator().manual_seed(0)) > 0.85
        return bits[:60_000].float(), bits[60_000:].float()
    binarise, generator = Binarise(data.levels or 256), torch.Generator().manual_seed(0)
    train, _ = binarise.encode(data.trainval.x.flatten(1), generator)
    test, _ = binarise.encode(data.test.x.flatten(1), generator)
    return train, test


def theirs(train: Tensor, epochs: int) -> tuple[nn.Module, nn.Module]:
    """pythae's trainer as its documentation uses it."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    class TheirEncoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = Encoder()

        def forward(self, x: Tensor) -> ModelOutput:
            mean, log_var = self.net(x)
            return ModelOutput(embedding=mean, log_covariance=log_var)

    class TheirDecoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(decoder(), nn.Sigmoid())  # its BCE takes probabilities

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.net(z))

    logging.disable(logging.CRITICAL)
    config = VAEConfig(input_dim=(784,), latent_dim=LATENT, reconstruction_loss="bce")
    model = VAE(config, encoder=TheirEncoder(), decoder=TheirDecoder())
    quiet = contextlib.redirect_stderr(io.StringIO())  # its progress bars; they cost what they cost
    with tempfile.TemporaryDirectory() as directory, quiet:
        settings = BaseTrainerConfig(
            output_dir=directory,
            num_epochs=epochs,
            learning_rate=LR,
            per_device_train_batch_size=BATCH,
            optimizer_cls="Adam",
            no_cuda=True,
        )
        BaseTrainer(model, BaseDataset(train, torch.zeros(len(train))), training_config=settings).train()
    return model.encoder.net, model.decoder.net[0]


def ours(
    train: Tensor, epochs: int, amp: Literal["bf16"] | None = None, compiled: bool = False
) -> tuple[nn.Module, nn.Module]:
    model = nn.ModuleDict({"encoder": Encoder(), "decoder": decoder()})
    adam = torch.optim.Adam(model.parameters(), LR, fused=True)
    batches = Batches(Split((train > 0).to(torch.uint8)), BATCH, seed=torch.initial_seed())
    generator = torch.Generator().manual_seed(torch.initial_seed())

    def bound(x: Tensor, eps: Tensor) -> Tensor:
        mean, log_var = model["encoder"](x)
        return elbo(x, mean, log_var, model["decoder"](mean + torch.exp(0.5 * log_var) * eps)).mean()

    mean_bound = torch.compile(bound) if compiled else bound

    def loss(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return -mean_bound(x, torch.randn(len(x), LATENT, generator=generator)), {}

    with tempfile.TemporaryDirectory() as directory:
        run = Run(Path(directory), torch.device("cpu"), {}, seed=0, progress=False)
        state = State(model, {"adam": adam}, generator)
        steps = epochs * len(batches)
        fit(state, batches, lambda _, b: sgd_step(loss, adam, b.x.float(), amp=amp), steps=steps, run=run)
    return model["encoder"], model["decoder"]


def bare(train: Tensor, epochs: int) -> tuple[nn.Module, nn.Module]:
    """What any trainer on PyTorch could reach: the same steps in a bare loop over the images in their own order."""
    model = nn.ModuleDict({"encoder": Encoder(), "decoder": decoder()})
    adam = torch.optim.Adam(model.parameters(), LR, fused=True)
    generator = torch.Generator().manual_seed(torch.initial_seed())
    for _ in range(epochs):
        for x in train.split(BATCH):
            mean, log_var = model["encoder"](x)
            z = mean + torch.exp(0.5 * log_var) * torch.randn(len(x), LATENT, generator=generator)
            loss = -elbo(x, mean, log_var, model["decoder"](z)).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
    return model["encoder"], model["decoder"]


VARIANTS: dict[str, dict[str, Any]] = {
    "fit": {},
    "fit, bf16": {"amp": "bf16"},
    "fit, medium": {"matmul": "medium"},  # products of bfloat16, sums of float32
    "fit, medium, compiled": {"matmul": "medium", "compiled": True},
    BARE: {},
}


def one_turn(name: str, seed: int, quick: bool, answer: Connection) -> None:
    """Train once, in this process alone: what a process does to its threads does not reach the next turn."""
    settings = dict(VARIANTS.get(name, {}))
    if name != PEER:
        # As `execute` does for every run, and like it before the first parallel operation: threads inherit it.
        torch.set_flush_denormal(True)
        torch.set_float32_matmul_precision(settings.pop("matmul", "highest"))
    train, test = images()
    if quick:
        train, test = train[: 30 * BATCH], test[:100]
    contender = {PEER: theirs, BARE: bare}.get(name, partial(ours, **settings))
    contender(train[: 20 * BATCH], 1)  # imports, thread pools, compilation
    torch.manual_seed(seed)
    start = time.perf_counter()
    networks = contender(train, EPOCHS)
    rate = EPOCHS * len(train) / (time.perf_counter() - start)
    answer.send((rate, test_bound(*networks, test)))


def in_its_own_process(name: str, seed: int, quick: bool) -> tuple[float, float]:
    """Images per second and the test ELBO after training."""
    context = multiprocessing.get_context("spawn")
    answer, there = context.Pipe(duplex=False)
    process = context.Process(target=one_turn, args=(name, seed, quick, there))
    process.start()
    there.close()
    try:
        return answer.recv()  # type: ignore[no-any-return]
    except EOFError:
        raise SystemExit(
            f"vae_pythae: the turn of '{name}' ended without an answer; what it said stands above."
        ) from None
    finally:
        process.join()


def main(setting: Setting) -> Result:
    names = [*VARIANTS, PEER]
    if setting.quick or (shutil.which("g++") is None and shutil.which("clang++") is None):
        names.remove("fit, medium, compiled")  # torch.compile needs a compiler, and a minute
    rates: dict[str, list[float]] = {name: [] for name in names}
    bounds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(setting.turns(TURNS)):
        for name in names[:: 1 if turn % 2 else -1]:
            rate, bound = in_its_own_process(name, turn, setting.quick)
            rates[name].append(rate)
            bounds[name].append(bound)
    row = Row(
        "training",
        "images/s",
        OURS,
        Turns(rates),
        {PEER: "pythae"},
        f"network (784-{HIDDEN}-{LATENT}), {EPOCHS} epochs of the same 60,000 images, batch {BATCH}, Adam, float32; "
        "each turn in a process of its own; test bounds by one function, in the notes",
        Agreement(
            "nats that ours' mean test bound is below pythae's",
            max(0.0, statistics.mean(bounds[PEER]) - statistics.mean(bounds[OURS])),
            0.5 if not setting.quick else 10.0,
        ),
        target=Target(1.8),
        why="A bare PyTorch loop misses it, too: most of such a step is matrix products and Adam, which pythae pays "
        "as well.",
    )
    found = Result("vae_pythae", "Training a VAE, against pythae's trainer", [row])
    for name in names:
        mean, few = statistics.mean(bounds[name]), len(bounds[name])
        error = statistics.stdev(bounds[name]) / few**0.5 if few > 1 else float("nan")
        found.notes[f"test ELBO after training, {name} (nats)"] = f"{mean:.2f} +- {error:.2f} over {few} seeds"
    return found
