"""Folders of image files: found, checked by their headers, and decoded as they are asked for."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import DataError
from common.evaluation.images import Images, Like, check_like

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


def read_folder(path: Path, like: Like | None, name: str) -> Images:
    """The images of a folder; `samples.open_images` says how, and what it raises."""
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
    check_like(shape, like, str(path))
    levels = like.levels if like else 256

    def read(rows: Sequence[int]) -> Tensor:
        pictures = np.stack([_decoded(files[i], path, shape) for i in rows])
        codes = torch.from_numpy(pictures)
        return codes if levels == 256 else (codes.double() * (levels - 1) / 255).round().to(torch.uint8)

    lossy = formats & {"JPEG", "WEBP"}
    note = f"{' and '.join(sorted(lossy))} files: compression alone changes scores, so compare with no others"
    return Images(name, len(files), shape, read, decides=(note,) if lossy else ())


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
