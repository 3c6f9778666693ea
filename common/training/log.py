"""metrics.jsonl: one line of JSON whenever metrics are due, the same bytes however often a run was interrupted."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import torch
from torch import Tensor

from common.errors import CheckpointError, ConfigError, UserError

try:
    import fcntl
except ImportError:  # not a POSIX system: two runs in one folder go unnoticed there
    fcntl = None  # type: ignore[assignment]

RESERVED = ("step", "epoch")
DIGITS = 6  # significant, in the file: more would only show what differs between machines


class Log:
    """The metrics file of one run, held by one process at a time.

    Lines hold no clock. A checkpoint stores the file's size; what an interrupted session wrote after its last
    checkpoint, a torn line included, is cut off on resuming and written again.

    Args:
        path: the file; None writes nothing (a process that is not the first of several).

    Raises `UserError` when another process trains in this folder, or the file cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        if path is not None:
            try:
                self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (held for the whole run)
            except OSError as error:
                raise UserError(f"Cannot write {path}: {error.strerror}.") from error
            self._lock()

    def _lock(self) -> None:
        if fcntl is None or self._file is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however it ends
        except BlockingIOError:
            self._file.close()
            raise UserError(
                f"Another process is training in {self.path.parent if self.path else ''}. "
                "Wait for it or stop it; one folder holds one run."
            ) from None
        except OSError:
            pass  # a file system without locks

    def resume(self, size: int) -> None:
        """Cut the file to the `size` in bytes that it had at the checkpoint (0: start anew).

        Raises `CheckpointError` when it is shorter: lines are missing that could not be written again.
        """
        if self._file is None:
            return
        found = os.fstat(self._file.fileno()).st_size
        if found < size:
            raise CheckpointError(
                f"{self.path} has {found} bytes, but had {size} when the checkpoint was written. "
                "Put the file back, or remove the checkpoint to start this run afresh."
            )
        self._file.truncate(size)

    def write(self, step: int, epoch: int | float | None, values: Mapping[str, float]) -> None:
        """Append a line; `values` must be finite. Raises `UserError` when the disk is full."""
        if self._file is None:
            return
        line: dict[str, Any] = {"step": step}
        if epoch is not None:
            line["epoch"] = epoch
        line.update({name: float(f"{value:.{DIGITS}g}") for name, value in values.items()})
        data = json.dumps(line, allow_nan=False).encode() + b"\n"
        try:
            if self._file.write(data) != len(data):
                raise OSError(28, "No space left on device")
        except OSError as error:
            raise UserError(
                f"Cannot write {self.path}: {error.strerror}. Make room and give the same command again: "
                "it continues from the last checkpoint."
            ) from error

    def sync(self) -> int:
        """Put every line on the disk; return the file's size in bytes."""
        if self._file is None:
            return 0
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()


class Window:
    """The metrics of the steps since the last log line, kept on the device: one small copy a step, no waiting."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.rows: list[Tensor] = []  # one (number of metrics,) tensor a step

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Take in one step's 0-dim tensors.

        Raises `ConfigError` when a metric is not 0-dim, or the names differ from those of the step before.
        """
        names = tuple(metrics)
        if names != self.names:
            self._adopt(metrics)
        if names:
            # stacking copies: what the step does to its tensors afterwards changes nothing here
            self.rows.append(torch.stack(tuple(metrics.values())).detach())
        else:
            self.rows.append(torch.zeros(0))

    def _adopt(self, metrics: Mapping[str, Tensor]) -> None:
        if self.rows:
            raise ConfigError(
                f"A step returned the metrics {list(metrics)}, the step before {list(self.names)}: "
                "every step must return the same names in the same order."
            )
        for name, value in metrics.items():
            if name in RESERVED:
                raise ConfigError(f"A metric cannot be called '{name}': the log uses that name.")
            if not isinstance(value, Tensor) or value.dim() != 0:
                is_ = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise ConfigError(f"Metric '{name}' is of {is_}: a step returns 0-dim tensors (means over the batch).")
        self.names = tuple(metrics)

    def means(self) -> dict[str, float]:
        """Mean of each metric over the window, in float64."""
        return dict(zip(self.names, self._values().mean(0).tolist(), strict=True))

    def non_finite(self, step: int) -> tuple[int, str] | None:
        """The first step of the window with a NaN or infinity, and what was wrong; `step` is the last one's number."""
        if not self.rows:
            return None
        values = self._values()
        bad = ~values.isfinite()
        if not bad.any():
            return None
        row = int(bad.any(1).nonzero()[0])
        wrong = [
            f"'{name}' was {values[row, column].item()}"
            for column, name in enumerate(self.names)
            if not math.isfinite(values[row, column].item())
        ]
        return step - len(self.rows) + 1 + row, ", ".join(wrong)

    def clear(self) -> None:
        self.rows.clear()

    def _values(self) -> Tensor:
        """(steps, metrics), float64, on the CPU: the one wait for the device."""
        return torch.stack(self.rows).cpu().double()

    def state_dict(self) -> dict[str, Any]:
        rows = torch.stack(self.rows).cpu() if self.rows else None
        return {"names": list(self.names), "rows": rows}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self.names = tuple(state["names"])
        rows = state["rows"]
        self.rows = [] if rows is None else list(rows.to(device).unbind())
