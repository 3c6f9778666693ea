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
    tensor file     .npy, .npz, .safetensors, .pt: (N, C, H, W), (N, H, W, C) or, grey, (N, H, W). uint8 are codes as
                    they are. Floats lie in [0, 1], and x is the nearest code, round(x (levels - 1)): floor would make
                    all images darker by half a level.
    features        .safetensors whose metadata say `network`: (N, d), already seen by that network.

What a file or a folder holds is checked before anything is computed from it. Images are decoded as they are asked for.
"""

import hashlib
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import DataError
from common.evaluation.bank import Bank

IMAGE_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".pgm": "PPM",
    ".ppm": "PPM",
}
"""Files of a folder that are images, by how their names end. No other format is opened: some can run programs."""

TENSOR_FILES = (".npy", ".npz", ".safetensors", ".pt")

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

SPLITS = ("train", "val", "test")

MAX_BYTES = 2**35  # of a tensor file's content: 32 GiB

NAMES = ("samples", "images", "x", "features", "arr_0")
"""What the tensor may be called in a file that holds several."""


@dataclass(frozen=True)
class Like:
    """What samples have to be like: the images of a data set."""

    name: str
    shape: tuple[int, ...]  # (C, H, W), or (D,) of vectors
    levels: int = 256


@dataclass(frozen=True, repr=False)
class Images:
    """Samples as codes, read in batches.

    shape: of one of them, (C, H, W).
    split: which split of the data they are to be compared with, where their file says so; "" where it does not.
    notes: what a reader of scores should know about how they were read, one sentence each.
    """

    name: str
    n: int
    shape: tuple[int, ...]
    read: Callable[[Sequence[int]], Tensor]  # places -> uint8 (B, C, H, W)
    split: str = ""
    notes: tuple[str, ...] = ()

    def batches(self, size: int, rows: Tensor | None = None) -> Iterator[Tensor]:
        """uint8 (B, C, H, W) codes: all of them, or those at `rows` (n,), in that order.

        Raises:
            DataError: a file turns out to be damaged; it is named.
        """
        for some in torch.split(torch.arange(self.n) if rows is None else rows, size):
            yield self.read(some.tolist())

    def __repr__(self) -> str:
        return f"Images({self.name}, {self.n:,} x {self.shape})"


class Digest:
    """SHA-256 of codes (N, ...) that come in batches: of their shape, type and values, whatever file held them."""

    def __init__(self, shape: Sequence[int]) -> None:
        self._sha = hashlib.sha256(f"uint8 {tuple(shape)}\n".encode())

    def add(self, codes: Tensor) -> None:
        """Take in the next batch."""
        self._sha.update(codes.contiguous().cpu().numpy().data)

    def hex(self) -> str:
        """64 hexadecimal digits."""
        return self._sha.hexdigest()


def of_tensor(codes: Tensor, name: str, split: str = "") -> Images:
    """Codes (N, ...) in memory, as `Images`."""
    return Images(name, len(codes), tuple(codes.shape[1:]), lambda rows: codes[rows], split)


def of_values(values: Tensor, name: str, like: Like | None = None) -> Images:
    """What a model has drawn, as if it had been read from a file: codes, or floats in [0, 1].

    Raises:
        DataError: see `open_images`.
    """
    return _of_array(values.detach().cpu(), name, name, like, "")


def is_features(path: Path) -> bool:
    """Whether a file holds features: a safetensors file whose metadata name a network."""
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        return False
    return "network" in _safetensors(path, content=False)[1]


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
        return _folder(path, like, name)
    if not path.exists():
        raise DataError(f"{path}: there is no such folder or file.")
    suffix = path.suffix.lower()
    if suffix in IMAGE_FORMATS:
        raise DataError(f"{path}: one image is no set of samples; name the folder that holds them.")
    if suffix not in TENSOR_FILES:
        raise DataError(f"{path}: samples are a folder of images, or a file of {', '.join(TENSOR_FILES)}.")
    array, metadata = _array(path)
    return _of_array(array, path, name, like, _split_said(metadata, path))


def read_features(path: Path, name: str = "") -> Bank:
    """A file of features as a bank; its metadata name the `network`, and may name the `split`.

    Raises:
        DataError: it is no such file, is damaged, or holds what is not finite.
    """
    array, metadata = _array(path)
    network = metadata.get("network", "")
    if not network:
        raise DataError(f"{path}: its metadata name no 'network', so nobody can say what these features are.")
    if array.ndim != 2 or array.dtype not in FLOATS:
        raise DataError(f"{path}: features are floats (N, d); these are {_described(array)}.")
    if len(array) == 0:
        raise DataError(f"{path}: holds no features at all.")
    try:
        return Bank(network, name or path.name, _split_said(metadata, path)).add(array)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def write_features(bank: Bank, path: Path) -> None:
    """Keep a bank as a file that `read_features` reads: it appears whole or not at all."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    said = {"network": bank.network, "source": bank.source, "split": bank.split}
    save_file({"features": bank.x.contiguous()}, part, metadata={key: value for key, value in said.items() if value})
    os.replace(part, path)


# -- Folders of images -------------------------------------------------------------------------------------------------


def _folder(path: Path, like: Like | None, name: str) -> Images:
    files = _image_files(path)
    kinds: dict[tuple[int, tuple[int, int]], list[Path]] = {}  # (channels, (height, width)) -> files
    formats: set[str] = set()
    for file in files:
        channels, size, kind = _header(file, path)
        kinds.setdefault((channels, size), []).append(file)
        formats.add(kind)
    _all_alike(kinds, path)
    ((channels, (height, width)),) = kinds
    shape = (channels, height, width)
    _check_like(shape, like, str(path))
    levels = like.levels if like else 256

    def read(rows: Sequence[int]) -> Tensor:
        pictures = np.stack([_decoded(files[i], path, shape) for i in rows])
        codes = torch.from_numpy(pictures)
        return codes if levels == 256 else (codes.double() * (levels - 1) / 255).round().to(torch.uint8)

    lossy = formats & {"JPEG", "WEBP"}
    note = f"{' and '.join(sorted(lossy))} files: compression alone changes scores, so compare with no others"
    return Images(name, len(files), shape, read, notes=(note,) if lossy else ())


def _image_files(path: Path) -> list[Path]:
    """The image files below a folder, in the order of their paths; no link leads out of it."""
    root = path.resolve()
    found: list[Path] = []
    others: list[str] = []
    for folder, below, files in os.walk(path):
        below[:] = [each for each in below if not each.startswith(".")]
        for each in (Path(folder, entry) for entry in (*below, *files) if not entry.startswith(".")):
            if each.is_symlink() and not each.resolve().is_relative_to(root):
                raise DataError(f"{each}: a link that leads out of the folder is not followed; copy what it leads to.")
            if each.is_dir():
                continue
            if each.suffix.lower() in IMAGE_FORMATS:
                found.append(each)
            else:
                others.append(each.name)
    if not found:
        instead = f" It holds {', '.join(sorted(others)[:3])}{', …' * (len(others) > 3)}." if others else ""
        raise DataError(
            f"{path}: this folder holds no image ({', '.join(IMAGE_FORMATS)}).{instead} Name the folder that the "
            "samples are in."
        )
    return sorted(found, key=lambda file: file.relative_to(path).as_posix())


def _opened(file: Path, shown: str) -> Any:
    """An image, its header read. One of a format that is not wanted, or too large to be one, is refused."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # at what else a file may hold, like the camera's notes
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(file, formats=sorted(set(IMAGE_FORMATS.values())))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(
            f"{shown}: says that it is larger than {Image.MAX_IMAGE_PIXELS:,} pixels, and was not decoded."
        ) from None
    except FileNotFoundError:
        raise DataError(f"{shown}: is gone, or is a link to nothing.") from None
    except Exception as error:  # PIL raises what it likes at a damaged file
        raise DataError(f"{shown}: is not an image that can be read ({_reason(error)}).") from None


def _header(file: Path, folder: Path) -> tuple[int, tuple[int, int], str]:
    """Channels, (height, width) and format of an image; nothing of its content is decoded."""
    shown = f"{folder}: {file.relative_to(folder).as_posix()}"
    with _opened(file, shown) as image:
        width, height = image.size
        mode = image.mode
        if getattr(image, "n_frames", 1) > 1:
            raise DataError(f"{shown}: holds {image.n_frames} pictures; a sample is one picture a file.")
        if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            raise DataError(
                f"{shown}: is partly transparent (mode {mode}), and what shows through is not known; save it as RGB or "
                "grey."
            )
        if mode == "P":
            mode = "L" if _grey_palette(image) else "RGB"
        channels = {"1": 1, "L": 1, "RGB": 3}.get(mode)
        if channels is None:
            raise DataError(f"{shown}: is of mode {mode}; images have 8 bits and are grey (L) or RGB. Convert it.")
        return channels, (height, width), image.format or ""


def _grey_palette(image: Any) -> bool:
    palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _decoded(file: Path, folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 (C, H, W) of an image."""
    shown = f"{folder}: {file.relative_to(folder).as_posix()}"
    with _opened(file, shown) as image:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pixels = np.asarray(image.convert("L" if shape[0] == 1 else "RGB"))
        except Exception as error:  # as above; the header was sound
            raise DataError(f"{shown}: is damaged ({_reason(error)}); nothing was computed. Make it again.") from None
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if pixels.shape != shape:
        raise DataError(f"{shown}: has changed while it was read.")
    return pixels


def _reason(error: Exception) -> str:
    """PIL's words without the path, which a message has already."""
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "no known format" if "cannot identify" in said else said[:120]


def _all_alike(kinds: dict[tuple[int, tuple[int, int]], list[Path]], folder: Path) -> None:
    """All images of a folder have one size and are all grey or all colour, or two that differ are named."""
    if len(kinds) == 1:
        return
    (first, some), (second, others), *more = sorted(kinds.items(), key=lambda item: -len(item[1]))
    further = f", and {sum(len(files) for _, files in more):,} more are of {len(more)} other kinds" if more else ""
    raise DataError(
        f"{folder}: the images differ. {len(some):,} are {_kind(*first)} (as {some[0].name}), {len(others):,} are "
        f"{_kind(*second)} (as {others[0].name}){further}. Samples are all of one size, and all grey or all RGB."
    )


def _kind(channels: int, size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]} {'grey' if channels == 1 else 'RGB'}"


def _check_like(shape: tuple[int, ...], like: Like | None, where: str) -> None:
    """The images are of the data's size and colours."""
    if like is None or shape == like.shape:
        return
    if len(shape) != 3 or len(like.shape) != 3:
        raise DataError(f"{where}: samples of shape {shape}; those of {like.name} are {like.shape}.")
    if shape[0] != like.shape[0]:
        colours = {1: "grey", 3: "RGB"}
        is_, wanted = (colours.get(n, f"images of {n} channels") for n in (shape[0], like.shape[0]))
        remedy = "save them as grey, mode L" if like.shape[0] == 1 else "save them as RGB"
        raise DataError(f"{where}: the samples are {is_}, the images of {like.name} are {wanted}: {remedy}.")
    raise DataError(
        f"{where}: the samples are {shape[1]}x{shape[2]}, the images of {like.name} are {like.shape[1]}x"
        f"{like.shape[2]}. Scores depend on how images are resized, so nothing is resized here: make them of that size."
    )


# -- Files of a tensor -------------------------------------------------------------------------------------------------


def _of_array(array: Tensor, path: Path | str, name: str, like: Like | None, split: str) -> Images:
    """The images of a tensor: layout, type and range checked, floats turned into the nearest codes."""
    if array.ndim == 0 or len(array) == 0:
        raise DataError(f"{path}: holds no samples at all ({_described(array)}).")
    array = _channels_first(array, path, like)
    _check_like(tuple(array.shape[1:]), like, str(path))
    levels = like.levels if like else 256
    if array.dtype == torch.uint8:
        largest = int(array.max())
        if largest >= levels:
            raise DataError(f"{path}: a code of {largest}, where {like.name if like else 'data'} has {levels} levels.")
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
        raise DataError(f"{path}: {_described(array)}; samples are uint8 codes, or floats in [0, 1]. Save them so.")
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
    raise DataError(f"{path}: {_described(array)}; samples are (N, C, H, W) with C of 1 (grey) or 3 (RGB).")


def _described(array: Tensor) -> str:
    return f"{str(array.dtype).removeprefix('torch.')} {tuple(array.shape)}"


def _split_said(metadata: dict[str, str], path: Path) -> str:
    """The split that a file's metadata name."""
    split = metadata.get("split", "")
    if split and split not in SPLITS:
        raise DataError(f"{path}: its metadata name the split '{split[:40]}'; there are {', '.join(SPLITS)}.")
    return split


def _array(path: Path) -> tuple[Tensor, dict[str, str]]:
    """The one tensor of a file, and its metadata."""
    readers: dict[str, Callable[[Path], tuple[dict[str, Any], dict[str, str]]]] = {
        ".npy": _npy,
        ".npz": _npz,
        ".safetensors": _safetensors,
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


def _safetensors(path: Path, content: bool = True) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys()) if content else []
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except Exception as error:  # safetensors raises its own, undocumented types
        raise _unreadable(path, "a safetensors file", error) from None


def _pt(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds at what it does not take
        raise _unreadable(path, "a .pt file of tensors", error) from None
    if isinstance(content, Tensor):
        content = {"samples": content}
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}; one tensor is wanted.")
    return {str(name): value.detach() for name, value in content.items() if isinstance(value, Tensor)}, {}


def _unreadable(path: Path, what: str, error: Exception) -> DataError:
    """A damaged file, or one that would have to be unpickled; numpy's and torch's own words recommend to allow that."""
    said = str(error).lower()
    if any(word in said for word in ("pickle", "python objects", "weights_only")):
        return DataError(f"{path}: is a pickle, or holds one, and is never loaded: that would run it. Save tensors.")
    return DataError(f"{path}: is not {what}, or is damaged ({type(error).__name__}).")
