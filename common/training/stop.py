"""Ctrl-C, SIGTERM and SIGUSR1 (by which schedulers say that time is nearly up), heard but not obeyed at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from common.errors import UserError


class Interrupted(UserError):
    """Training was asked to stop, has saved everything, and can be continued by the same command."""


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Inside the block, names of the signals received so far are in the list, instead of ending the program.

    A second signal of the same kind acts as it would have before. Handlers are put back at the end. Signals reach only
    a process's main thread; elsewhere the list stays empty.
    """
    received: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, frame: FrameType | None) -> None:
        received.append("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)
        signal.signal(number, before[number])

    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]
    before: dict[int, Any] = {number: signal.getsignal(number) or signal.SIG_DFL for number in numbers}
    try:
        for number in before:
            signal.signal(number, note)
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
