"""Dense networks: linear layers with an activation between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn


def dense(sizes: Sequence[int], activation: type[nn.Module], *, zero: bool = False) -> nn.Sequential:
    """A network from vectors of sizes[0] values to vectors of sizes[-1], with hidden layers of the sizes between.

    zero: the last layer's weights and biases begin at zero, and so do the outputs.
    """
    layers: list[nn.Module] = []
    for size, following in itertools.pairwise(sizes):
        layers += [nn.Linear(size, following), activation()]
    last = layers[-2]
    if zero:
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
    return nn.Sequential(*layers[:-1])
