"""Checkpoints: written whole or not at all, read without running anything."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from common.errors import CheckpointError

FORMAT = 1

# What torch.load(weights_only=True) gives back as it was; anything else must be refused on the way in.
_PLAIN = (type(None), bool, int, float, str, bytes)


def save(path: Path, tree: dict[str, Any]) -> None:
    """Write `tree` to `path`, atomically: at every moment `path` is the old checkpoint or the new one.

    Raises `CheckpointError` when it cannot be written (the disk is full, the folder read-only); the old checkpoint is
    then as it was, and nothing else is left behind. Also when `tree` holds an object that could not be read back.
    """
    tree = {"format": FORMAT, **tree}
    if strange := _strange(tree):
        raise CheckpointError(
            f"Cannot checkpoint {strange}. A state may hold tensors, numbers, strings, None, and "
            "dicts, lists and tuples of them."
        )
    part = path.with_name(path.name + ".part")
    sink: _Sink | None = None
    try:
        with open(part, "wb") as file:
            sink = _Sink(file)
            torch.save(tree, sink)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_directory(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        reason = sink.error if sink is not None and sink.error is not None else error
        if not isinstance(reason, OSError):
            raise
        kept = "The previous checkpoint is intact. " if path.exists() else ""
        raise CheckpointError(
            f"Cannot write the checkpoint {path}: {reason.strerror or reason}. {kept}"
            "Make room and give the same command again: it continues from the last checkpoint."
        ) from reason


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; nothing in the file is executed.

    Raises `CheckpointError` when the file is damaged, is of another kind, or holds anything but plain data.
    """
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"Cannot read the checkpoint {path}: {error.strerror}.") from error
    except Exception as error:  # torch reports damaged and hostile files by many classes
        raise CheckpointError(
            f"{path} is damaged, or holds more than plain data, and was not opened "
            f"({type(error).__name__}). Remove it to start this run afresh."
        ) from error
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not a checkpoint of this version of the program. Remove it to start this run afresh."
        )
    return tree


def require_same(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuse a checkpoint whose configuration is another one, showing every field that differs.

    Raises `CheckpointError`.
    """
    if changes := differences(old, new):
        raise CheckpointError(
            f"{path} belongs to a run with another configuration (checkpoint -> now):\n"
            + "\n".join(f"  {change}" for change in changes)
            + "\nEither put these fields back and continue it, or start afresh (remove the checkpoint, or name "
            "another folder)."
        )


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Lines `field: old -> new` for all that differs between two trees of plain values."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in [*old, *(key for key in new if key not in old)]:
            inner = f"{name}.{key}" if name else str(key)
            if key not in old:
                lines.append(f"{inner}: (absent) -> {new[key]!r}")
            elif key not in new:
                lines.append(f"{inner}: {old[key]!r} -> (absent)")
            else:
                lines += differences(old[key], new[key], inner)
        return lines
    return [] if type(old) is type(new) and old == new else [f"{name}: {old!r} -> {new!r}"]


class _Sink:
    """A file that remembers why writing to it failed: torch's archive writer reports only that it did."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def _strange(tree: Any, name: str = "") -> str | None:
    """What in a tree is not plain data, in words."""
    if type(tree) in _PLAIN or isinstance(tree, (Tensor, torch.dtype, torch.device)):
        return None
    if isinstance(tree, dict):
        for key, value in tree.items():
            if type(key) not in _PLAIN:
                return f"the key {key!r} of {name or 'the state'}"
            if strange := _strange(value, f"{name}.{key}" if name else str(key)):
                return strange
        return None
    if type(tree) in (list, tuple, torch.Size):
        for index, value in enumerate(tree):
            if strange := _strange(value, f"{name}[{index}]"):
                return strange
        return None
    return f"{name}, a {type(tree).__module__}.{type(tree).__qualname__}"


def _sync_directory(directory: Path) -> None:
    """Make a rename last through a power failure, where the system has such a call."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
