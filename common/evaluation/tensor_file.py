"""Files of one tensor: .npy, .npz, .safetensors, .pt. None is ever unpickled."""

import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import DataError
from common.evaluation.images import Images, Like, check_like

TENSOR_FILES = (".npy", ".npz", ".safetensors", ".pt")

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

SPLITS = ("train", "val", "test")

MAX_BYTES = 2**35  # of a tensor file's content: 32 GiB

NAMES = ("samples", "images", "x", "features", "arr_0")
"""What the tensor may be called in a file that holds several."""


def images_of(array: Tensor, path: Path | str, name: str, like: Like | None, split: str) -> Images:
    """The images of a tensor: layout, type and range checked, floats turned into the nearest codes."""
    if array.ndim == 0 or len(array) == 0:
        raise DataError(f"{path}: holds no samples at all ({described(array)}).")
    array = _channels_first(array, path, like)
    check_like(tuple(array.shape[1:]), like, str(path))
    levels = like.levels if like else 256
    if array.dtype == torch.uint8:
        largest = int(array.max())
        if largest >= levels:
            whole = " Black and white as 0 and 255 are divided by 255 first." if largest == 255 and levels == 2 else ""
            raise DataError(
                f"{path}: a code of {largest}, where {like.name if like else 'data'} has {levels} levels: save the "
                f"codes 0 ... {levels - 1} themselves, or floats in [0, 1], which become the nearest code.{whole}"
            )
        dark = f"the largest code in {name} is {largest} of 255: were floats cut off to whole numbers?"
        return Images(
            name,
            len(array),
            tuple(array.shape[1:]),
            lambda rows: array[rows],
            split,
            (dark,) if levels == 256 and largest <= 1 else (),
        )
    if array.dtype not in FLOATS:
        raise DataError(f"{path}: {described(array)}; samples are uint8 codes, or floats in [0, 1]. Save them so.")
    _check_floats(array, path)

    def read(rows: Sequence[int]) -> Tensor:
        return (array[rows].double() * (levels - 1)).round().to(torch.uint8)

    note = f"floats in [0, 1], rounded to the nearest of {levels} codes"
    return Images(name, len(array), tuple(array.shape[1:]), read, split, (note,))


def _check_floats(array: Tensor, path: Path | str) -> None:
    """Finite, and in [0, 1]."""
    bad, values, first, least, most = 0, 0, -1, float("inf"), float("-inf")
    for start, part in zip(range(0, len(array), 1000), torch.split(array, 1000), strict=True):
        finite = part.isfinite()
        if not finite.all():
            rows = (~finite).flatten(1).any(1)
            first = start + int(rows.nonzero()[0]) if first < 0 else first
            bad, values = bad + int(rows.sum()), values + int((~finite).sum())
        else:
            least, most = min(least, float(part.min())), max(most, float(part.max()))
    if bad:
        raise DataError(
            f"{path}: {values:,} values in {bad:,} of {len(array):,} samples are NaN or infinite, the first in sample "
            f"{first} (counted from 0). Look at what made them; no metric is computed of the rest."
        )
    if least < 0 or most > 1:
        guess = "Values of [-1, 1] are brought there by (x + 1) / 2" if -1 <= least < 0 and most <= 1 else ""
        guess = "Codes of 0 ... 255 are saved as uint8" if least >= 0 and 1 < most <= 255 else guess
        clip = f"{guess}; what is beyond, clip before you save it" if guess else "Clip them before you save them"
        raise DataError(f"{path}: floats from {least:.4g} to {most:.4g}; they have to lie in [0, 1]. {clip}.")


def _channels_first(array: Tensor, path: Path | str, like: Like | None) -> Tensor:
    """(N, C, H, W) of (N, C, H, W), (N, H, W, C), (N, H, W), or rows of as many pixels as a grey image has."""
    shape = tuple(array.shape[1:])
    if like and shape == like.shape:
        return array
    if len(shape) == 3:
        if shape[0] in (1, 3):
            return array
        if shape[2] in (1, 3):
            return array.permute(0, 3, 1, 2)
    if len(shape) == 2:
        return array[:, None]
    if like and len(like.shape) == 3 and like.shape[0] == 1 and shape == (like.shape[1] * like.shape[2],):
        return array.reshape(-1, *like.shape)
    raise DataError(f"{path}: {described(array)}; samples are (N, C, H, W) with C of 1 (grey) or 3 (RGB).")


def described(array: Tensor) -> str:
    return f"{str(array.dtype).removeprefix('torch.')} {tuple(array.shape)}"


def split_said(metadata: dict[str, str], path: Path) -> str:
    """The split that a file's metadata name."""
    split = metadata.get("split", "")
    if split and split not in SPLITS:
        raise DataError(f"{path}: its metadata name the split '{split[:40]}'; there are {', '.join(SPLITS)}.")
    return split


def read_tensor(path: Path) -> tuple[Tensor, dict[str, str]]:
    """The one tensor of a file, and its metadata."""
    readers: dict[str, Callable[[Path], tuple[dict[str, Any], dict[str, str]]]] = {
        ".npy": _npy,
        ".npz": _npz,
        ".safetensors": read_safetensors,
        ".pt": _pt,
    }
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise DataError(f"{path}: a tensor file ends in {', '.join(readers)}.")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path}: is larger than {MAX_BYTES / 2**30:.0f} GiB; save it in parts, as images.")
    arrays, metadata = readers[suffix](path)
    name = next(iter(arrays), "") if len(arrays) == 1 else next((n for n in NAMES if n in arrays), "")
    if not name:
        held = f"{len(arrays)} tensors ({', '.join(sorted(arrays)[:5])})" if arrays else "no tensor"
        raise DataError(f"{path}: holds {held}; one is wanted, or one named '{NAMES[0]}'.")
    array = arrays[name]
    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "fu" or (array.dtype.kind == "u" and array.dtype.itemsize > 1):
            raise DataError(
                f"{path}: {array.dtype} {array.shape}; samples are uint8 codes, or floats in [0, 1]. Save them so."
            )
        array = array if array.dtype.itemsize <= 8 else array.astype(np.float64)
        # Little-endian, and writable: torch takes no other, and a file that is mapped cannot be written to.
        array = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    return array, metadata


def _npy(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    _begins(path, "a .npy file", b"\x93NUMPY", b"PK", *PICKLES)  # numpy takes all else for a pickle, and says so
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except Exception as error:  # numpy raises what it likes at a damaged file
        raise _unreadable(path, "a .npy file", error) from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: is an archive of arrays; call it .npz.")
    return {"samples": array}, {}


def _npz(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_BYTES:
            raise DataError(f"{path}: unpacks to more than {MAX_BYTES / 2**30:.0f} GiB, and was not opened.")
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}, {}
    except DataError:
        raise
    except Exception as error:  # as above
        raise _unreadable(path, "a .npz file", error) from None


def read_safetensors(path: Path, content: bool = True) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys()) if content else []
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except Exception as error:  # safetensors raises its own, undocumented types
        raise _unreadable(path, "a safetensors file", error) from None


def _pt(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    _begins(path, "a .pt file of tensors", b"PK", *PICKLES)  # before 2020 torch wrote tensors behind a pickle
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # at how a file was written, which is not its reader's doing
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds at what it does not take
        raise _unreadable(path, "a .pt file of tensors", error) from None
    if isinstance(content, Tensor):
        content = {"samples": content}
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}; one tensor is wanted.")
    return {str(name): value.detach() for name, value in content.items() if isinstance(value, Tensor)}, {}


PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
"""What a pickle begins with, since protocol 2."""


def _begins(path: Path, what: str, *magic: bytes) -> None:
    """Refuse a file that does not begin as its kind does."""
    with open(path, "rb") as file:
        first = file.read(8)
    if not first.startswith(magic):
        raise DataError(f"{path}: is not {what}, or is damaged (it begins otherwise).")


def _unreadable(path: Path, what: str, error: Exception) -> DataError:
    """A damaged file, or one that would have to be unpickled; numpy's and torch's own words recommend to allow that."""
    said = str(error).lower()
    if any(word in said for word in ("pickle", "python objects", "weights_only")):
        return DataError(f"{path}: is a pickle, or holds one, and is never loaded: that would run it. Save tensors.")
    return DataError(f"{path}: is not {what}, or is damaged ({type(error).__name__}).")
