"""Denoising Diffusion Probabilistic Models (Ho, Jain & Abbeel, NeurIPS 2020)."""

from typing import Any


def generate(config: Any, model: Any, n: int, *, levels: int, generator: Any) -> Any:
    """n samples as codes, uint8 (n, C, H, W), by chains of the configuration's `sample_steps`."""
    from projects.ddpm.ddpm import Centred, process, sample

    chain = process(config, levels).respaced(config.sample_steps)
    return Centred(levels).decode(sample(config, chain, model, n, generator))


def sampling(config: Any) -> str:
    """What decides how samples come out: how many steps are taken, and their variance."""
    return f"chains of {config.sample_steps} of {config.T:,} steps, variance {config.variance}"
