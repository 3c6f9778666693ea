"""What is done to images before they are scored, rightly and as it is often done wrongly."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def shifted(codes: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Each image (N, C, H, W) moved by so many pixels up, down, left or right; zeros come in."""
    height, width = codes.shape[-2:]
    wide = F.pad(codes, [pixels] * 4)
    directions = torch.tensor([(0, 1), (2, 1), (1, 0), (1, 2)])
    corners = pixels * directions[torch.randint(4, (len(codes),), generator=generator)]
    moved = [x[:, i : i + height, j : j + width] for x, (i, j) in zip(wide, corners.tolist(), strict=True)]
    return torch.stack(moved)


def resized(codes: Tensor, size: int, *, antialias: bool) -> Tensor:
    """uint8 images (N, C, H, W) as (N, C, size, size), by bilinear interpolation, rounded to the nearest code.

    Without antialiasing a pixel of the smaller image is made of four pixels of the larger one, however many it covers.
    """
    x = F.interpolate(codes.float(), size=(size, size), mode="bilinear", antialias=antialias)
    return x.round().clamp(0, 255).to(torch.uint8)


CODECS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "round": (lambda codes: codes / 255, lambda x: (255 * x).round().to(torch.uint8)),
    "floor": (lambda codes: codes / 255, lambda x: (255 * x).to(torch.uint8)),
    "signed": (lambda codes: codes / 127.5 - 1, lambda x: ((x + 1) * 127.5).to(torch.uint8)),
}
"""Codes 0..255 to the real numbers that a model sees, and back to uint8: right, and two ways that round down."""
