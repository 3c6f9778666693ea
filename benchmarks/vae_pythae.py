"""VAE training against pythae's trainer: the same network, data, batch size, optimiser and epochs.

Both maximise the ELBO with one sample and the closed-form KL on binarised images; both are scored by the same function
afterwards, so that speed is not bought with a worse model. Needs the peers' environment (`make bench` makes it).
"""

import contextlib
import io
import logging
import statistics
import tempfile
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.measure import Comparison, take_turns
from common.data import Batches, Binarise, Split, load
from common.distributions import bernoulli_log_prob, normal_kl
from common.errors import DataError
from common.experiment import Run
from common.training import State, fit, sgd_step

HIDDEN, LATENT, BATCH, EPOCHS, LR = 400, 20, 100, 2, 1e-3


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


def main() -> Comparison:
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    logging.disable(logging.CRITICAL)
    train, test = images()
    trained: dict[str, tuple[nn.Module, nn.Module]] = {}  # scored afterwards: only training is timed

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

    def theirs() -> int:
        torch.manual_seed(0)
        config = VAEConfig(input_dim=(784,), latent_dim=LATENT, reconstruction_loss="bce")
        model = VAE(config, encoder=TheirEncoder(), decoder=TheirDecoder())
        quiet = contextlib.redirect_stderr(io.StringIO())  # its progress bars; they cost what they cost
        with tempfile.TemporaryDirectory() as directory, quiet:
            settings = BaseTrainerConfig(
                output_dir=directory,
                num_epochs=EPOCHS,
                learning_rate=LR,
                per_device_train_batch_size=BATCH,
                optimizer_cls="Adam",
                no_cuda=True,
            )
            from pythae.data.datasets import BaseDataset

            BaseTrainer(model, BaseDataset(train, torch.zeros(len(train))), training_config=settings).train()
        trained["pythae"] = (model.encoder.net, model.decoder.net[0])
        return EPOCHS * len(train)

    split = Split((train > 0).to(torch.uint8))

    def ours(amp: Literal["bf16"] | None = None, matmul: Literal["highest", "medium"] = "highest") -> int:
        torch.set_flush_denormal(True)  # as `execute` does for every run
        torch.set_float32_matmul_precision(matmul)  # "medium": products of bfloat16, sums of float32
        torch.manual_seed(0)
        model = nn.ModuleDict({"encoder": Encoder(), "decoder": decoder()})
        adam = torch.optim.Adam(model.parameters(), LR, fused=True)
        batches = Batches(split, BATCH, seed=0)
        generator = torch.Generator().manual_seed(0)

        def loss(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            mean, log_var = model["encoder"](x)
            return -elbo(x, mean, log_var, model["decoder"](reparameterise(mean, log_var, generator))).mean(), {}

        with tempfile.TemporaryDirectory() as directory:
            run = Run(Path(directory), torch.device("cpu"), {}, seed=0, progress=False)
            state = State(model, {"adam": adam}, generator)
            steps = EPOCHS * len(batches)
            fit(state, batches, lambda _, b: sgd_step(loss, adam, b.x.float(), amp=amp), steps=steps, run=run)
        name = "ours, bf16" if amp else "ours, medium" if matmul == "medium" else "ours"
        trained[name] = (model["encoder"], model["decoder"])
        torch.set_flush_denormal(False)
        torch.set_float32_matmul_precision("highest")
        return EPOCHS * len(train)

    comparison = Comparison(
        "vae_pythae",
        f"VAE 784-{HIDDEN}-{LATENT}, batch {BATCH}, {EPOCHS} epochs of 60,000 images",
        "images",
        "at least 1.8",
        "fit",
        "pythae BaseTrainer",
        take_turns(
            {
                "fit": ours,
                "fit, bf16": lambda: ours("bf16"),
                "fit, medium": lambda: ours(matmul="medium"),
                "pythae BaseTrainer": theirs,
            },
            turns=5,
        ),
    )
    peer = comparison.rates[comparison.peer]
    for variant, how in {"fit, bf16": "amp='bf16'", "fit, medium": "float32 matmul precision 'medium'"}.items():
        ratios = (a / b for a, b in zip(comparison.rates[variant], peer, strict=True))
        comparison.notes[f"ratio with {how}"] = statistics.median(ratios)
    for name, networks in trained.items():
        comparison.notes[f"test ELBO after training, {name} (nats)"] = test_bound(*networks, test)
    return comparison
