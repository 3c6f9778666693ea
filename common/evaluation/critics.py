"""Measures of critics: functions that tell data from samples, and networks that were trained to be ones.

No paper's idea is in here: what a bounded slope is for, and how it is brought about, is for the projects to say.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.evaluation.likelihood import mean_score
from common.records import Score

Critic = Callable[[Tensor], Tensor]
"""x (B, ...) -> D(x), (B,); each example's value depends on that example alone."""


def slopes(critic: Critic, x: Tensor) -> Tensor:
    """The norm of D's gradient at each example, over all of its values: (B, ...) -> (B,)."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x)
    norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return norms


def dual_values(critic: Critic, x: Tensor, x_fake: Tensor, *, grid: int = 256) -> Tensor:
    """(D(x) - D(x_fake)) / (D's largest slope), a pair at a time, for points in the plane: (B, 2) twice -> (B,).

    By the duality of Kantorovich and Rubinstein the Wasserstein-1 distance of two distributions is the largest mean of
    D(x) - D(x_fake) over all D of slope 1 at most. So the mean of these values tells how much of that distance a critic
    has found, whatever its scale, and cannot exceed it in expectation; provided that the steepest place is found.
    It is sought at all points and on a grid over the rectangle that holds them, which is convex: slopes elsewhere do
    not matter. A place between grid points may be steeper still, so the result is an estimate, rather too large.

    Args:
        grid: points a side.

    Raises:
        ConfigError: not as many points as samples in the plane, or a critic that is flat everywhere.
    """
    if x.shape != x_fake.shape or x.dim() != 2 or x.shape[1] != 2:
        raise ConfigError(f"data {tuple(x.shape)} and samples {tuple(x_fake.shape)} are not both (B, 2).")
    points = torch.cat([x, x_fake]).detach()
    low, high = points.min(0).values, points.max(0).values
    t = torch.linspace(0, 1, grid).to(points)
    places = low + (high - low) * torch.cartesian_prod(t, t)
    steepest = slopes(critic, torch.cat([points, places])).max()
    if not steepest > 0:
        raise ConfigError("the critic is flat (or not finite) everywhere: it tells nothing from nothing.")
    with torch.no_grad():
        return (critic(x) - critic(x_fake)) / steepest


def layer_gradients(network: nn.Sequential, x: Tensor, x_fake: Tensor) -> Tensor:
    """Norms of the gradient of mean D(x_fake) - mean D(x), with respect to the activations of each layer.

    A layer is a linear module with what follows it up to the next one: `layers` values, the lowest layer's first, the
    last one that of D itself. Computed in float64, since they may span more than float32 can hold.

    Args:
        network: modules applied one after the other, (B, ...) -> (B, 1).
    """
    h = torch.cat([x_fake, x]).detach().double()
    activations: list[Tensor] = []
    for module in copy.deepcopy(network).double():
        if isinstance(module, nn.Linear) or not activations:
            activations.append(h := module(h))
        else:
            activations[-1] = h = module(h)
    loss = h[: len(x_fake)].mean() - h[len(x_fake) :].mean()
    return torch.stack([gradient.norm() for gradient in torch.autograd.grad(loss, activations)])


def share_at_extremes(network: nn.Module, within: float = 0.01) -> float:
    """Share of weights whose magnitude is within 1 % of the largest in their layer.

    Of all parameters with two or more dimensions (biases are left out). Independent of a layer's scale: where weights
    are clipped at c and some reach it, the share of those within 1 % of c; of evenly spread weights it is 0.01.
    """
    weights = [p.detach().abs() for p in network.parameters() if p.dim() > 1]
    return float(torch.cat([(w >= (1 - within) * w.max()).flatten() for w in weights]).double().mean())


def critic_scores(
    network: nn.Sequential, x: Tensor, x_fake: Tensor, *, dual: bool, batch: int = 200
) -> tuple[list[Score], dict[str, Tensor]]:
    """A critic of points in the plane in numbers, and the values that they are means of, by the scores' names.

    gradient_decades: powers of ten between the largest and the smallest of `layer_gradients`, in batches.
    weights_at_extremes: `share_at_extremes`.
    dual_value: `dual_values`, if `dual`: comparable only between critics of the same data and the same samples.

    Args:
        x, x_fake: data and samples, (n, 2) each.
        batch: data, and samples, in a batch of gradient_decades.
    """
    norms = [layer_gradients(network, *each) for each in zip(x.split(batch), x_fake.split(batch), strict=True)]  # type: ignore[no-untyped-call]
    values = {"gradient_decades": torch.stack([each.max().log10() - each.min().log10() for each in norms])}
    rules = {
        "gradient_decades": ("decades", f"largest over smallest layer's norm, batches of {batch} and {batch} points")
    }
    if dual:
        values["dual_value"] = dual_values(lambda points: network(points).squeeze(1), x, x_fake)
        rules["dual_value"] = ("distance", f"D(x) - D(G(z)) over the largest slope, {len(x):,} pairs")
    scores = [
        mean_score(values[name], name, unit=unit, kind="estimate", split="test", protocol=rule)
        for name, (unit, rule) in rules.items()
    ]
    number = sum(p.numel() for p in network.parameters() if p.dim() > 1)
    rule = "within 1 % of the largest magnitude in their layer, biases left out"
    share = share_at_extremes(network)
    return [*scores, Score("weights_at_extremes", share, None, number, "share", "exact", "test", "raw", rule)], values


def rank_correlation(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Spearman's rank correlation of two series (n,), n >= 4, and its standard error; equal values share their rank.

    The error is (1 - rho^2) sqrt((1 + rho^2 / 2) / (n - 3)) (Bonett & Wright 2000), which is for independent pairs;
    for a curve and its neighbours it is rather too small.

    Raises:
        ConfigError: the series do not match, or all values of one are equal.
    """
    if a.shape != b.shape or a.dim() != 1 or len(a) < 4:
        raise ConfigError(f"series of shapes {tuple(a.shape)} and {tuple(b.shape)} have no rank correlation.")

    def ranks(x: Tensor) -> Tensor:
        below = (x[:, None] > x[None, :]).sum(1)
        equal = (x[:, None] == x[None, :]).sum(1)
        return below + (equal - 1) / 2

    rank = torch.stack([ranks(a), ranks(b)]).double()
    rank = rank - rank.mean(1, keepdim=True)
    size = rank.square().sum(1).prod().sqrt()
    if not size > 0:
        raise ConfigError("all values of a series are equal: there is no order to compare.")
    rho = float((rank[0] * rank[1]).sum() / size)
    return rho, max(0.0, 1 - rho**2) * math.sqrt((1 + rho**2 / 2) / (len(a) - 3))
