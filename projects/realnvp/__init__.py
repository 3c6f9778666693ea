"""Density estimation using Real NVP (Dinh, Sohl-Dickstein & Bengio 2017)."""

from typing import Any


def generate(config: Any, model: Any, n: int, *, levels: int, generator: Any) -> Any:
    """n draws from p as codes, uint8 (n, C, H, W)."""
    from common.data import Compose, Dequantise, Logit

    return Compose(Dequantise(levels), Logit(config.alpha)).decode(model.sample(n, generator=generator))
