"""`referee runs`: the calls of `referee run --on`, and what became of each of their runs.

A call leaves a folder `runs/.calls/<UTC time>-<four digits>/`:

    call.json      what was asked for: the command, the resources, each run with its folder, settings and code's digest
    jobs.json      the scheduler's number for each run, as far as it was queued
    logs/          what each job wrote
    cancelled      is there when the call was cancelled

What became of a run is judged by what is on the disk. A record of the same settings and code in its folder: done.
Otherwise the scheduler's queue says whether it waits or works; what is in neither has failed, unless its log says that
it was cancelled. Where the queue does not answer, the run's lock and the age of its log say whether somebody works on
it. Nothing is asked of the scheduler's accounting, which many clusters do not have.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from common.errors import RecordError, UserError, nearest
from common.records import Record, write_text
from referee.project import UsageError, find_root
from referee.runs.locks import is_locked, is_occupied
from referee.words import number_of

CALLS = ".calls"
FRESH_S = 120.0  # a log that was written to so recently belongs to a job that works
LAST_LINES = 5
LEFT = "it is left to the scheduler, which says: "
"""What a job says that was stopped, before the state that the scheduler says it is in."""
ENDED = (
    *("BOOT_FAIL", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
    "LAUNCH_FAILED",
)
"""SLURM's words for what is over, but for CANCELLED. It remembers such jobs for some minutes."""
SHOWN_CALLS = 10

Word = Literal["queued", "running", "done", "reused", "failed", "cancelled", "unknown"]
SIGNS: dict[Word, tuple[str, str]] = {
    "queued": ("·", "dim"),
    "running": ("▸", "cyan"),
    "done": ("✓", "green"),
    "reused": ("✓", "dim green"),
    "failed": ("✗", "bold red"),
    "cancelled": ("–", "yellow"),
    "unknown": ("?", "yellow"),
}
OPEN: tuple[Word, ...] = ("queued", "running", "unknown")
"""Of these something may still become."""


@dataclass(frozen=True)
class Resources:
    """What a job is given; `cpus` are for each of its `processes`."""

    gpus: int = 0
    cpus: int = 2
    memory_gb: float | None = None  # None: what the scheduler gives
    minutes: int | None = 60  # at a stretch; None: as long as it takes, on this machine
    processes: int = 1
    partition: str | None = None  # None: the cluster's own

    def __str__(self) -> str:
        """As in '2 GPUs, 4 cores for each of 2 processes, 16 GB, at most 8 h at a time'."""
        parts = [number_of(self.gpus, "GPU")] if self.gpus else []
        each = f" for each of {self.processes} processes" if self.processes > 1 else ""
        parts += [number_of(self.cpus, "core") + each]
        parts += [f"{self.memory_gb:g} GB"] if self.memory_gb else []
        parts += [f"at most {span(60 * self.minutes)} at a time"] if self.minutes else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Entry:
    """One run of one seed in a call."""

    project: str
    preset: str  # the label, with a digest of changed settings
    run: str
    seed: int
    own: bool
    directory: str  # relative to the repository, where it lies in it
    config: dict[str, Any]
    code_digest: str
    reused: bool  # there was a record already: it was not queued

    @property
    def name(self) -> str:
        """As tables show it: "iwae laptop iwae-1l-k5 seed 3"."""
        return f"{self.project} {self.preset} {self.run}" + ("" if self.own else f" seed {self.seed}")


@dataclass(frozen=True)
class Call:
    """One `referee run --on`."""

    folder: Path
    root: Path
    command: list[str]  # as typed
    overrides: list[str]
    out: str
    device: str
    on: str
    at_a_time: int
    resources: Resources
    entries: list[Entry]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def when(self) -> str:
        """UTC, from the name."""
        return f"{self.name[:4]}-{self.name[4:6]}-{self.name[6:8]} {self.name[9:11]}:{self.name[11:13]}"

    @property
    def job_name(self) -> str:
        """By which the scheduler knows it."""
        return f"referee-{self.name}"

    @property
    def named(self) -> str:
        """As 'referee runs' has to be given it."""
        return self.name if self.out == "runs" else f"{self.name} --out {shlex.quote(self.out)}"

    @property
    def queued(self) -> list[Entry]:
        """What was given to the scheduler, in the order of its array."""
        return [entry for entry in self.entries if not entry.reused]

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def cancelled(self) -> bool:
        return (self.folder / "cancelled").exists()

    @property
    def dispatcher(self) -> Path:
        """Locked while the process lives that starts the runs of a call on this machine."""
        return self.folder / "dispatcher"

    def directory(self, entry: Entry) -> Path:
        return self.root / entry.directory

    def again(self) -> str:
        """The command that submits what did not finish."""
        words = [word for word in self.command if word not in ("--fresh", "--resume")]
        return shlex.join([*words, "--resume"])

    def jobs(self) -> dict[int, str]:
        """Place in the array -> the scheduler's number."""
        try:
            return {int(i): job for i, job in json.loads((self.folder / "jobs.json").read_text()).items()}
        except (OSError, ValueError):  # not queued yet
            return {}

    def note_jobs(self, jobs: Mapping[int, str]) -> None:
        write_text(self.folder / "jobs.json", json.dumps(jobs, indent=1) + "\n")

    def log(self, index: int, process: int = 0) -> Path | None:
        """What a job's process wrote, None before it has begun."""
        job = self.jobs().get(index)
        path = self.logs / f"{job}_{process}_log.out"
        return path if job and path.exists() else None

    def save(self) -> None:
        """Write call.json."""
        content = dataclasses.asdict(self)
        del content["folder"], content["root"]
        write_text(self.folder / "call.json", json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path, root: Path) -> "Call":
        """Read call.json. Raises UserError when it cannot be read."""
        path = folder / "call.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            raw["resources"] = Resources(**raw["resources"])
            raw["entries"] = [Entry(**entry) for entry in raw["entries"]]
            return cls(folder=folder, root=root, **raw)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: no call that this version can read ({error}).") from None


@dataclass(frozen=True)
class State:
    """What became of one run."""

    word: Word
    detail: str = ""
    record: Record | None = None
    last: list[str] = field(default_factory=list)  # lines of the log of what failed
    log: Path | None = None


# -- Judging -----------------------------------------------------------------------------------------------------------


def calls_folder(root: Path, out: str) -> Path:
    """Where calls are kept."""
    return root / out / CALLS


def all_calls(root: Path, out: str = "runs") -> list[Call]:
    """Every call that can be read, the newest first."""
    found = []
    for path in sorted(calls_folder(root, out).glob("*/call.json"), reverse=True):
        try:
            found.append(Call.load(path.parent, root))
        except UserError as error:
            print(f"referee: {error}", file=sys.stderr)
    return found


def find_call(root: Path, name: str | None, out: str = "runs") -> Call:
    """A call by its name, or the end or beginning of it; the newest when none is given.

    Raises:
        UsageError: there is none, or several.
    """
    folder = calls_folder(root, out)
    names = sorted(path.parent.name for path in folder.glob("*/call.json"))
    if name is None:
        if not names:
            raise UsageError(f"runs: nothing was queued from here yet ({folder} is empty). 'referee run --on' does.")
        return Call.load(folder / names[-1], root)
    fitting = [each for each in names if each == name] or [
        each for each in names if each.startswith(name) or each.endswith(name)
    ]
    if len(fitting) != 1:
        listed = ", ".join((fitting or names)[-SHOWN_CALLS:]) or "none yet"
        wrong = "could be several" if fitting else f"there is no such call.{nearest(name, names)}"
        raise UsageError(f"runs: '{name}': {wrong} Calls: {listed}.")
    return Call.load(folder / fitting[0], root)


def finished(directory: Path, config: Mapping[str, Any], code_digest: str) -> Record | None:
    """The record of the same settings and code in a run's folder, None when there is none or it cannot be read."""
    try:
        record = Record.load(directory)
    except RecordError:
        return None
    return record if record.config == config and record.code_digest == code_digest else None


def queue() -> dict[str, dict[int, str]] | None:
    """What SLURM's queue holds of ours, and what was cancelled as long as it remembers: job name -> place in the array
    -> its words for the state, and why; None: no answer."""
    asked = ["squeue", "-h", "-r", "--states=all", "-o", "%i|%T|%j|%r"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    held: dict[str, dict[int, str]] = {}
    for line in done.stdout.splitlines():
        job, _, rest = line.partition("|")
        state, _, rest = rest.partition("|")
        name, _, reason = rest.partition("|")
        place = job.partition("_")[2] or "0"
        if name.startswith("referee-") and place.isdecimal() and state not in ENDED:
            why = f" {reason}" if reason not in ("", "None") else ""
            held.setdefault(name, {})[int(place)] = state + why
    return held


def states(call: Call, held: dict[str, dict[int, str]] | None) -> list[State]:
    """What became of each run of a call, in the order of its entries.

    Args:
        held: the scheduler's queue, of `queue`; not looked at for calls on this machine.
    """
    dispatching = call.on == "local" and is_locked(call.dispatcher)
    ended = set(_ended(call)) if call.on == "local" else set()
    found, index = [], -1
    for entry in call.entries:
        index += not entry.reused
        record = finished(call.directory(entry), entry.config, entry.code_digest)
        if record is not None:
            if entry.reused:
                found.append(State("reused", f"of {record.finished[:16].replace('T', ' ')} UTC", record))
            else:
                found.append(State("done", span(record.wall_s), record))
            continue
        if entry.reused:
            found.append(State("failed", "its record was there when this was called, and is gone or outdated"))
            continue
        log, why, there = call.log(index), "", ""
        if call.on == "local":
            begun = index in call.jobs() and index not in ended
            works = begun and (dispatching or carrier(call, index) is not None or is_occupied(call.directory(entry)))
            waits = dispatching and not begun and index not in ended
        elif held is not None:
            there, _, why = held.get(call.job_name, {}).get(index, "").partition(" ")
            works = there in ("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")
            waits = bool(there) and there != "CANCELLED" and not works
        else:
            works = is_occupied(call.directory(entry)) or (log is not None and _age(log) < FRESH_S)
            waits = False
        if works:
            found.append(State("running", doing(log), log=log))
        elif waits:
            again = "again" if log is not None and call.on != "local" else ""
            found.append(State("queued", ", ".join(part for part in (again, why) if part), log=log))
        elif call.cancelled:
            found.append(State("cancelled", "what it had done is saved" if log else "", log=log))
        elif there == "CANCELLED" or (log is not None and was_cancelled(log)):
            found.append(State("cancelled", "by the scheduler" + "; what it had done is saved" * bool(log), log=log))
        elif held is None and call.on != "local":
            found.append(State("unknown", "the scheduler does not answer; nothing is written here", log=log))
        elif log is None and call.on == "local":
            found.append(State("failed", "it never began: the process that starts the runs was ended"))
        elif log is None:
            found.append(State("failed", "it left no log: the scheduler ended or cancelled it before it began"))
        else:
            last = last_lines(log)
            gone = re.search(r"^referee: process(?:es)? (\d+).* ended before", "\n".join(last), re.M)
            if gone and (other := call.log(index, int(gone[1]))) and (words := last_lines(other)):
                log, last = other, words  # the first only says that it lost that one, which says why
            said = last[-1].removeprefix("referee: ") if last else "it ended without a word"
            found.append(State("failed", said, last=last, log=log))
    return found


def carrier(call: Call, index: int) -> int | None:
    """The process of this machine that carries out a local job; None where it has ended, or its number is another's."""
    number = call.jobs().get(index, "")
    if not number.isdecimal():
        return None
    try:
        words = Path(f"/proc/{number}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        if Path("/proc/self").exists():
            return None
        asked = ["ps", "-ww", "-o", "command=", "-p", number]  # a system without /proc
        words = subprocess.run(asked, capture_output=True, text=True).stdout.split()
    return int(number) if "submitit.local._local" in words and str(call.logs) in words else None


def was_cancelled(log: Path) -> bool:
    """Whether the last that a log says of its job is that somebody cancelled it, by the scheduler's own command."""
    said = _tail(log).rpartition("Starting with JobEnvironment")[2]
    return f"{LEFT}CANCELLED" in said or re.search(r"\*\*\* (JOB|STEP) .* CANCELLED AT \S+ \*\*\*", said) is not None


def _ended(call: Call) -> list[int]:
    try:
        return list(json.loads((call.folder / "ended.json").read_text()))
    except (OSError, ValueError):
        return []


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return float("inf")


# -- Logs --------------------------------------------------------------------------------------------------------------

BAR = re.compile(r"(\d+)%\|[^|]*\|\s*(\S+)/(\S+)\s+\[([\d:?]+)<([\d:?]+),\s*([^,\]]+)")
NOISE = re.compile(r"submitit (INFO|WARNING)|^(srun|slurmstepd\S*): |^\s*$")


def doing(log: Path | None) -> str:
    """How far a job is, from the last progress bar in its log: '41%, 1.2k examples/s, 3:20 left'."""
    if log is None:
        return "starting"
    bars = BAR.findall(_tail(log))
    if not bars:
        return "started"
    percent, _, _, _, left, rate = bars[-1]
    if percent == "100":
        return "trained; evaluating"
    known = [part for part in (rate.strip(), f"{left} left") if "?" not in part]
    return ", ".join([f"{percent}%", *known])


def last_lines(log: Path, count: int = LAST_LINES) -> list[str]:
    """The last lines of a log that say something, progress bars and the scheduler's own words left out."""
    lines = [line.split("\r")[-1].rstrip() for line in _tail(log).split("\n")]
    return [line for line in lines if not NOISE.search(line) and not BAR.search(line)][-count:]


def _tail(path: Path, size: int = 16384) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def span(seconds: float) -> str:
    """Time for people: '40 s', '12 min', '3 h 20 min', '2 d 4 h'."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h" + (f" {minutes} min" if minutes else "")
    days, hours = divmod(hours, 24)
    return f"{days} d" + (f" {hours} h" if hours else "")


# -- Showing -----------------------------------------------------------------------------------------------------------


def counts(found: Iterable[State]) -> str:
    """'3 done, 1 running, 4 queued'."""
    of = Counter(state.word for state in found)
    return ", ".join(f"{of[word]} {word}" for word in SIGNS if of[word]) or "no runs"


def look(call: Call) -> list[State]:
    """What became of each run, now."""
    return states(call, queue() if call.on == "slurm" else None)


def watch(call: Call, *, quiet: bool = False) -> list[State]:
    """Show what becomes of a call's runs until nothing more will; returns the last states.

    On a terminal a table is kept up to date; elsewhere a line is printed for each change, and at most twice a minute
    how far the runs are.
    """
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    before: list[State] = []
    told, began = time.monotonic(), time.monotonic()
    doubtful = False
    on_terminal = console.is_terminal and not quiet
    live = Live(Text(), console=console, auto_refresh=False, transient=True)
    with live if on_terminal else contextlib.nullcontext():
        while True:
            found = look(call)
            if on_terminal:
                live.update(_picture(call, found, console.width, console.height), refresh=True)
            elif not quiet:
                for entry, old, new in zip(call.entries, before or [State("queued")] * len(found), found, strict=True):
                    if old.word != new.word:
                        print(f"{new.word:9} {entry.name}  {new.detail}".rstrip(), flush=True)
                        told = time.monotonic()
                if time.monotonic() - told > 30:
                    told = time.monotonic()
                    far = [
                        f"{e.run} {s.detail}" for e, s in zip(call.entries, found, strict=True) if s.word == "running"
                    ]
                    print(f"{counts(found)}. {'; '.join(far[:8])}", flush=True)
            before = found
            if not any(state.word in OPEN for state in found):
                # A shared disk may show a record a moment after the queue has let go of its job.
                if doubtful or not any(state.word == "failed" for state in found):
                    return found
                doubtful = True
            else:
                doubtful = False
            time.sleep(min(10.0, 1.0 + (time.monotonic() - began) / 30))


def _picture(call: Call, found: Sequence[State], width: int, height: int) -> Any:
    """The table: all runs where there is room, else those that fail or work, and how many there are of the others."""
    from rich.text import Text

    rows = list(zip(call.entries, found, strict=True))
    room = max(5, height - 4)
    weight = {"failed": 0, "running": 1, "unknown": 2, "queued": 3, "cancelled": 4, "done": 5, "reused": 6}
    picked = rows if len(rows) <= room else sorted(rows, key=lambda row: weight[row[1].word])[:room]
    wide = max(len(entry.name) for entry, _ in picked)
    failed = sum(state.word == "failed" for _, state in rows)
    text = Text(no_wrap=True, overflow="crop")
    text.append(f"{call.name} on {call.on}: {counts(found)}\n", style="bold")
    for entry, state in picked:
        sign, style = SIGNS[state.word]
        text.append(f"{sign} {entry.name:{wide}}  {state.word:9} {state.detail}"[: width - 1] + "\n", style=style)
        if len(rows) + 2 * failed <= room:
            for line in state.last[-3:-1]:
                text.append(f"      {line}"[: width - 1] + "\n", style="dim")
    if len(picked) < len(rows):
        text.append(f"  and {len(rows) - len(picked)} more\n", style="dim")
    text.append("Ctrl-C leaves them running.", style="dim")
    return text


def tell(call: Call, found: Sequence[State]) -> int:
    """Say what came of a call: scores of what is done, what is not, and how to go on; returns the exit status."""
    if records := [state.record for state in found if state.record is not None]:
        from referee.show import print_scores

        for project in dict.fromkeys(record.project for record in records):
            print_scores([record for record in records if record.project == project])
    print(f"{call.name}: {counts(found)}")
    for entry, state in zip(call.entries, found, strict=True):
        if state.word in ("done", "reused"):
            continue
        print(f"{SIGNS[state.word][0]} {entry.name}: {state.word}{', ' * bool(state.detail)}{state.detail}")
        if state.word == "failed":
            for line in state.last[:-1]:
                print(f"      {line}")
            if state.log:
                print(f"      log: {os.path.relpath(state.log)}")
    words = {state.word for state in found}
    if words & {"failed", "cancelled"}:
        print(f"What did not finish is queued again by: {call.again()}")
    if words & set(OPEN):
        print(f"Watch: referee runs watch {call.named}   Cancel: referee runs cancel {call.named}")
    return 1 if "failed" in words or ("cancelled" in words and not call.cancelled) else 0


# -- The command -------------------------------------------------------------------------------------------------------


def runs_command(options: argparse.Namespace) -> int:
    """`referee runs`."""
    root = find_root()
    out = options.out
    if options.action == "list" or options.action is None:
        return _list(root, out, every=options.all_calls, as_json=options.format == "json")
    call = find_call(root, options.call, out)
    if options.action == "collect":
        return tell(call, look(call))
    if options.action == "watch":
        return watch_and_tell(call)
    return cancel(call)


def watch_and_tell(call: Call, *, quiet: bool = False) -> int:
    """Watch a call to its end and say what came of it; Ctrl-C leaves its jobs as they are. Returns the exit status."""
    try:
        found = watch(call, quiet=quiet)
    except KeyboardInterrupt:
        print(
            f"\nThe runs go on without being watched.\n  look again: referee runs watch {call.named}\n"
            f"  cancel:     referee runs cancel {call.named}",
            file=sys.stderr,
        )
        return 130
    return tell(call, found)


def cancel(call: Call) -> int:
    """Take a call's runs off the queue, and stop those that run: what they have done is saved."""
    found = look(call)
    still = [state for state in found if state.word in OPEN]
    if not still:
        print(f"{call.name}: nothing of it waits or runs. {counts(found)}.")
        return 0
    (call.folder / "cancelled").touch()  # first: a job that is asked to stop looks whether it is wanted again
    if call.on == "slurm":
        try:
            subprocess.run(
                ["scancel", f"--name={call.job_name}"], check=True, capture_output=True, text=True, timeout=60
            )
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", "") or str(error)
            raise UserError(f"scancel did not take {call.name} off the queue: {said.strip()}") from None
    elif not is_locked(call.dispatcher):  # who would pass it on was killed
        for index in call.jobs():
            if (number := carrier(call, index)) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGTERM)
    many = number_of(len(still), "run")
    print(f"{call.name}: {many} cancelled; what had begun saves and stops. Continue: {call.again()}")
    return 0


def _list(root: Path, out: str, *, every: bool, as_json: bool) -> int:
    calls = all_calls(root, out)
    shown = calls if every else calls[:SHOWN_CALLS]
    held = queue() if any(call.on == "slurm" for call in shown) else None
    judged = [(call, states(call, held)) for call in shown]
    if as_json:
        print(json.dumps({"calls": [_as_json(call, found) for call, found in judged]}, indent=1))
        return 0
    if not judged:
        print("No call yet. 'referee run <paper> --preset <preset> --on slurm' queues runs.")
        return 0
    from rich.text import Text

    from referee.show import console, plain_table

    table = plain_table()
    for column in ("call", "queued (UTC)", "on", "runs", "command"):
        table.add_column(column)
    for call, found in judged:
        table.add_row(*map(Text, (call.name, call.when, call.on, counts(found), shlex.join(call.command))))
    console().print(table)
    if len(shown) < len(calls):
        print(f"and {len(calls) - len(shown)} older: --all-calls")
    return 0


def _as_json(call: Call, found: Sequence[State]) -> dict[str, Any]:
    jobs, index, runs = call.jobs(), -1, []
    for entry, state in zip(call.entries, found, strict=True):
        index += not entry.reused
        runs.append(
            {
                "project": entry.project,
                "preset": entry.preset,
                "run": entry.run,
                "seed": entry.seed,
                "directory": entry.directory,
                "state": state.word,
                "detail": state.detail,
                "job": None if entry.reused else jobs.get(index),
                "last_lines": state.last,
            }
        )
    return {
        "call": call.name,
        "queued": call.when,
        "on": call.on,
        "command": shlex.join(call.command),
        "resources": dataclasses.asdict(call.resources),
        "runs": runs,
    }
