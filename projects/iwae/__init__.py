"""Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, ICLR 2016)."""

from typing import Any


def generate(config: Any, model: Any, n: int, *, levels: int, generator: Any) -> Any:
    """n draws from p(x) as codes, uint8 (n, 1, H, W): black and white, as the data are, not probabilities of pixels."""
    import torch

    x_ND = torch.bernoulli(model.sample(n, generator=generator), generator=generator)
    side = round(x_ND.shape[1] ** 0.5)
    return ((levels - 1) * x_ND).to(torch.uint8).view(n, 1, side, side)


def sampling(config: Any) -> str:
    """What decides how samples come out: whether pixels are drawn."""
    return "pixels drawn from p(x|h)"
