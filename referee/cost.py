"""`referee cost`: what a preset's runs take, time and memory, and how that is known.

Known is what a record of the same run and settings says, published or made here, whatever its seed, with the hardware
that it was made on. What no record says can be tried: the run is begun in a temporary folder and stopped after some
seconds; how far its progress bar came says how long training takes, and the process says its memory.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import RecordError, UserError
from common.records import Record
from referee.planning import Task, parse_seeds, plan
from referee.project import Project, UsageError, find_project, find_root, paper_names
from referee.runs import BAR, all_calls, span

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
    """

    seconds: float | None = None
    memory_mb: float | None = None
    gpu_mb: float | None = None
    source: str = "unknown"
    estimate: bool = False


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
    costs = known(root, tasks)
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
    return 0


# -- What records say --------------------------------------------------------------------------------------------------


def known(root: Path, tasks: Sequence[Task]) -> list[Cost]:
    """What records of the same runs and settings say of each task, whatever the seed."""
    memory = _memory_used(root)
    found = []
    for task in tasks:
        own = task.directory if task.own else task.directory.parent
        published = find_project(root, task.project).results / task.preset / task.run
        wanted = _settings(task.config)
        cost = Cost()
        folders = [f for base in (own, published) for f in (base, *sorted(base.glob("seed-*")))]
        for folder in folders:
            try:
                record = Record.load(folder)
            except RecordError:
                continue
            if _without_seed(record.config) != wanted:
                continue
            where = "published" if published in (folder, folder.parent) else "made here"
            peak, gpu = memory.get(json.dumps([task.project, wanted], sort_keys=True), (None, None))
            cost = Cost(record.wall_s, peak, gpu, f"its record, {where}, on {hardware(record.hardware)}")
            break
        found.append(cost)
    return found


def hardware(of: Mapping[str, str | int]) -> str:
    """What a record was made on, in a few words."""
    if "gpu" in of:
        return str(of["gpu"])
    threads = of.get("threads", of.get("cores", "?"))
    name = re.sub(r"\((R|TM)\)|CPU|Processor|@.*", "", str(of.get("cpu", "an unknown processor")))
    return f"{' '.join(name.split())}, {threads} thread{'s' * (threads != 1)}"


def _memory_used(root: Path) -> dict[str, tuple[float | None, float | None]]:
    """The most memory that queued runs used, by project and settings: MB of the process, MB of the GPU."""
    used: dict[str, tuple[float | None, float | None]] = {}
    for call in all_calls(root):
        for index, entry in enumerate(call.queued):
            try:
                note = json.loads((call.folder / "used" / f"{index}.json").read_text())
                key = json.dumps([entry.project, _without_seed(entry.config)], sort_keys=True)
                used.setdefault(key, (note["memory_mb"], note["gpu_mb"]))
            except (OSError, ValueError, KeyError, TypeError):
                continue
    return used


def _settings(config: Any) -> dict[str, Any]:
    return _without_seed(json.loads(json.dumps(dataclasses.asdict(config))))


def _without_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "seed"}


# -- What a trial says -------------------------------------------------------------------------------------------------


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
            command = [sys.executable, "-m", "referee.cost", json.dumps(asked)]
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
    where = f"on this machine: {said['hardware']}"
    memory, gpu = said["memory_mb"], said["gpu_mb"]
    if said["wall_s"] is not None:
        return Cost(said["wall_s"], memory, gpu, f"a whole run, tried {where}")
    training = counted_up(written)
    if training is None:
        return Cost(None, memory, gpu, f"unknown: a trial made no step {where}", True)
    evaluation, of = _evaluation(find_project(root, task.project), task)
    return Cost(training + evaluation, memory, gpu, f"estimate: {seconds:g} s tried {where}; {of}", True)


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


def _evaluation(project: Project, task: Task) -> tuple[float, str]:
    """Seconds that evaluation took in a published run of the same name, the largest preset's, and what to say of it."""
    from common.records import results

    try:
        presets = results(project.results)
    except UserError:
        presets = {}
    for preset in reversed(presets):
        took = presets[preset].get(task.run)
        if took is not None and "evaluate" in took.timings_s:
            seconds = took.timings_s["evaluate"]
            return seconds, f"evaluation as in {preset} ({span(seconds)}), where it may be of less"
    return 0.0, "evaluation is not in it"


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
    import resource

    import torch

    from common.experiment import execute
    from common.training import pick_device
    from common.training.stop import Interrupted
    from referee.timeboxed import TimeIsUp, _at_most

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
    from common import records

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    gpu = torch.cuda.max_memory_allocated(place) / 1e6 if place.type == "cuda" else None
    of = {**records.hardware(), "threads": torch.get_num_threads()}
    if place.type == "cuda":
        of["gpu"] = torch.cuda.get_device_name(place)
    print(json.dumps({"wall_s": wall_s, "memory_mb": round(peak), "gpu_mb": gpu, "hardware": hardware(of)}))


# -- Showing -----------------------------------------------------------------------------------------------------------


def summary(tasks: Sequence[Task], costs: Sequence[Cost], minutes: int) -> list[str]:
    """What to say before runs are queued: what they take as far as it is known, and whether a job's time is short."""
    lines = []
    known_s = [cost.seconds for cost in costs if cost.seconds is not None]
    if known_s:
        sources = sorted({cost.source.removeprefix("its record, ") for cost in costs if cost.seconds is not None})
        of = f"{len(known_s)} of {len(costs)} runs" if len(known_s) < len(costs) else f"{len(costs)} runs"
        memory = max((cost.memory_mb or 0 for cost in costs), default=0)
        much = f", up to {memory / 1000:.1f} GB of memory" if memory else ""
        more = f"; and {len(sources) - 1} other sources" if len(sources) > 1 else ""
        lines.append(
            f"cost: {of}: {span(sum(known_s))} in all, the longest {span(max(known_s))}{much} (by {sources[0]}{more})"
        )
    if unknown := [task.name for task, cost in zip(tasks, costs, strict=True) if cost.seconds is None]:
        first = next(task for task, cost in zip(tasks, costs, strict=True) if cost.seconds is None)
        some = ", ".join(unknown[:4]) + (f" and {len(unknown) - 4} more" if len(unknown) > 4 else "")
        ask = f"referee cost {first.project} --preset {first.preset.partition('+')[0]}"
        lines.append(f"cost unknown: {some}; '{ask}' measures it, and --estimate does before queuing")
    if long := [task for task, cost in zip(tasks, costs, strict=True) if (cost.seconds or 0) > 60 * minutes]:
        lines.append(
            f"warning: {len(long)} runs, {long[0].name} among them, take longer than the {span(60 * minutes)} that a "
            "job gets: they save, are queued again and continue; a longer --time waits in the queue less often"
        )
    return lines


def _show(tasks: Sequence[Task], costs: Sequence[Cost]) -> None:
    from rich.text import Text

    from referee.show import console, plain_table

    table = plain_table()
    for column in ("run", "time", "memory", "how it is known"):
        table.add_column(column, justify="right" if column in ("time", "memory") else "left")
    for task, cost in zip(tasks, costs, strict=True):
        took = "?" if cost.seconds is None else ("about " if cost.estimate else "") + span(cost.seconds)
        memory = "?" if cost.memory_mb is None else f"{cost.memory_mb / 1000:.1f} GB"
        memory += f" + {cost.gpu_mb / 1000:.1f} GB on the GPU" if cost.gpu_mb else ""
        table.add_row(*map(Text, (f"{task.project} {task.preset} {task.name}", took, memory, cost.source)))
    console().print(table)
    if seconds := [cost.seconds for cost in costs if cost.seconds is not None]:
        print(f"{len(seconds)} of {len(costs)} runs known: {span(sum(seconds))}, one after the other")


if __name__ == "__main__":
    _try(json.loads(sys.argv[1]))
