"""Several runs of a preset at once, each in a process of its own with its share of the cores.

Small networks leave most of a many-threaded step to waiting; two runs with one thread each get more out of two cores
than one run with two, and other programs on the machine slow them less. Every run keeps its own folder and its own
checkpoint, so that Ctrl-C stops all of them, and the same command continues all of them.
"""

import contextlib
import multiprocessing
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any, TypeVar

from rich.console import Console
from rich.live import Live
from rich.text import Text

Result = TypeVar("Result")
Lines = Any  # a queue of (run, text): multiprocessing's own type cannot be named


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(
    work: Callable[..., Result],
    tasks: dict[str, tuple[Any, ...]],
    *,
    jobs: int,
    progress: bool,
    finished: Callable[[str, Result], None],
) -> dict[str, Result]:
    """Call `work(*arguments)` for every task, `jobs` at a time, in the order given.

    Args:
        work: a function at the top level of a module; its progress bars are shown, a line a task.
        tasks: name -> arguments, all of which can be pickled.
        finished: told of each result as it comes.

    Returns:
        name -> result, in the order of `tasks`.

    Raises:
        Whatever `work` raised, once everything that was under way has ended; nothing new is begun after it.
    """
    context = multiprocessing.get_context("spawn")  # a forked process must not use torch's threads
    threads = max(1, cores() // jobs)
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read when the process loads torch
    results: dict[str, Result] = {}
    failure: BaseException | None = None
    with context.Manager() as manager:
        lines = manager.Queue()
        with (
            _shown(lines, tasks, progress),
            ProcessPoolExecutor(jobs, mp_context=context, initializer=_share, initargs=(threads,)) as pool,
        ):
            waiting = list(tasks)
            running: dict[Future[Result], str] = {}
            while (waiting and failure is None) or running:
                while waiting and failure is None and len(running) < jobs:
                    name = waiting.pop(0)
                    running[pool.submit(_one, work, name, lines, tasks[name])] = name
                try:
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                except KeyboardInterrupt as interrupt:  # the processes got it too: they save and end
                    failure = interrupt
                    continue
                for future in done:
                    name = running.pop(future)
                    try:
                        results[name] = future.result()
                    except BaseException as error:
                        if failure is None or isinstance(failure, KeyboardInterrupt):
                            failure = error
                    else:
                        finished(name, results[name])
    if before is None:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = before
    if failure is not None:
        raise failure
    return {name: results[name] for name in tasks}


def _share(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _one(work: Callable[..., Result], name: str, lines: Lines, arguments: tuple[Any, ...]) -> Result:
    """In the process: do the work, with what it writes to stderr sent home line by line."""
    previous, sys.stderr = sys.stderr, _Relay(name, lines)
    try:
        return work(*arguments)
    finally:
        sys.stderr = previous


class _Relay:
    """A stream for progress bars: keeps the latest line and sends it on, now and then."""

    encoding = "utf-8"

    def __init__(self, name: str, lines: Lines) -> None:
        self.name, self.lines, self.text, self.sent = name, lines, "", 0.0

    def write(self, text: str) -> int:
        self.text = (self.text + text)[-4000:]
        now = time.monotonic()
        if now - self.sent > 0.3:
            latest = [part for part in self.text.replace("\n", "\r").split("\r") if part.strip()]
            if latest:
                with contextlib.suppress(OSError, EOFError):  # the parent has gone
                    self.lines.put((self.name, latest[-1].strip()))
                self.text, self.sent = "", now
        return len(text)

    def flush(self) -> None:
        """Nothing is held back that matters."""

    def isatty(self) -> bool:
        """Yes, so that progress bars refresh often; how often they are shown is decided at home."""
        return True


@contextlib.contextmanager
def _shown(lines: Lines, names: Sequence[str] | dict[str, Any], progress: bool) -> Iterator[None]:
    """Show the latest line of every task: in place on a terminal, twice a minute anywhere else."""
    if not progress:
        yield
        return
    console = Console(stderr=True, highlight=False)
    latest: dict[str, tuple[str, float]] = {}
    width = max(map(len, names))
    stop = threading.Event()

    def picture() -> Text:
        now = time.monotonic()
        rows = [f"{name:{width}}  {text}"[: console.width - 1] for name, (text, at) in latest.items() if now - at < 20]
        return Text("\n".join(rows), no_wrap=True, overflow="crop")

    def follow() -> None:
        with contextlib.ExitStack() as stack:
            live = None
            if console.is_terminal:
                live = stack.enter_context(Live(Text(), console=console, transient=True, auto_refresh=False))
            told = time.monotonic()
            while not stop.is_set():
                with contextlib.suppress(queue.Empty, OSError, EOFError):
                    name, text = lines.get(timeout=0.25)
                    latest[name] = (text, time.monotonic())
                if live is not None:
                    live.update(picture(), refresh=True)
                elif time.monotonic() - told > 30:
                    told = time.monotonic()
                    print(picture().plain, file=sys.stderr, flush=True)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=2)
