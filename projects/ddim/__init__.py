"""Denoising Diffusion Implicit Models (Song, Meng & Ermon, ICLR 2021)."""

from typing import Any


def generate(config: Any, model: Any, n: int, *, levels: int, generator: Any) -> Any:
    """n samples of the configuration's S steps and eta as codes, uint8 (n, C, H, W)."""
    from projects.ddim.ddim import SHAPES, Centred, denoiser_of, sample, torch, trajectory

    x_T = torch.randn((n, *SHAPES[config.dataset]), generator=generator, device=generator.device)
    how = {"eta": config.eta, "larger": config.larger, "generator": generator}
    with torch.no_grad():
        x_0 = sample(denoiser_of(config, model), x_T, trajectory(config, config.S), **how)
    return Centred(levels).decode(x_0)


def sampling(config: Any) -> str:
    """What decides how samples come out: how many steps, which ones, and their noise."""
    noise = "hat-sigma" if config.larger else f"eta = {config.eta:g}"
    return f"{config.S} of {config.T:,} steps, {config.spacing}, {noise}"
