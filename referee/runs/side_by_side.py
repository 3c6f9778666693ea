"""Several runs of a preset at once, each in a process of its own with its share of the cores.

Small networks leave most of a many-threaded step to waiting; two runs with one thread each get more out of two cores
than one run with two, and other programs on the machine slow them less. Every run keeps its own folder and its own
checkpoint, so that Ctrl-C stops all of them, and the same command continues all of them.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from rich.console import Console
from rich.live import Live
from rich.text import Text

from common.errors import UserError

Result = TypeVar("Result")


class Stopped(UserError):
    """All runs were asked to stop, and did."""


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
    """Call `work(*arguments)` for every task, `jobs` at a time, in the order given, each in a new process.

    Args:
        work: a function at the top level of a module; what it writes to stderr is shown, its latest line for a task.
        tasks: name -> arguments, all of which can be pickled.
        finished: told of each result as it comes.

    Returns:
        name -> result, in the order of `tasks`.

    Raises:
        Stopped: Ctrl-C or SIGTERM, which is passed on to the processes; once all of them have saved and ended.
        Whatever `work` raised first, once everything that was under way has ended; nothing new is begun after it.
    """
    context = multiprocessing.get_context("spawn")  # a forked process must not use torch's threads
    threads = max(1, cores() // jobs)
    results: dict[str, Result] = {}
    failure: BaseException | None = None
    waiting = list(tasks)
    running: dict[Connection, tuple[str, Any]] = {}

    def stop(_number: int, _frame: Any) -> None:
        nonlocal failure
        failure = failure or Stopped("Stopped. What was done is saved: the same command continues from there.")
        for _, process in running.values():
            process.terminate()  # SIGTERM: training finishes its step, saves, and raises

    with _handled(stop), _Screen(tasks, progress) as screen, _environment(OMP_NUM_THREADS=str(threads)):
        while running or (waiting and failure is None):
            while waiting and failure is None and len(running) < jobs:
                name = waiting.pop(0)
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=_process, args=(there, work, tasks[name]), name=name)
                process.start()
                there.close()
                running[here] = (name, process)
            for connection in wait(list(running), timeout=0.5):
                assert isinstance(connection, Connection)
                name, process = running[connection]
                try:
                    kind, content = connection.recv()
                except EOFError:  # it died and could not say why
                    process.join()
                    kind, content = "error", UserError(f"{name}: {_end(process.exitcode)}")
                if kind == "line":
                    screen.show(name, content)
                    continue
                del running[connection]
                process.join()
                screen.drop(name)
                if kind == "result":
                    results[name] = content
                    finished(name, content)
                else:
                    failure = failure or content
    if failure is not None:
        raise failure
    return {name: results[name] for name in tasks}


def _end(status: int | None) -> str:
    """What to say of a process that ended and could not say why."""
    if status is None or status >= 0:
        return f"its process ended with status {status}."
    memory = " Perhaps memory ran out: --jobs 1 has one run at a time." if -status == signal.SIGKILL else ""
    again = " The same command continues from what is saved."
    return f"its process was ended by {signal.Signals(-status).name}.{memory}{again}"


def _process(home: Connection, work: Callable[..., Result], arguments: tuple[Any, ...]) -> None:
    """In the new process: do the work, and tell what came of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which passes it on as SIGTERM
    # Training minds SIGTERM itself. Anywhere else it ends the work as an error would, so that the process can clean up
    # after itself: killed, it would leave semaphores behind (progress bars hold one).
    signal.signal(signal.SIGTERM, _stop_here)
    sys.stderr = _Relay(home)
    try:
        message: tuple[str, Any] = ("result", work(*arguments))
    except BaseException as error:  # handed on, and raised at home, where nobody sees this process's own traceback
        if not isinstance(error, UserError):
            error.add_note("In its own process:\n" + "".join(traceback.format_tb(error.__traceback__)).rstrip())
        message = ("error", error)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # all that is left is to say what came of it
    sys.stderr = sys.__stderr__
    with contextlib.suppress(OSError):  # nobody is at home any more
        home.send(message)


def _stop_here(_number: int, _frame: Any) -> None:
    raise Stopped("Stopped.")


class _Relay:
    """A stream for progress bars: sends its latest line home, a few times a second."""

    encoding = "utf-8"

    def __init__(self, home: Connection) -> None:
        self.home, self.text, self.sent = home, "", 0.0
        self.lock = threading.Lock()  # tqdm's monitor may write too

    def write(self, text: str) -> int:
        with self.lock:
            self.text = (self.text + text)[-4000:]
            now = time.monotonic()
            if now - self.sent > 0.3:
                latest = [part for part in self.text.replace("\n", "\r").split("\r") if part.strip()]
                if latest:
                    with contextlib.suppress(OSError):
                        self.home.send(("line", latest[-1].strip()))
                    self.text, self.sent = "", now
        return len(text)

    def flush(self) -> None:
        """Nothing is held back that matters."""

    def isatty(self) -> bool:
        """Yes, so that progress bars refresh often; how often they are shown is decided at home."""
        return True


class _Screen:
    """The latest line of every task: in place on a terminal, twice a minute anywhere else."""

    def __init__(self, names: dict[str, Any], progress: bool) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.progress = progress
        self.width = max(map(len, names))
        self.lines: dict[str, str] = {}
        self.told = time.monotonic()
        self.live = Live(Text(), console=self.console, transient=True, auto_refresh=False)

    def __enter__(self) -> "_Screen":
        if self.progress and self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def show(self, name: str, line: str) -> None:
        self.lines[name] = line
        if not self.progress:
            return
        if self.live.is_started:
            self._draw()
        elif time.monotonic() - self.told > 30:
            self.told = time.monotonic()
            print(self._picture(), file=sys.stderr, flush=True)

    def drop(self, name: str) -> None:
        self.lines.pop(name, None)
        if self.live.is_started:
            self._draw()

    def _draw(self) -> None:
        self.live.update(Text(self._picture(), no_wrap=True, overflow="crop"), refresh=True)

    def _picture(self) -> str:
        return "\n".join(f"{name:{self.width}}  {line}"[: self.console.width - 1] for name, line in self.lines.items())


@contextlib.contextmanager
def _handled(stop: Callable[[int, Any], None]) -> Iterator[None]:
    """Call `stop` on SIGINT and SIGTERM meanwhile; outside the main thread signals go where they went before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Environment variables that processes started meanwhile inherit."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
