"""Improved Training of Wasserstein GANs (Gulrajani et al., NeurIPS 2017)."""

from typing import Any


def generate(config: Any, model: Any, n: int, *, levels: int, generator: Any) -> Any:
    """n samples G(z) as codes, uint8 (n, C, H, W)."""
    from projects.wgan_gp.wgan_gp import Centred

    return Centred(levels).decode(model.sample(n, generator=generator).detach())
