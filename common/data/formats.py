"""File formats that data sets come in, each read into one array. No file can make this run code.

Every reader takes a path and returns an array, or raises `Unreadable` with a reason that completes
"the file … ". Whether the array is the right one is decided elsewhere, by its digest.
"""

import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Reader = Callable[[Path], Array]


class Unreadable(Exception):
    """A file that is truncated, corrupted, or of another format; the message says which."""


def idx(path: Path) -> Array:
    """The idx format of MNIST, plain or gzipped, of unsigned bytes.

    A big-endian header (0, 0, type, rank, sizes), then the values.
    """
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise Unreadable(f"is truncated or corrupted ({error})") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise Unreadable("is not an idx file of unsigned bytes")
    rank = content[3]
    header = 4 + 4 * rank
    if len(content) < header:
        raise Unreadable("is truncated (it ends within its header)")
    shape = tuple(np.frombuffer(content, ">u4", rank, offset=4).tolist())
    expected, found = int(np.prod(shape, dtype=np.int64)), len(content) - header
    if found != expected:
        raise Unreadable(f"is truncated or corrupted ({found} bytes of data, {expected} announced)")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def amat(columns: int) -> Reader:
    """Text of 0s and 1s apart by blanks, `columns` to a line -> uint8 (rows, columns) of {0, 1}."""

    def read(path: Path) -> Array:
        text = np.frombuffer(path.read_bytes(), np.uint8)
        digit = (text == ord("0")) | (text == ord("1"))
        blank = (text == ord(" ")) | (text == ord("\n")) | (text == ord("\r"))
        if not np.all(digit | blank):
            raise Unreadable("holds something other than 0s and 1s")
        values: Array = text[digit] - np.uint8(ord("0"))
        if values.size == 0 or values.size % columns:
            raise Unreadable(f"is truncated ({values.size} values, not a multiple of {columns})")
        return values.reshape(-1, columns)

    return read


def tar_records(members: tuple[str, ...], size: int) -> Reader:
    """Files of fixed-size records, joined, from a tar archive, gzipped or not -> uint8 (records, size).

    Members are read where they are: nothing is unpacked, so no name in the archive can lead anywhere.
    """

    def read(path: Path) -> Array:
        parts = []
        try:
            with tarfile.open(path) as archive:
                for name in members:
                    stream = archive.extractfile(name)
                    if stream is None:
                        raise Unreadable(f"has a {name} that is not a file")
                    content = stream.read()
                    if not content or len(content) % size:
                        raise Unreadable(f"has a {name} of {len(content)} bytes, not a multiple of {size}")
                    parts.append(np.frombuffer(content, np.uint8).reshape(-1, size))
        except KeyError as error:
            raise Unreadable(f"has no {error.args[0]!r}" if error.args else "lacks a member") from error
        except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise Unreadable(f"is not a tar archive, or is truncated ({error})") from error
        return np.concatenate(parts)

    return read


def npz(key: str) -> Reader:
    """One array of a numpy archive. Pickled objects are refused, not loaded."""

    def read(path: Path) -> Array:
        try:
            # Opened here: numpy leaves the file open when it turns out to be no archive.
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                if not isinstance(archive, np.lib.npyio.NpzFile):
                    raise Unreadable("is not a numpy archive (.npz)")
                if key not in archive.files:
                    raise Unreadable(f"has no array named {key!r}")
                array = np.asarray(archive[key])
        except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
            # numpy's own message recommends allow_pickle=True here: not passed on.
            if "pickle" in str(error).lower():
                raise Unreadable("is a pickle, or holds one: never loaded") from error
            raise Unreadable(f"is truncated or corrupted ({error})") from error
        return array

    return read


def packed_bits(key: str, columns: int) -> Reader:
    """One array of a numpy archive, eight values to a byte -> uint8 (rows, columns) of {0, 1}."""

    def read(path: Path) -> Array:
        packed = npz(key)(path)
        if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] * 8 < columns:
            raise Unreadable(f"has {packed.dtype} {packed.shape} for {key!r}, not packed bits")
        return np.unpackbits(packed, axis=1, count=columns)

    return read


def npz_bits(key: str) -> Reader:
    """One array of a numpy archive that holds 0s and 1s in any numeric type, floats too -> uint8."""

    def read(path: Path) -> Array:
        array = npz(key)(path)
        bits: Array = array == 1
        if array.dtype.kind not in "biuf" or not np.all(bits | (array == 0)):
            raise Unreadable(f"holds something other than 0s and 1s in {key!r}")
        return bits.astype(np.uint8)

    return read


def mat(key: str) -> Reader:
    """One array of a MATLAB file (up to version 7)."""

    def read(path: Path) -> Array:
        from scipy.io import loadmat  # takes a while to import, and few data sets need it

        try:
            content = loadmat(path, variable_names=[key])
        # A damaged .mat makes scipy raise almost anything: whatever it is, the file is unreadable.
        except Exception as error:
            raise Unreadable(f"is not a MATLAB file, or is truncated ({error})") from error
        if key not in content:
            raise Unreadable(f"has no array named {key!r}")
        return np.asarray(content[key])

    return read
