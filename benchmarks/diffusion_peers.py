"""Diffusion: a U-Net's training step and 50 steps of DDIM, against denoising-diffusion-pytorch and diffusers.

The networks are those that each package builds, of as many parameters as can be configured (all counts are kept), with
the same levels. A training step is one loss of the predicted noise, its gradient and Adam's update; sampling draws a
batch. Each package's own schedule, sampler and loss do it; peers are measured in both layouts of memory, since their
documentation takes the one and their users may take the other. First it is checked that diffusers' DDIM and ours draw
the same images with the same network, in float64.
"""

import importlib.util
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Rows, take_turns
from common.nn import EpsilonDenoiser, UNet
from common.training import place, sgd_step
from projects.ddim import ddim
from projects.ddpm import ddpm

SHAPE, BATCH, DRAWS, S, T = (1, 28, 28), 32, 16, 50, 1000
BASE, MULTIPLIERS = 32, (1, 2, 2)
TURNS, STEPS = 3, 2  # updates a turn
OURS = "common.nn.UNet"
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Candidate:
    """A network, its loss of images in [-1, 1], and a batch drawn by DDIM."""

    network: nn.Module
    loss: Callable[[Tensor], Tensor]
    draw: Callable[[], Tensor]

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters() if p.requires_grad)


def ours() -> Candidate:
    config = ddpm.Config(dataset="mnist", base=BASE, multipliers=MULTIPLIERS, blocks=2, dropout=0.0)
    network = place(ddpm.build(config), torch.device("cpu"), channels_last=True)
    process, generator = ddpm.process(config), torch.Generator().manual_seed(0)
    sampler = ddim.Config(dataset="mnist", spacing="linear", S=S)

    def draw() -> Tensor:
        x_T = torch.randn(DRAWS, *SHAPE, generator=generator)
        return ddim.sample(ddim.denoiser_of(sampler, network), x_T, ddim.trajectory(sampler, S))

    return Candidate(network, lambda x: process.loss(network, x, "simple", generator), draw)


def denoising_diffusion(dim: int, channels_last: bool) -> Candidate:
    for name in ("torchvision", "accelerate", "ema_pytorch"):  # for its trainer, and heavy: stand-ins are enough
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            sys.modules[name] = types.ModuleType(name)
            for attribute in ("transforms", "utils", "Accelerator", "EMA"):
                setattr(sys.modules[name], attribute, object)
    from denoising_diffusion_pytorch import denoising_diffusion_pytorch as ddp

    network = ddp.Unet(dim, dim_mults=MULTIPLIERS, channels=1, flash_attn=True)
    network = network.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    settings = {"image_size": SHAPE[1], "timesteps": T, "sampling_timesteps": S, "auto_normalize": False}
    diffusion = ddp.GaussianDiffusion(network, objective="pred_noise", beta_schedule="linear", **settings)
    ddp.tqdm = lambda steps, **_: steps  # no progress bar
    return Candidate(network, diffusion, lambda: diffusion.sample(batch_size=DRAWS))


def diffusers_network(base: int, channels_last: bool) -> nn.Module:
    from diffusers import UNet2DModel

    levels = len(MULTIPLIERS)
    attention = [level == 1 for level in range(levels)]
    network = UNet2DModel(
        sample_size=SHAPE[1],
        in_channels=1,
        out_channels=1,
        layers_per_block=2,
        block_out_channels=[base * m for m in MULTIPLIERS],
        down_block_types=["AttnDownBlock2D" if a else "DownBlock2D" for a in attention],
        up_block_types=["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)],
        norm_num_groups=8,
    )
    return network.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def scheduler(kind: str) -> Any:
    import diffusers

    if kind == "train":
        return diffusers.DDPMScheduler(T, beta_schedule="linear")
    found = diffusers.DDIMScheduler(T, beta_schedule="linear", clip_sample=False, timestep_spacing="trailing")
    found.set_timesteps(S)
    return found


def diffusers_draw(network: Callable[[Tensor, Tensor], Tensor], x_T: Tensor) -> Tensor:
    """The loop of diffusers' documentation."""
    ddim_scheduler, x = scheduler("sample"), x_T
    with torch.no_grad():
        for t in ddim_scheduler.timesteps:
            x = ddim_scheduler.step(network(x, t), t, x).prev_sample
    return x


def diffusers(base: int, channels_last: bool) -> Candidate:
    network, noising = diffusers_network(base, channels_last), scheduler("train")

    def loss(x: Tensor) -> Tensor:
        noise, t = torch.randn_like(x), torch.randint(0, T, (len(x),))
        return nn.functional.mse_loss(network(noising.add_noise(x, noise, t), t).sample, noise)

    def draw() -> Tensor:
        return diffusers_draw(lambda x, t: network(x, t).sample, torch.randn(DRAWS, *SHAPE))

    return Candidate(network, loss, draw)


def nearest(make: Callable[[int], nn.Module], widths: range, parameters: int) -> int:
    """The width whose number of parameters is nearest."""

    def off(width: int) -> int:
        return abs(sum(p.numel() for p in make(width).parameters()) - parameters)

    return min(widths, key=off)


def the_samplers_agree() -> float:
    """The largest difference of the images that our DDIM and diffusers' draw with one network, in float64."""
    torch.manual_seed(0)
    network = UNet(1, 1, 8, (1, 2), 1, dropout=0.0).double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    config = ddim.Config(dataset="mnist", spacing="linear", S=S)
    x_T = torch.randn(4, *SHAPE, dtype=torch.float64)
    denoiser = EpsilonDenoiser(network, ddim.schedule(config)[1:])
    drawn = ddim.sample(denoiser, x_T, ddim.trajectory(config, S))
    theirs = diffusers_draw(lambda x, t: network(x, t.repeat(len(x)) + 1), x_T)  # their t begins at 0
    return float((drawn - theirs).abs().max() / drawn.abs().max())


def main() -> Rows:
    rows = Rows(
        "diffusion_peers",
        f"U-Nets on {BATCH} images of 28x28: training steps, and {S} steps of DDIM for {DRAWS} images",
        "not slower than the fastest peer in any row, faster in most",
        OURS,
        {},
    )
    difference = the_samplers_agree()
    assert difference < 1e-6, f"DDIM differs by {difference:.2g}"  # their schedule is float32
    rows.notes["relative difference of the images drawn by our DDIM and diffusers', one network"] = difference
    torch.manual_seed(0)
    candidates = {OURS: ours()}
    parameters = candidates[OURS].parameters
    peers = {
        "denoising-diffusion-pytorch": (denoising_diffusion, range(16, 65, 2)),
        "diffusers": (diffusers, range(16, 65, 8)),  # in groups of eight channels
    }
    for name, (make, widths) in peers.items():
        width = nearest(lambda w, make=make: make(w, False).network, widths, parameters)
        candidates[name] = make(width, False)
        candidates[f"{name}, channels last"] = make(width, True)
    for name, each in candidates.items():
        rows.notes[f"parameters, {name}"] = f"{each.parameters:,}"
    x = torch.rand(BATCH, *SHAPE) * 2 - 1
    adams = {name: torch.optim.Adam(c.network.parameters(), 1e-4, fused=True) for name, c in candidates.items()}

    for precision, dtype in PRECISIONS.items():

        def train(name: str, amp: Any = "bf16" if dtype else None) -> int:
            candidates[name].network.train()
            for _ in range(STEPS):
                sgd_step(lambda x: (candidates[name].loss(x), {}), adams[name], x, amp=amp)
            return STEPS

        def draw(name: str, dtype: torch.dtype | None = dtype) -> int:
            candidates[name].network.eval()
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype is not None):
                assert candidates[name].draw().isfinite().all()
            return DRAWS

        for row, unit, work in (("training step", "steps", train), (f"DDIM in {S} steps", "images", draw)):
            rows.units[f"{row}, {precision}"] = unit
            turns = {name: (lambda name=name, work=work: work(name)) for name in candidates}
            rows.rates[f"{row}, {precision}"] = take_turns(turns, TURNS)
    return rows
