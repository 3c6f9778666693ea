"""Pictures of results: image grids and learning curves in one plain style. Nothing here changes a number."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Okabe & Ito's palette: told apart with any colour vision, in print, on light and dark ground.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5C5C5C", "#B8860B")


def style() -> None:
    """Matplotlib settings of every figure; call once at the top of a notebook."""
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update(
        {
            "figure.figsize": (7.0, 4.0),
            "figure.dpi": 110,
            "savefig.dpi": 150,
            "savefig.bbox": "tight",
            "font.size": 10,
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e4e4e4",
            "grid.linewidth": 0.7,
            "axes.axisbelow": True,
            "legend.frameon": False,
        }
    )


def tile(images: Tensor | np.ndarray, columns: int | None = None, gap: int = 2, ground: float = 1.0) -> np.ndarray:
    """Arrange images in rows.

    Args:
        images: (N, H, W) or (N, C, H, W), values in [0, 1] or uint8 in [0, 255]; C is 1 or 3.
        columns: images in a row; a near-square arrangement by default.
        gap: pixels between images.
        ground: grey level of the gaps, in [0, 1].

    Returns:
        (rows * (H + gap) - gap, columns * (W + gap) - gap[, 3]) float in [0, 1].
    """
    x = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    if x.ndim not in (3, 4) or len(x) == 0:
        raise ValueError(f"expected images of shape (N, H, W) or (N, C, H, W), N >= 1, got {x.shape}")
    x = x.astype(np.float64) / 255 if x.dtype == np.uint8 else np.clip(x.astype(np.float64), 0, 1)
    x = x[:, None] if x.ndim == 3 else x
    n, channels, height, width = x.shape
    columns = columns or int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), ground)
    for i, image in enumerate(x):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return canvas[..., 0] if channels == 1 else canvas


def squares(x: Tensor) -> Tensor:
    """Vectors (N, D) as images (N, H, W), as square as they come; what is left over of D is left out. Images stay."""
    if x.ndim != 2:
        return x
    height = int(x.shape[1] ** 0.5)
    return x[:, : height * (x.shape[1] // height)].reshape(len(x), height, -1)


def image_grid(images: Tensor | np.ndarray, path: Path, columns: int | None = None, enlarge: int = 2) -> None:
    """Write `tile(images)` as a PNG, each pixel enlarged to a square so that small images stay sharp."""
    from matplotlib import image

    picture = tile(images, columns).repeat(enlarge, 0).repeat(enlarge, 1)
    part = path.with_name(path.name + ".part")
    image.imsave(part, picture, cmap="gray", vmin=0, vmax=1, format="png")
    part.replace(path)


def learning_curves(
    axes: Any, curves: Mapping[str, Sequence[Mapping[str, float]]], metric: str, *, unit: str, skip: int = 0
) -> None:
    """Draw one metric of several runs against the number of updates, each line labelled at its end.

    Args:
        axes: Matplotlib axes.
        curves: run -> the rows of its `metrics.jsonl` (`common.records.read_metrics`).
        metric: the key to draw.
        unit: for the axis label.
        skip: leave out so many first rows, where the curve falls too steeply to see the rest.
    """
    for (name, rows), colour in zip(curves.items(), COLOURS * (1 + len(curves) // len(COLOURS)), strict=False):
        points = [(row["step"], row[metric]) for row in rows if metric in row][skip:]
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, color=colour, label=name, linewidth=1.5)
    axes.set(xlabel="updates", ylabel=f"{metric} ({unit})")
    axes.legend()


def critic_picture(
    path: Path,
    critic: Callable[[Tensor], Tensor],
    data: Tensor,
    samples: Tensor,
    weights: Tensor,
    gradients: Tensor,
    reach: float = 3.0,
) -> None:
    """Write a PNG of three panels: a critic's value surface on the plane, its weights, its gradients by layer.

    Args:
        critic: points (B, 2) -> (B,).
        data, samples: (n, 2), drawn on the surface.
        weights: any number of them, (W,), for a histogram.
        gradients: norm of a gradient at each layer, from the input on, (L,).
        reach: the surface is drawn on [-reach, reach] squared.
    """
    from matplotlib.figure import Figure

    axis = torch.linspace(-reach, reach, 128)
    with torch.no_grad():
        surface = critic(torch.cartesian_prod(axis, axis).to(data)).view(128, 128).T.cpu()
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.contour(axis, axis, surface, levels=15, cmap="viridis", linewidths=0.8)
    for points, colour, name in ((samples, COLOURS[2], "samples"), (data, COLOURS[1], "data")):
        left.plot(*points.cpu().T, ".", color=colour, markersize=2, alpha=0.5, label=name)
    left.legend(loc="upper right", fontsize=7, markerscale=3)
    left.set(title="the critic's values", xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    middle.hist(weights.detach().cpu(), bins=61, color=COLOURS[0])
    middle.set(title="its weights", yscale="log")
    right.semilogy(range(1, len(gradients) + 1), gradients.detach().cpu(), "o-", color=COLOURS[0], markersize=3)
    right.set(title="norm of its gradient", xlabel="layer, from the input on")
    part = path.with_name(path.name + ".part")
    figure.savefig(part, format="png", dpi=110, metadata={"Software": None})
    part.replace(path)
