"""`referee cost`: what a preset's runs take, time and memory, and how that is known.

Known is what a record of the same run and settings says, published or made here, whatever its seed, with the hardware
that it was made on, and what the run's folder says of its memory. What no record says can be tried: the run is begun in
a temporary folder and stopped after some seconds; how far its progress bar came says how long training takes, and the
process says its memory. What a trial says is kept in `runs/.trials`, until the paper's code changes.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common import records
from common.digest import code_digest
from common.errors import RecordError, UserError
from common.records import Record, write_text
from referee.project import Project, UsageError, find_project, find_root, paper_names
from referee.runs.calls import BAR, span
from referee.runs.memory import gpu_mb, kept, peak_mb
from referee.runs.planning import Task, parse_seeds, plan
from referee.words import number_of

TRIALS = "runs/.trials"
TRIAL_S = 20.0
START_S = 180.0  # that a trial may take until its first step: the data, and what is compiled


@dataclass(frozen=True)
class Cost:
    """What one run takes.

    Attributes:
        seconds: training and evaluation; None where nobody knows.
        memory_mb: the most of a process's memory; None where nobody knows.
        gpu_mb: the most of a GPU's memory that torch held.
        source: how it is known, in words.
        estimate: whether it was worked out from a part.
        evaluated: whether evaluation is included, or nobody knows how long it takes.
    """

    seconds: float | None = None
    memory_mb: float | None = None
    gpu_mb: float | None = None
    source: str = "unknown"
    estimate: bool = False
    evaluated: bool = True


def cost_command(options: argparse.Namespace, rest: list[str]) -> int:
    """`referee cost`."""
    root = find_root()
    papers = paper_names(root) if options.all else options.papers
    if not papers:
        raise UsageError("cost: which paper? Name one or several, or give --all.")
    if options.preset is None:
        raise UsageError("cost: which preset? --preset smoke, laptop, workstation or paper.")
    if options.seconds is not None and not 1 <= options.seconds <= 3600:
        raise UsageError(f"cost: --seconds {options.seconds:g}: from 1 to 3600.")
    only = [name.strip() for name in options.only.split(",") if name.strip()] if options.only else None
    seeds = parse_seeds(options.seeds) if options.seeds else None
    tasks = []
    for paper in papers:
        project = find_project(root, paper)
        if options.all and options.preset not in project.module().PRESETS:
            continue
        tasks += plan(project, options.preset, only=only, overrides=rest, seeds=seeds)
    at_least = options.seconds or 0.0
    costs = known(root, tasks, device=options.device, elsewhere=options.no_trial, at_least=at_least)
    if not options.no_trial:
        costs = tried(root, tasks, costs, rest, seconds=options.seconds or TRIAL_S, device=options.device)
    if options.format == "json":
        listed = [
            {"project": t.project, "preset": t.preset, "run": t.run, "seed": t.seed, **dataclasses.asdict(cost)}
            for t, cost in zip(tasks, costs, strict=True)
        ]
        print(json.dumps({"runs": listed}, indent=1))
        return 0
    _show(tasks, costs)
    if options.no_trial and (ask := measuring(tasks, costs, overrides=rest, only=options.only is not None)):
        print(f"Measured by: {ask}")
    return 0


# -- What records say --------------------------------------------------------------------------------------------------


def known(
    root: Path, tasks: Sequence[Task], *, device: str = "auto", elsewhere: bool = True, at_least: float = 0.0
) -> list[Cost]:
    """What records of the same runs and settings say of each task, whatever the seed; else what trials have said.

    Args:
        device: of trials; those made on hardware like this machine's are preferred.
        elsewhere: take trials that were made on other hardware, where there are no such.
        at_least: only trials of so many seconds.
    """
    found = []
    for task in tasks:
        own = task.directory if task.own else task.directory.parent
        published = find_project(root, task.project).results / task.preset / task.run
        wanted = _settings(task.config)
        cost, peak = Cost(), None
        folders = [f for base in (own, published) for f in (base, *sorted(base.glob("seed-*")))]
        for folder in folders:
            try:
                record = Record.load(folder)
            except RecordError:
                continue
            if _without_seed(record.config) != wanted:
                continue
            peak = peak or kept(folder)
            if cost.seconds is None:
                where = "published" if published in (folder, folder.parent) else "made here"
                cost = Cost(record.wall_s, source=f"its record, {where}, on {hardware(record.hardware)}")
        if peak is not None:
            cost = dataclasses.replace(cost, memory_mb=peak[0], gpu_mb=peak[1])
        found.append(cost if cost.seconds is not None else _tried_before(root, task, device, elsewhere, at_least))
    return found


def hardware(of: Mapping[str, str | int]) -> str:
    """What a record was made on, in a few words."""
    if "gpu" in of:
        return str(of["gpu"])
    threads = of.get("threads", of.get("cores", "?"))
    name = re.sub(r"\((R|TM)\)|CPU|Processor|@.*", "", str(of.get("cpu", "an unknown processor")))
    return f"{' '.join(name.split())}, {threads} thread{'s' * (threads != 1)}"


def _settings(config: Any) -> dict[str, Any]:
    return _without_seed(json.loads(json.dumps(dataclasses.asdict(config))))


def _without_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "seed"}


# -- What a trial says -------------------------------------------------------------------------------------------------


def _keep(root: Path, task: Task, cost: Cost, on: str, seconds: float) -> None:
    """Keep what a trial said; one a run, its settings, and kind of hardware."""
    of = {"project": task.project, "settings": _settings(task.config), "hardware": on}
    name = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]
    code = code_digest(find_project(root, task.project).paper_file)
    said = {**of, "code_digest": code, "seconds": seconds, "cost": dataclasses.asdict(cost)}
    with contextlib.suppress(OSError):  # it is printed in any case
        write_text(root / TRIALS / f"{task.project}-{name}.json", json.dumps(said, indent=1) + "\n")


def _tried_before(root: Path, task: Task, device: str, elsewhere: bool, at_least: float) -> Cost:
    """What a trial of the same settings and code has said, best one on hardware like this; else that nobody knows."""
    settings, found = _settings(task.config), {}
    for path in sorted((root / TRIALS).glob(f"{task.project}-*.json")):
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            if said["project"] == task.project and said["settings"] == settings and said["seconds"] >= at_least:
                found[said["hardware"]] = said["code_digest"], Cost(**said["cost"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    if not found:
        return Cost()
    code, here = code_digest(find_project(root, task.project).paper_file), _here(device)
    fitting = {on: cost for on, (of, cost) in found.items() if of == code and (elsewhere or on == here)}
    return fitting.get(here) or next(iter(fitting.values()), Cost())


def _here(device: str) -> str:
    """The hardware that a trial would be made on, in a few words."""
    import torch

    from common.training import pick_device

    place = pick_device(device)
    gpu = {"gpu": torch.cuda.get_device_name(place)} if place.type == "cuda" else {}
    return hardware({**records.hardware(), "threads": torch.get_num_threads(), **gpu})


def tried(
    root: Path,
    tasks: Sequence[Task],
    costs: Sequence[Cost],
    overrides: Sequence[str],
    *,
    seconds: float,
    device: str = "auto",
) -> list[Cost]:
    """The costs, with a trial of each run that nothing was known of; seeds of one run share a trial."""
    found: dict[str, Cost] = {}
    todo = {json.dumps([t.project, _settings(t.config)]): t for t, c in zip(tasks, costs, strict=True) if not c.seconds}
    for number, (key, task) in enumerate(todo.items(), start=1):
        print(
            f"trying {task.project} {task.run} for {seconds:g} s [{number}/{len(todo)}] ...",
            file=sys.stderr,
            flush=True,
        )
        found[key] = trial(root, task, overrides, seconds=seconds, device=device)
    return [
        cost if cost.seconds else found.get(json.dumps([task.project, _settings(task.config)]), cost)
        for task, cost in zip(tasks, costs, strict=True)
    ]


def trial(root: Path, task: Task, overrides: Sequence[str], *, seconds: float, device: str) -> Cost:
    """Begin a run in a temporary folder, stop it after so many seconds of work, and count it up."""
    with tempfile.TemporaryDirectory() as folder:
        asked = {
            "project": task.project,
            "preset": task.preset.partition("+")[0],
            "run": task.run,
            "seed": None if task.own else task.seed,
            "overrides": list(overrides),
            "out": folder,
            "seconds": seconds,
            "device": device,
        }
        with open(Path(folder) / "log", "w+", encoding="utf-8", errors="replace") as log:
            command = [sys.executable, "-m", "referee.runs.cost", json.dumps(asked)]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            try:
                done = subprocess.run(
                    command,
                    cwd=root,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    timeout=seconds + 2 * START_S,
                )
            except subprocess.TimeoutExpired:
                return Cost(source=f"unknown: a trial did not stop within {seconds + 2 * START_S:.0f} s")
            log.seek(0)
            written = log.read()
    try:
        said = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = [line for line in written.replace("\r", "\n").splitlines() if line.strip() and not BAR.search(line)]
        return Cost(source=f"unknown: a trial failed: {last[-1].strip() if last else 'without a word'}")
    on, when = said["hardware"], datetime.now(UTC).strftime("%Y-%m-%d")
    memory, gpu = said["memory_mb"], said["gpu_mb"]
    if said["wall_s"] is not None:
        cost = Cost(said["wall_s"], memory, gpu, f"a whole run, tried on {on}, {when}")
    elif (training := counted_up(written)) is None:
        return Cost(None, memory, gpu, f"unknown: a trial made no step on {on}", True)
    else:
        evaluation, of = _evaluation(find_project(root, task.project), task)
        source = f"estimate: {seconds:g} s tried on {on}, {when}; {of}"
        cost = Cost(training + (evaluation or 0.0), memory, gpu, source, True, evaluation is not None)
    _keep(root, task, cost, on, seconds)
    return cost


def counted_up(log: str) -> float | None:
    """Seconds that all of training takes, from how far the bar came; None where there was no step.

    A run that trains in several stages has several bars. Those that were full are counted as they are, the last one is
    counted up; what would have come after it is not in it.
    """
    bars: dict[str, tuple[float, float]] = {}  # total -> the latest of its bar: share done, seconds
    for _, done, total, elapsed, _, _ in BAR.findall(log):
        share = float(done) / float(total) if re.fullmatch(r"[\d.]+", done + total) and float(total) else 0.0
        bars[total] = (share, _clock(elapsed))
    if not bars or not (last := bars[list(bars)[-1]])[0]:
        return None
    before = sum(seconds for share, seconds in list(bars.values())[:-1] if share == 1)
    return before + last[1] / last[0]


def _clock(text: str) -> float:
    """'1:02:03' in seconds."""
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part if part.isdigit() else 0)
    return seconds


def _evaluation(project: Project, task: Task) -> tuple[float | None, str]:
    """Seconds that evaluation took in a published run of the same name, the largest preset's, and what to say of it."""
    try:
        presets = records.results(project.results)
    except UserError:
        presets = {}
    for preset in reversed(presets):
        took = presets[preset].get(task.run)
        if took is not None and "evaluate" in took.timings_s:
            seconds = took.timings_s["evaluate"]
            return seconds, f"evaluation as in {preset} ({span(seconds)}), where it may be of less"
    return None, "evaluation is not included: nobody knows how long it takes"


@contextlib.contextmanager
def _from_the_first_step(seconds: float) -> Iterator[None]:
    """Once training has made its first step, so many seconds are left: data and compilers take their own time."""
    from common.training.progress import Progress

    update = Progress.update

    def first(self: Progress, batch: Any) -> None:
        update(self, batch)
        Progress.update = update  # type: ignore[method-assign]
        signal.setitimer(signal.ITIMER_REAL, seconds)

    Progress.update = first  # type: ignore[method-assign]
    try:
        yield
    finally:
        Progress.update = update  # type: ignore[method-assign]


def _try(asked: Mapping[str, Any]) -> None:
    """In a process of its own: begin a run, stop it when the time is up; print what it took as JSON."""
    from common.experiment import execute
    from common.training import pick_device
    from common.training.stop import Interrupted
    from referee.runs.timeboxed import TimeIsUp, _at_most

    root = find_root()
    project = find_project(root, asked["project"])
    seeds = None if asked["seed"] is None else (asked["seed"],)
    overrides, out = asked["overrides"], Path(asked["out"])
    task = plan(project, asked["preset"], only=[asked["run"]], overrides=overrides, seeds=seeds, out=out)[-1]
    place, wall_s = pick_device(asked["device"]), None
    try:
        with _at_most(START_S), _from_the_first_step(asked["seconds"]):
            record, _ = execute(
                project.module(), task.project, task.preset, task.run, task.config, task.directory, place
            )
        wall_s = record.wall_s
    except (Interrupted, TimeIsUp):
        pass
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    memory, gpu = peak_mb(), gpu_mb(place)
    print(json.dumps({"wall_s": wall_s, "memory_mb": memory, "gpu_mb": gpu, "hardware": _here(asked["device"])}))


# -- Showing -----------------------------------------------------------------------------------------------------------


def measuring(
    tasks: Sequence[Task], costs: Sequence[Cost], *, overrides: Sequence[str] = (), only: bool = False
) -> str:
    """The command that measures what nobody knows; '' where there is no such run.

    Args:
        overrides: the settings that were typed.
        only: whether some runs of the preset were asked for, not all.
    """
    unknown = [task for task, cost in zip(tasks, costs, strict=True) if cost.seconds is None]
    if not unknown:
        return ""
    words = ["referee", "cost", *dict.fromkeys(task.project for task in unknown)]
    words += ["--preset", unknown[0].preset.partition("+")[0]]
    words += ["--only", ",".join(dict.fromkeys(task.run for task in unknown))] if only else []
    return shlex.join([*words, *overrides])


def summary(
    tasks: Sequence[Task], costs: Sequence[Cost], minutes: int, *, overrides: Sequence[str] = (), only: bool = False
) -> list[str]:
    """What to say before runs are queued: what they take as far as it is known, and whether a job's time is short.

    Args:
        overrides, only: of `measuring`.
    """
    lines = []
    known_s = [cost.seconds for cost in costs if cost.seconds is not None]
    if known_s:
        sources = sorted({cost.source.removeprefix("its record, ") for cost in costs if cost.seconds is not None})
        of = f"{len(known_s)} of {number_of(len(costs), 'run')}" if len(known_s) < len(costs) else ""
        memory = max((cost.memory_mb or 0 for cost in costs), default=0)
        much = f", up to {memory / 1000:.1f} GB of memory" if memory else ""
        more = f"; and {number_of(len(sources) - 1, 'other source')}" if len(sources) > 1 else ""
        lines.append(
            f"cost: {of or number_of(len(costs), 'run')}: {span(sum(known_s))} in all, the longest "
            f"{span(max(known_s))}{_without_evaluation(costs)}{much} (by {sources[0]}{more})"
        )
    if ask := measuring(tasks, costs, overrides=overrides, only=only):
        unknown = [task.name for task, cost in zip(tasks, costs, strict=True) if cost.seconds is None]
        some = ", ".join(unknown[:4]) + (f" and {len(unknown) - 4} more" if len(unknown) > 4 else "")
        lines.append(f"cost unknown: {some}; '{ask}' measures it, and --estimate does before queuing")
    if long := [task for task, cost in zip(tasks, costs, strict=True) if (cost.seconds or 0) > 60 * minutes]:
        lines.append(
            f"warning: {_take_longer(long)} than the {span(60 * minutes)} that a job gets: when they are over, it "
            "saves, is queued again and continues; a longer --time waits in the queue less often"
        )
    return lines


def _take_longer(tasks: Sequence[Task]) -> str:
    if len(tasks) == 1:
        return f"{tasks[0].name} takes longer"
    return f"{len(tasks)} runs, {tasks[0].name} among them, take longer"


def _without_evaluation(costs: Sequence[Cost]) -> str:
    without = sum(not cost.evaluated for cost in costs)
    if not without:
        return ""
    return f", evaluation{'' if without == len(costs) else f' of {without} of them'} not included"


def _show(tasks: Sequence[Task], costs: Sequence[Cost]) -> None:
    from rich.text import Text

    from referee.show import console, plain_table

    table = plain_table()
    for column in ("run", "time", "memory", "how it is known"):
        table.add_column(column, justify="right" if column in ("time", "memory") else "left")
    for task, cost in zip(tasks, costs, strict=True):
        took = "?" if cost.seconds is None else ("about " if cost.estimate else "") + span(cost.seconds)
        took += "" if cost.evaluated else " + evaluation"
        memory = "?" if cost.memory_mb is None else f"{cost.memory_mb / 1000:.1f} GB"
        memory += f" + {cost.gpu_mb / 1000:.1f} GB on the GPU" if cost.gpu_mb else ""
        table.add_row(*map(Text, (f"{task.project} {task.preset} {task.name}", took, memory, cost.source)))
    console().print(table)
    if seconds := [cost.seconds for cost in costs if cost.seconds is not None]:
        print(
            f"{len(seconds)} of {number_of(len(costs), 'run')} known: {span(sum(seconds))}, one after the other"
            f"{_without_evaluation(costs)}"
        )


if __name__ == "__main__":
    _try(json.loads(sys.argv[1]))
