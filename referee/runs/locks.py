"""One process at a time in a run's folder, on this machine or on any other that shares the disk."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from common.downloads import NO_LOCKS
from common.errors import UserError
from common.records import folder_seed

LOCKS = ".locks"  # in the folder for runs: a run's own folder moves, when it is outdated


class Occupied(UserError):
    """Another process works in the folder; the message says which."""


def lock_file(directory: Path) -> Path:
    """The file that stands for a run's folder."""
    own = directory.parent if folder_seed(directory.name) is not None else directory
    out = own.parents[2]  # <out>/<paper>/<preset>/<run>
    return out / LOCKS / ".".join(directory.relative_to(out).parts)


@contextlib.contextmanager
def alone_in(directory: Path, who: str = "", patience_s: float = 0.0) -> Iterator[None]:
    """Meanwhile no other process that asks gets into this run's folder.

    The lock is the operating system's, so a killed process does not leave it behind; over a network it holds where the
    file system passes `flock` on, as NFS on Linux does. Where there is none (Windows, some disks) nothing is kept out.

    Args:
        who: what the others are told of this process, beside its machine and number: "job 12_3".
        patience_s: how long to wait for the other to leave.

    Raises:
        Occupied: another process is in it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    path = lock_file(directory)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as lock:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.5)
                    continue
                raise Occupied(
                    f"{directory.parent.name}/{directory.name}: {_holder(lock)} works in {directory} already. "
                    "Wait for it, or stop it; then give the same command again."
                ) from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                break  # a disk without locks: nobody can be kept out
        lock.truncate(0)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        json.dump({"who": who, "host": socket.gethostname(), "pid": os.getpid(), "since": since}, lock)
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)


@contextlib.contextmanager
def alone_with(path: Path) -> Iterator[None]:
    """Meanwhile no other process that asks has this file's lock; waits until it is free. See `alone_in`."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield


def is_occupied(directory: Path) -> bool:
    """Whether a process works in a run's folder now; always False where there is no such lock."""
    return is_locked(lock_file(directory))


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on a file."""
    try:
        import fcntl

        with open(path, encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False


def _holder(lock: IO[str]) -> str:
    lock.seek(0)
    try:
        held = json.loads(lock.read())
        who = f"{held['who']}, " if held["who"] else ""
        return f"{who}process {held['pid']} on {held['host']}, since {held['since'][:16].replace('T', ' ')} UTC,"
    except (ValueError, KeyError, TypeError):  # it has just come, or is of another version
        return "another process"
