"""PixelCNN and Gated PixelCNN (van den Oord et al., 2016)."""

from typing import Any


def generate(config: Any, model: Any, n: int, *, levels: int, generator: Any) -> Any:
    """n draws as codes, uint8 (n, C, H, W); where a class is given, of classes drawn uniformly."""
    from projects.pixelcnn.pixelcnn import Scale, torch

    y = torch.randint(10, (n,), generator=generator, device=generator.device) if config.conditional else None
    return Scale(levels).decode(model.sample(n, y, generator=generator))


def sampling(config: Any) -> str:
    """What decides how samples come out: of which classes they are."""
    return "classes drawn uniformly" if config.conditional else ""
