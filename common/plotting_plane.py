"""Pictures of densities on the plane: the exact one beside a model's, and the model's samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.data.toy import ToyDensity


def grid(density: ToyDensity, points: int = 201) -> Tensor:
    """Points of a square grid over the density's extent, (points * points, 2), row by row from the top."""
    axis = torch.linspace(*density.extent, points)
    y, x = torch.meshgrid(axis.flip(0), axis, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


def draw_density(axes: Any, density: ToyDensity, log_prob: Callable[[Tensor], Tensor], brightest: float) -> None:
    """exp(log_prob) on the density's extent; `brightest` is the log-density that is drawn darkest."""
    points = grid(density)
    with torch.no_grad():
        values = log_prob(points).sub(brightest).exp().view(201, 201).cpu().numpy()
    low, high = density.extent
    axes.imshow(values, extent=(low, high, low, high), cmap="Blues", vmin=0, vmax=1)


def density_picture(
    path: Path, density: ToyDensity, log_prob: Callable[[Tensor], Tensor], samples: Tensor, *, dpi: int = 100
) -> None:
    """Write a PNG of three squares: the exact density, the model's in the same colours, and the model's samples.

    Args:
        log_prob: the model's, points (B, 2) -> (B,) nats.
        samples: the model's, (n, 2).
    """
    import matplotlib.pyplot as plt

    low, high = density.extent
    brightest = float(density.log_prob(grid(density)).max())
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.2))
    draw_density(axes[0], density, density.log_prob, brightest)
    draw_density(axes[1], density, log_prob, brightest)
    axes[2].scatter(*samples.cpu().numpy().T, s=1, linewidths=0)
    for each, title in zip(axes, (f"{density.name}, exact", "the model's density", "its samples"), strict=True):
        each.set(title=title, xlim=(low, high), ylim=(low, high), aspect="equal", xticks=[], yticks=[])
        each.grid(False)
    part = path.with_name(path.name + ".part")
    figure.savefig(part, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    part.replace(path)
