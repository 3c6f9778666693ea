"""Auto-Encoding Variational Bayes (Kingma & Welling, ICLR 2014)."""

from typing import Any


def sampling(config: Any) -> str:
    """What decides how samples come out: whether pixels are drawn; `VAE.sample` gives their means."""
    return "means of pixels, E[x|z]"
