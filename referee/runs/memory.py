"""The most memory that a run needs, kept in its folder for those who ask what such a run takes (`referee cost`)."""

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.errors import RecordError
from common.records import Record, write_text

KEPT = "memory.json"  # in a run's folder

_begun = 0  # runs of this process


@contextlib.contextmanager
def noting_memory(directory: Path, place: Any) -> Iterator[None]:
    """Meanwhile a run is made in its folder: keep the most memory of this process, and of its GPU, there.

    Of a run in several sessions it is the most of any. Nothing is kept of a run that was there already, nor where an
    earlier run of the same process could have needed it, nor of weights that are evaluated again if nobody knows what
    their training needed. What other processes need that a run starts is not in it.

    Args:
        place: the `torch.device` of the run.
    """
    global _begun
    telling = _forget(place) or _begun == 0
    _begun += 1
    before = _written(directory / "record.json")
    try:
        yield
    finally:
        after = _written(directory / "record.json")
        earlier = kept(directory)
        known = telling and (earlier is not None or not _only_evaluated(directory))
        if known and directory.is_dir() and (after is None or after != before):
            mb, gpu = earlier or (0, None)
            gpu = max((each for each in (gpu_mb(place), gpu) if each), default=None)
            note = {"memory_mb": max(peak_mb(), mb), "gpu_mb": gpu}
            with contextlib.suppress(OSError):  # a full disk: the run has its own word for it
                write_text(directory / KEPT, json.dumps(note) + "\n")


def kept(directory: Path) -> tuple[int, int | None] | None:
    """MB of the process and of its GPU that the run in a folder needed; None where that is not known."""
    try:
        note = json.loads((directory / KEPT).read_text(encoding="utf-8"))
        return int(note["memory_mb"]), None if note["gpu_mb"] is None else int(note["gpu_mb"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def peak_mb() -> int:
    """The most memory that this process has needed, in MB: in all, or on Linux since `noting_memory`."""
    with contextlib.suppress(OSError):
        if found := re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), flags=re.M):
            return round(int(found[1]) * 1024 / 1e6)
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform != "darwin" else 1) / 1e6)


def gpu_mb(place: Any) -> int | None:
    """The most memory of a GPU that torch has held, in MB; None for a run on processors."""
    if place.type != "cuda":
        return None
    import torch

    return round(torch.cuda.max_memory_allocated(place) / 1e6)


def _forget(place: Any) -> bool:
    """Begin to count anew; whether this system can."""
    if place.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(place)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _only_evaluated(directory: Path) -> bool:
    """Whether a run's folder has weights of an earlier run, evaluated again or about to be."""
    try:
        return (directory / "trained.json").exists() or bool(Record.load(directory).trained)
    except RecordError:
        return False


def _written(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
