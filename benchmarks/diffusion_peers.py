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

from benchmarks.measure import CPU, Agreement, Result, Row, Setting, Target, take_turns
from benchmarks.peers import allow_torchvision
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


def ours(device: torch.device = CPU) -> Candidate:
    config = ddpm.Config(dataset="mnist", base=BASE, multipliers=MULTIPLIERS, blocks=2, dropout=0.0)
    network = place(ddpm.build(config), device, channels_last=True)
    process, generator = ddpm.process(config), torch.Generator(device).manual_seed(0)
    sampler = ddim.Config(dataset="mnist", spacing="linear", S=S)

    def draw() -> Tensor:
        x_T = torch.randn(DRAWS, *SHAPE, generator=generator, device=device)
        return ddim.sample(ddim.denoiser_of(sampler, network), x_T, ddim.trajectory(sampler, S))

    return Candidate(network, lambda x: process.loss(network, x, "simple", generator), draw)


def denoising_diffusion(dim: int, channels_last: bool, device: torch.device = CPU) -> Candidate:
    allow_torchvision()
    # For its trainer, and heavy: a stand-in is enough.
    if "accelerate" not in sys.modules and importlib.util.find_spec("accelerate") is None:
        sys.modules["accelerate"] = types.ModuleType("accelerate")
        sys.modules["accelerate"].Accelerator = object  # type: ignore[attr-defined]
    from denoising_diffusion_pytorch import denoising_diffusion_pytorch as ddp

    network = ddp.Unet(dim, dim_mults=MULTIPLIERS, channels=1, flash_attn=True)
    network = network.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    settings = {"image_size": SHAPE[1], "timesteps": T, "sampling_timesteps": S, "auto_normalize": False}
    diffusion = ddp.GaussianDiffusion(network, objective="pred_noise", beta_schedule="linear", **settings).to(device)
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


def diffusers(base: int, channels_last: bool, device: torch.device = CPU) -> Candidate:
    network, noising = diffusers_network(base, channels_last).to(device), scheduler("train")

    def loss(x: Tensor) -> Tensor:
        noise, t = torch.randn_like(x), torch.randint(0, T, (len(x),), device=device)
        return nn.functional.mse_loss(network(noising.add_noise(x, noise, t), t).sample, noise)

    def draw() -> Tensor:
        return diffusers_draw(lambda x, t: network(x, t).sample, torch.randn(DRAWS, *SHAPE, device=device))

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


PEERS = {  # name -> its maker, and the widths that it takes
    "denoising-diffusion-pytorch": (denoising_diffusion, range(16, 65, 2)),
    "diffusers": (diffusers, range(16, 65, 8)),  # in groups of eight channels
}
WHY = "Most of a step are convolutions, which all hand to the same library."


def main(setting: Setting) -> Result:
    device = setting.device
    agreement = Agreement(
        "relative difference of the images drawn by our DDIM and diffusers', one network, float64",
        the_samplers_agree(),
        1e-6,  # their schedule is float32
    )
    found = Result("diffusion_peers", "U-Nets on images of 28x28: training steps, and draws by DDIM", device=device)
    torch.manual_seed(0)
    candidates, peers = {OURS: ours(device)}, {}
    parameters = candidates[OURS].parameters
    for name, (make, widths) in PEERS.items():
        width = nearest(lambda w, make=make: make(w, False).network, widths, parameters)
        candidates[name] = make(width, False, device)
        candidates[f"{name}, channels last"] = make(width, True, device)
        peers |= {name: name, f"{name}, channels last": name}
    for name, each in candidates.items():
        found.notes[f"parameters, {name}"] = f"{each.parameters:,}"
    x = torch.rand(BATCH, *SHAPE, device=device) * 2 - 1
    adams = {name: torch.optim.Adam(c.network.parameters(), 1e-4, fused=True) for name, c in candidates.items()}
    steps = setting.size(STEPS, 1)

    for precision, dtype in PRECISIONS.items():

        def train(name: str, amp: Any = "bf16" if dtype else None) -> int:
            candidates[name].network.train()
            for _ in range(steps):
                sgd_step(lambda x: (candidates[name].loss(x), {}), adams[name], x, amp=amp)
            return steps

        def draw(name: str, dtype: torch.dtype | None = dtype) -> int:
            candidates[name].network.eval()
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype is not None):
                assert candidates[name].draw().isfinite().all()
            return DRAWS

        rows = (
            ("training step", "steps/s", train, f"batch {BATCH}, Adam"),
            (f"DDIM in {S} steps", "images/s", draw, f"{DRAWS} images at once"),
        )
        for title, unit, work, what in rows:
            turns = {name: (lambda name=name, work=work: work(name)) for name in candidates}
            row = Row(
                f"{title}, {precision}",
                unit,
                OURS,
                take_turns(turns, setting.turns(TURNS), setting.size(1, 0), device),
                peers,
                f"as many levels ({', '.join(str(BASE * m) for m in MULTIPLIERS)} channels), about {parameters:,} "
                f"parameters, {what}, {precision}; each package's own network, schedule and loss",
                agreement,
                Target(1.0),
                WHY,
            )
            found.rows.append(row)
    return found
