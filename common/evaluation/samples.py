"""Samples as people keep them: a folder of images, or a file of one tensor. Nothing in them is ever run.

>>> from common.evaluation.samples import Like, open_images
>>> images = open_images(Path("my-samples"), Like("fashion_mnist", (1, 28, 28), 256))   # doctest: +SKIP
>>> images                                                                             # doctest: +SKIP
Images(my-samples, 5,000 x (1, 28, 28))
>>> next(images.batches(100)).dtype                                                    # doctest: +SKIP
torch.uint8

What counts as a sample, and how it becomes a code like the data's:

    folder          every PNG, JPEG, BMP, WebP, TIFF or PNM file in it and in its folders, in the order of their paths.
                    Grey (modes 1, L) or RGB, all of one size. v of 0 ... 255 is the code round(v (levels - 1) / 255).
    tensor file     .npy, .npz, .safetensors, .pt: (N, C, H, W), (N, H, W, C) or, grey, (N, H, W); rows (N, H W) of
                    pixels where the data are known, and grey. uint8 are codes as they are. Floats lie in [0, 1], and x
                    is the nearest code, round(x (levels - 1)): floor would make all images darker by half a level.
    features        .safetensors whose metadata say `network`: (N, d), already seen by that network.

What a file or a folder holds is checked before anything is computed from it. Images are decoded as they are asked for.
"""

import os
from pathlib import Path

from torch import Tensor

from common.errors import DataError
from common.evaluation.bank import Bank
from common.evaluation.image_folder import IMAGE_FORMATS, read_folder
from common.evaluation.images import Digest, Images, Like
from common.evaluation.tensor_file import (
    FLOATS,
    TENSOR_FILES,
    described,
    images_of,
    read_safetensors,
    read_tensor,
    split_said,
)

__all__ = [
    "Digest",
    "Images",
    "Like",
    "is_features",
    "of_tensor",
    "of_values",
    "open_images",
    "read_features",
    "write_features",
]


def of_tensor(codes: Tensor, name: str, split: str = "") -> Images:
    """Codes (N, ...) in memory, as `Images`."""
    return Images(name, len(codes), tuple(codes.shape[1:]), lambda rows: codes[rows], split)


def of_values(values: Tensor, name: str, like: Like | None = None) -> Images:
    """What a model has drawn, as if it had been read from a file: codes, or floats in [0, 1].

    Raises:
        DataError: see `open_images`.
    """
    return images_of(values.detach().cpu(), name, name, like, "")


def is_features(path: Path) -> bool:
    """Whether a file holds features: a safetensors file whose metadata name a network."""
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        return False
    return "network" in read_safetensors(path, content=False)[1]


def open_images(path: Path, like: Like | None = None, name: str = "") -> Images:
    """The samples of a folder or a tensor file, checked against what they have to be like.

    Args:
        like: the data's images; without it, any size will do that all samples share.
        name: what messages and protocols call them; the last part of the path when empty.

    Raises:
        DataError: nothing is there, or nothing in it; a file is damaged, not an image, or leads out of the folder;
            sizes or colours differ, or are not the data's; values are not finite or out of range; a pickle.
    """
    name = name or path.name or str(path)
    if path.is_dir():
        return read_folder(path, like, name)
    if not path.exists():
        raise DataError(f"{path}: there is no such folder or file.")
    suffix = path.suffix.lower()
    if suffix in IMAGE_FORMATS:
        raise DataError(f"{path}: one image is no set of samples; name the folder that holds them.")
    if suffix not in TENSOR_FILES:
        raise DataError(f"{path}: samples are a folder of images, or a file of {', '.join(TENSOR_FILES)}.")
    array, metadata = read_tensor(path)
    return images_of(array, path, name, like, split_said(metadata, path))


def read_features(path: Path, name: str = "") -> Bank:
    """A file of features as a bank; its metadata name the `network`, and may name the `split`.

    Raises:
        DataError: it is no such file, is damaged, or holds what is not finite.
    """
    array, metadata = read_tensor(path)
    network = metadata.get("network", "")
    if not network:
        raise DataError(f"{path}: its metadata name no 'network', so nobody can say what these features are.")
    if array.ndim != 2 or array.dtype not in FLOATS:
        raise DataError(f"{path}: features are floats (N, d); these are {described(array)}.")
    if len(array) == 0:
        raise DataError(f"{path}: holds no features at all.")
    try:
        return Bank(network, name or path.name, split_said(metadata, path)).add(array)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def write_features(bank: Bank, path: Path) -> None:
    """Keep a bank as a file that `read_features` reads: it appears whole or not at all."""
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    said = {"network": bank.network, "source": bank.source, "split": bank.split}
    content = save({"features": bank.x.contiguous()}, metadata={key: value for key, value in said.items() if value})
    part.write_bytes(content)  # safetensors' own writing lets nobody else read the file
    os.replace(part, path)
