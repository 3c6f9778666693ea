"""Feature networks by name, and which one a data set's samples are seen by.

>>> import torch
>>> network("raw-pixels", shape=(1, 8, 8), levels=17)(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape
torch.Size([5, 64])
"""

from collections.abc import Callable

from common.errors import ConfigError, DataError, nearest
from common.evaluation.efficientnet import efficientnet_lite0
from common.evaluation.features import Features, inception, lenet, raw_pixels

NETWORKS: dict[str, Callable[[], Features] | None] = {
    "lenet-mnist": lambda: lenet("mnist"),
    "lenet-fashion_mnist": lambda: lenet("fashion_mnist"),
    "raw-pixels": None,  # needs the images' shape
    "efficientnet-lite0": efficientnet_lite0,
    "inception": inception,
}
"""Name -> what makes it. docs/features.md says which takes what."""

ALIASES = {"inception-2015-12-05": "inception"}
"""What a score calls a network -> the name above, where that is not what stands before the digest."""

DEFAULTS = {
    "mnist": "lenet-mnist",
    "dynamic_mnist": "lenet-mnist",  # the same images, in grey
    "fashion_mnist": "lenet-fashion_mnist",
    "cifar10": "inception",  # as in the papers
}
"""Data set -> the network its samples are seen by; for all others these are the pixels."""


def network(name: str, shape: tuple[int, ...] | None = None, levels: int = 256) -> Features:
    """A feature network by its name, with or without a digest: "lenet-mnist", "lenet-mnist@a24bccc1".

    Args:
        shape: (C, H, W) of an image; only raw-pixels needs it.
        levels: how many codes there are, for raw-pixels: 256 for bytes, 17 for `digits`.

    Raises:
        ConfigError: no network of that name, raw-pixels without a shape, or Inception without torch-fidelity.
        DataError: weights that are missing, changed, or not those of the digest asked for.
    """
    plain, _, digest = name.partition("@")
    plain = ALIASES.get(plain, plain)
    if plain not in NETWORKS:
        raise ConfigError(
            f"there is no feature network '{plain}'.{nearest(plain, NETWORKS)} There are: {', '.join(NETWORKS)}."
        )
    make = NETWORKS[plain]
    if make is not None:
        found = make()
    elif shape is None:
        raise ConfigError("raw-pixels needs the shape (C, H, W) of an image, and was given none.")
    else:
        found = raw_pixels(shape, levels)
    if digest and found.name != name:
        raise DataError(f"the weights here are {found.name}, not {name}: scores by the two do not compare.")
    return found


def for_data(dataset: str, shape: tuple[int, ...] | None = None, levels: int = 256) -> Features:
    """The network that samples of a data set are seen by when none is named: a LeNet of that data, Inception, or none.

    Args:
        dataset: its name, "mnist".
        shape: (C, H, W) of an image, for the data sets that no network is for.
        levels: how many codes there are, likewise.

    Raises:
        ConfigError: see `network`.
    """
    name = DEFAULTS.get(dataset, "raw-pixels")
    try:
        return network(name, shape, levels)
    except ConfigError as error:
        if name != "inception":
            raise
        raise ConfigError(f"{error} Or name efficientnet-lite0, which is here and is not the FID's network.") from None
