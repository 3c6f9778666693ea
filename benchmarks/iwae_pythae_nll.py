"""The k = 5000 estimate of log p(x) against pythae's `get_nll`, with the same weights on the same images.

Both decode k samples an image in chunks and take one log-mean-exp. The network is the published IWAE of
`projects/iwae`, handed to pythae's VAE as its encoder and decoder. With the same random numbers both give the same
nats, which is checked first; in the turns each draws its own. pythae computes in chunks of 100 unless told otherwise;
it is measured with the size of our chunks, too. It encodes an image once for each sample, where ours encodes it once,
and what it returns is log p(x), not minus that.
"""

import statistics
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.measure import Agreement, Result, Row, Setting, Target, take_turns
from common.evaluation.likelihood import importance_log_likelihood
from common.experiment import load_weights
from projects.iwae import iwae

RUN = ("laptop", "iwae-1l-k50")
IMAGES, K, LATENT = 40, 5000, 50
OURS = "importance_log_likelihood"


def network(device: torch.device) -> iwae.IWAE:
    preset, run = RUN
    model = iwae.build(iwae.PRESETS[preset][run])
    load_weights(model, Path(iwae.__file__).parent / "results" / preset / run / "weights.safetensors")
    return model.eval().to(device)


def theirs(model: iwae.IWAE) -> nn.Module:
    """pythae's VAE around our network."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = model.recognition[0]

        def forward(self, x: Tensor) -> ModelOutput:
            mean, log_var = self.net(x)
            return ModelOutput(embedding=mean, log_covariance=log_var)

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(model.pixels, nn.Sigmoid())  # its cross-entropy takes probabilities

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.net(z))

    config = VAEConfig(input_dim=(784,), latent_dim=LATENT, reconstruction_loss="bce")
    return VAE(config, encoder=Encoder(), decoder=Decoder()).eval()  # type: ignore[no-any-return]


def main(setting: Setting) -> Result:
    torch.set_flush_denormal(True)
    device = setting.device
    images, k = setting.size(IMAGES, 2), setting.size(K, 200)
    model = network(device)
    vae = theirs(model).to(device)
    generator = torch.Generator(device).manual_seed(0)
    x = torch.bernoulli(model.sample(images, generator=generator), generator=generator)
    found: dict[str, list[float]] = {}

    def ours() -> int:
        value = importance_log_likelihood(model.log_weights, x, k=k, generator=generator).mean()
        found.setdefault(OURS, []).append(float(value))
        return images * k

    @torch.inference_mode()
    def pythae(chunk: int) -> int:
        found.setdefault("pythae", []).append(float(vae.get_nll(x, n_samples=k, batch_size=chunk)))
        return images * k

    chunks = {f"pythae get_nll, {chunk:,} at once": chunk for chunk in (100, 1000) if chunk <= k}
    with torch.inference_mode():
        torch.manual_seed(1)
        value = vae.get_nll(x[:1], n_samples=100, batch_size=100)
        same = importance_log_likelihood(model.log_weights, x[:1], k=100, generator=generator.manual_seed(1))
    row = Row(
        f"log p(x) from k = {k:,} samples",
        "samples/s",
        OURS,
        take_turns(
            {OURS: ours} | {name: (lambda chunk=chunk: pythae(chunk)) for name, chunk in chunks.items()},
            setting.turns(5),
            device=device,
        ),
        dict.fromkeys(chunks, "pythae"),
        f"network (784-200-200-50 and back) and weights, the same {images} images, k, float32",
        Agreement("nats between the two, from the same random numbers (k = 100)", abs(float(same[0] - value)), 1e-3),
        Target(1.0),
    )
    result = Result("iwae_pythae_nll", "An IWAE's log-likelihood, against pythae's", [row], device=device)
    for name, values in found.items():
        error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        mean = statistics.mean(values)
        result.notes[f"mean of log p(x) over the turns, {name} (nats)"] = f"{mean:.4f} +- {error:.4f}"
    return result
