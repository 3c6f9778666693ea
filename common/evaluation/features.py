"""Named feature extractors: what a sample metric sees of an image.

A score that depends on a network says which: the name has the first eight hex digits of its weights' SHA-256.

>>> from common.evaluation.features import lenet
>>> lenet("mnist").name                                     # doctest: +SKIP
'lenet-mnist@1a2b3c4d'
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load as parse
from torch import Tensor

from common.errors import ConfigError, DataError, nearest
from common.evaluation.lenet import SHA256, WEIGHTS, LeNet


class Features(Protocol):
    """A feature extractor with a name."""

    @property
    def name(self) -> str:
        """What it is, to the bit: "lenet-mnist@1a2b3c4d", "raw-pixels"."""

    @property
    def dims(self) -> int:
        """d, the size of a feature."""

    def __call__(self, codes: Tensor) -> Tensor:
        """uint8 images (B, C, H, W) -> floats (B, d).

        Raises:
            DataError: images of another type or size.
        """


@dataclass(frozen=True)
class _Extractor:
    """Features by a function of images of one shape; None stands for any size."""

    name: str
    dims: int
    shape: tuple[int | None, ...]  # (C, H, W)
    compute: Callable[[Tensor], Tensor]
    levels: int = 256

    def __call__(self, codes: Tensor) -> Tensor:
        if codes.dtype != torch.uint8:
            raise DataError(
                f"{self.name} takes images as uint8 codes, not {str(codes.dtype).removeprefix('torch.')}: "
                "decode samples with the preprocessing that encoded the data."
            )
        size = tuple(codes.shape[1:])
        if len(size) != len(self.shape) or any(
            want not in (None, got) for want, got in zip(self.shape, size, strict=True)
        ):
            wanted = ", ".join("any" if n is None else str(n) for n in self.shape)
            raise DataError(f"{self.name} takes images (B, {wanted}); these are {tuple(codes.shape)}.")
        if self.levels < 256 and len(codes) and int(codes.max()) >= self.levels:
            raise DataError(f"{self.name}: a code of {int(codes.max())}, where there are {self.levels} levels.")
        with torch.no_grad():
            return self.compute(codes)


def lenet(dataset: str) -> Features:
    """The 84 activations before the last layer of a LeNet-5 trained on "mnist" or "fashion_mnist".

    For 28x28 grey images like those it was trained on. `common.evaluation.lenet` says how it was trained, and how well
    it classifies.

    Raises:
        ConfigError: there is none for that data set.
        DataError: its weights are missing or not the published ones.
    """
    if dataset not in SHA256:
        raise ConfigError(
            f"there is no LeNet for '{dataset}'.{nearest(dataset, SHA256)} There are: {', '.join(SHA256)}."
        )
    network = LeNet()
    network.load_state_dict(parse(_verified(WEIGHTS / f"lenet-{dataset}.safetensors", SHA256[dataset])))

    def compute(codes: Tensor) -> Tensor:
        device = next(network.parameters()).device
        return network.features(codes.to(device).float() / 255)

    return _Extractor(f"lenet-{dataset}@{SHA256[dataset][:8]}", LeNet.dims, (1, 28, 28), compute)


def raw_pixels(shape: tuple[int, ...], levels: int = 256) -> Features:
    """The pixels themselves, 0 for black to 1 for white: no network, for where there is none.

    Args:
        shape: (C, H, W) of an image.
        levels: how many codes there are: 256 for bytes, 17 for `digits`.
    """
    dims = int(torch.Size(shape).numel())
    return _Extractor("raw-pixels", dims, shape, lambda codes: codes.flatten(1).double() / (levels - 1), levels)


def inception() -> Features:
    """The 2,048 features of Inception (of 2015, as in Heusel et al. 2017), by which the distance is the paper's FID.

    By torch-fidelity, which is not among the requirements and fetches the weights (92 MB) when first used. For colour
    images of any size; it resizes them as the published FID does.

    Raises:
        ConfigError: torch-fidelity or its torchvision is missing or does not fit torch; it could not get its weights.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except Exception as error:  # torchvision, which it imports, raises RuntimeError and others where it does not fit
        raise ConfigError(
            "the FID needs torch-fidelity, with a torchvision that fits torch, and it cannot be imported here "
            f"({str(error) or type(error).__name__}). In the repository's folder: pip install -e '.[fid]'"
        ) from None
    try:
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).eval()
    except OSError as error:  # no network; URLError is one
        raise ConfigError(f"torch-fidelity could not fetch Inception's weights ({error}).") from None
    return _Extractor("inception-2015-12-05", 2048, (3, None, None), lambda codes: network(codes)[0])


def _verified(path: Path, sha256: str) -> bytes:
    """A file's content, which must have that digest."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: there are no weights. 'git checkout' them, or install the package again.") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"{path}: its SHA-256 begins with {found[:8]}, that of the published weights with {sha256[:8]}. It was "
            "changed: get it back with 'git checkout'."
        )
    return content
