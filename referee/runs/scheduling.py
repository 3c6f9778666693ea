"""`referee run --on`: runs of one or several papers as one array of a scheduler's jobs, or several at a time here.

submitit hands them over: to SLURM, or to processes of this machine. Each job carries out one run of one seed by
`common.experiment.execute`, like `referee run` does. Asked to make room (SIGTERM), or at the end of its time (SIGUSR1),
it lets training save, has itself queued again, and continues from there, so that it ends with the same bits as if it
had never been asked. `referee.runs.calls` has what a call leaves on the disk, and judges what became of it.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from common.digest import code_digest
from common.errors import ProcessError, UserError
from common.records import Record, write_text
from referee.project import Project, UsageError, find_project, find_root, paper_names
from referee.runs import cost
from referee.runs.calls import (
    LEFT,
    Call,
    Entry,
    Resources,
    all_calls,
    calls_folder,
    finished,
    queue,
    states,
    watch_and_tell,
)
from referee.runs.fetching import absent
from referee.runs.locks import LOCKS, alone_in, alone_with
from referee.runs.memory import noting_memory
from referee.runs.planning import Task, parse_seeds, plan
from referee.runs.running import ASIDE, let_go, put_aside
from referee.runs.side_by_side import cores
from referee.words import number_of

if TYPE_CHECKING:
    from referee.schema import Needs

SIGNAL = "USR1"  # what a job gets before its time is up
NOTICE_S = 90  # seconds before: enough to finish a step and write a checkpoint
FRUITLESS = 5  # times that a job may be stopped without having got any further
UNLIMITED = 100_000  # times that a job may come back, as long as it gets further
WEEK = 7 * 24 * 60  # minutes; then a job of this machine without a time saves, and goes on


# -- Asking ------------------------------------------------------------------------------------------------------------


def run_command(options: argparse.Namespace, rest: list[str]) -> int:
    """`referee run --on`."""
    root = find_root()
    call, notes = prepare(root, options, rest)
    for note in notes:
        print(f"      {note}", flush=True)
    if call is None:
        return 0
    with alone_with(root / options.out / LOCKS / "calls"):  # nobody queues the same at the same moment
        call, notes = left_alone(call, resume=options.resume)
        for note in notes:
            print(f"      {note}", flush=True)
        if call is None:
            return 0
        submit(call, fresh=options.fresh)
    each = "each with" if len(call.queued) > 1 else "with"
    print(f"{call.name}: {number_of(len(call.queued), 'run')} on {call.on}, {each} {call.resources}", flush=True)
    if options.detach:
        print(f"Watch: referee runs watch {call.named}   Cancel: referee runs cancel {call.named}")
        return 0
    return watch_and_tell(call, quiet=options.quiet)


def prepare(root: Path, options: argparse.Namespace, overrides: list[str]) -> tuple[Call | None, list[str]]:
    """What a command asks for, as a call that is not submitted yet, and what is worth saying about it.

    Nothing is written. The call is None when every run is done, queued or running already.

    Raises:
        UsageError, ConfigError: what was asked for cannot be.
    """
    papers = paper_names(root) if options.all else list(options.papers)
    _refuse(options, papers, overrides)
    preset, notes = options.preset, []
    if options.all:
        has = [paper for paper in papers if preset in find_project(root, paper).module().PRESETS]
        if not has:
            raise UsageError(f"run: no paper has a preset '{preset}'.")
        if without := [paper for paper in papers if paper not in has]:
            notes.append(f"without a preset '{preset}': {', '.join(without)}")
        papers = has
    only = [name.strip() for name in options.only.split(",") if name.strip()] if options.only else None
    seeds = parse_seeds(options.seeds) if options.seeds else None
    tasks: list[Task] = []
    digests: dict[str, str] = {}
    for paper in papers:
        project = find_project(root, paper)
        tasks += plan(project, preset, only=only, overrides=overrides, seeds=seeds, out=Path(options.out))
        digests[paper] = code_digest(project.paper_file)
    entries = [_entry(root, task, digests[task.project], fresh=options.fresh) for task in tasks]
    resources = _resources(root, papers, preset, options)
    call = Call(
        folder=calls_folder(root, options.out) / _new_name(calls_folder(root, options.out)),
        root=root,
        command=["referee", *options.typed],
        overrides=overrides,
        out=options.out,
        device=options.device if options.device != "auto" else "cuda" if resources.gpus else "cpu",
        on=options.on,
        at_a_time=options.array or (_room_here(resources) if options.on == "local" else 256),
        resources=resources,
        entries=entries,
    )
    left, said = left_alone(call, resume=options.resume)
    notes += said
    entries = left.entries if left else []
    if options.resume and not _ever_asked_for(call):
        raise UsageError("run: --resume, but none of these runs was ever begun. Leave --resume away to begin.")
    if reused := [entry.name for entry in entries if entry.reused]:
        notes.append(f"reused, same settings and code: {', '.join(reused)}")
    if left is None or all(entry.reused for entry in entries):
        notes.append("Nothing to queue: the same command without --on shows the scores.")
        return None, notes
    to_be_done = {entry.directory for entry in left.queued}
    new = [task for entry, task in zip(call.entries, tasks, strict=True) if entry.directory in to_be_done]
    if missing := absent(task.config for task in new):
        need = f"{', '.join(missing)}: 'referee fetch {' '.join(papers)}'"
        notes.append(f"not on this machine, and jobs without a network will fail for want of {need}")
    costs = cost.known(root, new)
    if options.estimate:
        costs = cost.tried(root, new, costs, overrides, seconds=cost.TRIAL_S, device=options.device)
    notes += cost.summary(new, costs, resources.minutes or WEEK, overrides=overrides, only=options.only is not None)
    return left, notes


def left_alone(call: Call, *, resume: bool) -> tuple[Call | None, list[str]]:
    """A call without the runs that other calls have queued already, None if nothing is left; and what to say of them.

    Raises:
        UsageError: there are such runs, and it was not asked to leave them alone.
    """
    busy = _busy(call.root, call.out)
    there = [entry for entry in call.entries if entry.directory in busy]
    if not there:
        return call, []
    if not resume:
        raise UsageError(
            f"run: {_shown(call.directory(there[0]))} is queued or running already, in {busy[there[0].directory]}"
            + (f", and {len(there) - 1} more" if len(there) > 1 else "")
            + ". --resume leaves those alone and submits the rest; 'referee runs cancel' takes them off the queue."
        )
    entries = [entry for entry in call.entries if entry not in there]
    notes = [f"queued or running already: {', '.join(entry.name for entry in there)}"]
    if not any(not entry.reused for entry in entries):
        return None, notes
    return dataclasses.replace(call, entries=entries), notes


def _refuse(options: argparse.Namespace, papers: Sequence[str], overrides: Sequence[str]) -> None:
    """What cannot go together."""
    if not papers:
        raise UsageError("run: which paper? Name one or several, or give --all.")
    if options.all and options.papers:
        raise UsageError(f"run: --all, and {', '.join(options.papers)}: give one of them.")
    if options.preset is None:
        raise UsageError("run: which preset? --preset smoke, laptop, workstation or paper.")
    if len(papers) > 1 and (overrides or options.only):
        raise UsageError("run: --only and settings are of one paper; give them with one paper at a time.")
    if options.publish:
        again = shlex.join(["referee", "run", papers[0], "--preset", options.preset, "--publish"])
        raise UsageError(f"run: --publish with --on: once the runs are done, '{again}' takes them as they are.")
    if options.jobs is not None:
        raise UsageError("run: --jobs is for runs without --on; with it, --array says how many at a time.")
    for flag, value in (("gpus", options.gpus), ("cpus", options.cpus), ("processes", options.processes)):
        if value is not None and value < (flag != "gpus"):
            raise UsageError(f"run: --{flag} {value}: at least {int(flag != 'gpus')}.")
    if options.array is not None and options.array < 1:
        raise UsageError(f"run: --array {options.array}: at least one run at a time.")
    if options.memory is not None and not 0 < options.memory < float("inf"):
        raise UsageError(f"run: --memory {options.memory}: how many GB? A number above 0.")
    if options.processes is not None and options.gpus:
        raise UsageError("run: --processes is for runs on processors; with --gpus N there is one process for each GPU.")
    if options.on == "local" and options.partition:
        raise UsageError("run: --partition is SLURM's; this machine has none. Leave it away, or give --on slurm.")
    if options.on == "slurm" and (missing := [name for name in ("sbatch", "squeue", "srun") if not shutil.which(name)]):
        raise UsageError(
            f"SLURM is not here: {' and '.join(missing)} cannot be found. Give the command where jobs are queued, "
            "on the cluster's login node; --on local runs them on this machine."
        )


def _entry(root: Path, task: Task, digest: str, *, fresh: bool = False) -> Entry:
    config = json.loads(json.dumps(dataclasses.asdict(task.config)))
    directory = task.directory
    return Entry(
        project=task.project,
        preset=task.preset,
        run=task.run,
        seed=task.seed,
        own=task.own,
        directory=directory.relative_to(root).as_posix() if directory.is_relative_to(root) else str(directory),
        config=config,
        code_digest=digest,
        reused=not fresh and finished(directory, config, digest) is not None,
    )


def _resources(root: Path, papers: Sequence[str], preset: str, options: argparse.Namespace) -> Resources:
    """What each job gets: what was typed, else the most that any of the papers asks for, else the defaults."""
    wanted: dict[str, Any] = {}
    for paper in papers:
        needs = _needs(find_project(root, paper), preset)
        for name, value in (needs.model_dump(exclude_none=True) if needs else {}).items():
            value = float(value) if name == "memory_gb" else value  # the file's numbers are decimal
            wanted[name] = max(value, wanted.get(name, value))
    typed = {
        "gpus": options.gpus,
        "cpus": options.cpus,
        "memory_gb": options.memory,
        "minutes": parse_minutes(options.time) if options.time else None,
        "partition": options.partition,
    }
    wanted |= {name: value for name, value in typed.items() if value is not None}
    if options.processes is not None:  # on processors: the file's GPUs are not meant
        wanted |= {"gpus": 0, "processes": options.processes}
    elif wanted.get("gpus", 0) > 1:
        wanted["processes"] = wanted["gpus"]
    if options.on == "local" and "minutes" not in wanted:
        wanted["minutes"] = None
    if options.on == "local" and (gpus := wanted.get("gpus", 0)) > (there := _gpus_here()):
        has = f"has {there}" if there else "has none"
        said = "" if options.gpus else f" as the project says for '{preset}',"
        raise UsageError(
            f"run: {number_of(gpus, 'GPU')} for each run,{said} but this machine {has}. --gpus 0 runs them on its "
            "processors; on a cluster's login node, --on slurm queues them."
        )
    return Resources(**wanted)


def _needs(project: Project, preset: str) -> "Needs | None":
    """What a project says that each run of a preset wants.

    Raises:
        DocumentError: it says so for a preset that there is not.
    """
    compute = project.load().compute
    if compute is None or not compute.presets:
        return None
    from referee.documents import DocumentError
    from referee.loading import check_needs

    path = project.folder / "project.yaml"
    if wrong := check_needs(compute, project.module().PRESETS, project.shown(path), path.read_text(encoding="utf-8")):
        raise DocumentError(wrong)
    return compute.presets.get(preset)


def _gpus_here() -> int:
    import torch

    return torch.cuda.device_count()


def _room_here(resources: Resources) -> int:
    """How many jobs this machine holds at a time."""
    if resources.gpus:
        return _gpus_here() // resources.gpus
    return max(1, cores() // (resources.cpus * resources.processes))


def _new_name(folder: Path) -> str:
    """A call's name, which sorts behind those of all earlier calls."""
    now, last = datetime.now(UTC), max((path.parent.name for path in folder.glob("*/call.json")), default="")
    while f"{now:%Y%m%d-%H%M%S}" <= last[:15]:
        now += timedelta(seconds=1)
    return f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _busy(root: Path, out: str) -> dict[str, str]:
    """Folders of runs that are queued or running -> the call that did it."""
    calls = all_calls(root, out)
    held = queue() if any(call.on == "slurm" for call in calls) else None
    found = {}
    for call in calls:
        for entry, state in zip(call.entries, states(call, held), strict=True):
            if state.word in ("queued", "running"):
                found[entry.directory] = call.name
    return found


def _ever_asked_for(call: Call) -> bool:
    """Whether one of a call's runs was begun, or queued and taken off again before it began."""
    earlier = {entry.directory for each in all_calls(call.root, call.out) for entry in each.queued}
    return any(entry.directory in earlier or call.directory(entry).is_dir() for entry in call.entries)


def parse_minutes(text: str) -> int:
    """Time as SLURM has it: "90" (minutes), "2:00:00", "90:00" (minutes and seconds), "1-12" (days and hours),
    "1-12:00:00"; whole minutes, at least one.

    Raises:
        UsageError: it is no such time.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if match is None:
        raise UsageError(f"run: --time {text}: no such time. Write 2:00:00, or 90 for minutes, or 1-12:00:00 for days.")
    days, parts = match[1], [int(part) for part in match.groups()[1:] if part is not None]
    if days is not None:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, [*parts, 0][:2]
    total = (int(days or 0) * 24 + hours) * 3600 + minutes * 60 + seconds
    if total == 0:
        raise UsageError(f"run: --time {text}: some time is needed.")
    return -(-total // 60)


# -- Handing over ------------------------------------------------------------------------------------------------------


def submit(call: Call, *, fresh: bool = False) -> None:
    """Write the call down and hand its runs over.

    Args:
        fresh: first put aside what the runs have left; it goes when their successors have finished.

    Raises:
        UserError: the scheduler refuses; the message has its own words, nothing is left of the call, and what was put
            aside is back.
        Occupied: somebody works in the folder of a run that is to start over.
    """
    tasks = [_task(call, entry) for entry in call.queued] if fresh else []
    for task in tasks:
        with alone_in(task.directory):  # nobody else's work is put aside
            pass
    call.logs.mkdir(parents=True)
    call.save()
    bases = {_base(task): [each for each in tasks if _base(each) == _base(task)] for task in tasks}
    for base, of in bases.items():
        if aside := put_aside(base, of):
            print(f"      kept in {_shown(base / ASIDE)} until their successors have finished: {', '.join(aside)}")
    try:
        _start_dispatcher(call) if call.on == "local" else _queue(call)
    except UserError:
        for base, of in bases.items():
            _put_back(base, of)
        raise


def _task(call: Call, entry: Entry) -> Task:
    directory = call.directory(entry)
    return Task(entry.project, entry.preset, entry.run, entry.seed, entry.own, entry.config, directory)


def _put_back(base: Path, tasks: Sequence[Task]) -> None:
    """Undo `put_aside`."""
    for task in tasks:
        aside = base / ASIDE / task.name
        for path in aside.iterdir() if aside.is_dir() else ():
            task.directory.mkdir(parents=True, exist_ok=True)
            path.rename(task.directory / path.name)
        let_go(base, task.name)


def _base(task: Task) -> Path:
    """The folder of all runs of a preset."""
    return task.directory.parent if task.own else task.directory.parent.parent


def _shown(path: Path) -> str:
    """A path from where the user stands."""
    return os.path.relpath(path)


def _queue(call: Call) -> None:
    """Hand a call's runs to SLURM."""
    submitit = _submitit()
    resources = call.resources
    minutes = resources.minutes or WEEK  # always said, on a cluster
    parameters: dict[str, Any] = {
        "job_name": call.job_name,
        "time": minutes,
        "nodes": 1,
        "ntasks_per_node": resources.processes,
        "cpus_per_task": resources.cpus,
        "array_parallelism": call.at_a_time,
        "signal_delay_s": min(NOTICE_S, 20 * minutes),
        "stderr_to_stdout": True,
        # The scheduler may take the jobs off a node and bring them back, and begins them where `projects` lies.
        "additional_parameters": {"requeue": True, "chdir": str(call.root)},
        "setup": [f"export SUBMITIT_PREEMPT_SIGNAL={SIGNAL}"],
    }
    if resources.gpus:
        parameters["gpus_per_node"] = resources.gpus
    if resources.memory_gb:
        parameters["mem"] = f"{round(resources.memory_gb * 1024)}M"
    if resources.partition:
        parameters["partition"] = resources.partition
    try:
        executor = submitit.SlurmExecutor(folder=call.logs, max_num_timeout=UNLIMITED)
        executor.update_parameters(**parameters)
        work = [Job(str(call.folder), str(call.root), i) for i in range(len(call.queued))]
        with contextlib.redirect_stderr(io.StringIO()):  # what sbatch says is in the error, too
            jobs = executor.submit_array(work)
    except Exception as error:
        shutil.rmtree(call.folder)
        said = "\n".join(line for line in str(error).splitlines() if line.strip()) or type(error).__name__
        raise UserError(f"SLURM refused the jobs:\n{said}\nAsked for: {resources}.") from None
    call.note_jobs({i: job.job_id for i, job in enumerate(jobs)})


def _submitit() -> Any:
    """submitit, told which signal it is that SLURM sends before a job's time is up."""
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = SIGNAL  # read when it is imported
    import submitit

    return submitit


# -- In the job --------------------------------------------------------------------------------------------------------


class _Stop(BaseException):
    """A signal asked the job to make room while nothing was being trained. Not an Exception: nobody should catch it."""


class Job:
    """One run of a call, as a job carries it out; submitit keeps it in a file and calls it."""

    def __init__(self, folder: str, root: str, index: int, fruitless: int = 0) -> None:
        self.folder = folder
        self.root = root
        self.index = index
        self.fruitless = fruitless  # times in a row that it was stopped without having got any further

    def checkpoint(self) -> Any:
        """What is to be called when the job comes back: the same; what has been done is in the run's folder."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(Job(self.folder, self.root, self.index, self.fruitless))

    def __call__(self) -> None:
        """Carry the run to its record.

        A mistake of the user's ends the job with its message, as on the command line; SystemExit, with status 1. Of
        several processes that are asked to make room some may end before the others have heard of it; who then finds
        them gone has been asked, too.
        """
        import submitit

        call = Call.load(Path(self.folder), Path(self.root))
        entry = call.queued[self.index]
        os.environ["OMP_NUM_THREADS"] = str(call.resources.cpus)  # torch is imported below
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        environment = submitit.JobEnvironment()
        if environment.num_tasks > 1:
            helper = submitit.helpers.TorchDistributedEnvironment()
            helper.export(set_cuda_visible_devices=False, overwrite=True)
        number = getattr(signal, f"SIG{SIGNAL}")
        queue_again = signal.getsignal(number)  # submitit's: writes `checkpoint()` down and asks the scheduler
        saved = _last_saved(call.directory(entry))
        heard: list[int] = []
        try:
            with _signals_stop(heard):
                if call.cancelled:  # before there was anybody to hear the signal
                    raise _Stop("Stopped before it began.")
                record, reused = carry_out(call, entry, f"job {environment.job_id}", environment.global_rank)
        except (UserError, _Stop) as stopped:
            from common.training.stop import Interrupted

            if not isinstance(stopped, (Interrupted, _Stop)) and not (heard and isinstance(stopped, ProcessError)):
                print(f"referee: {stopped}", file=sys.stderr, flush=True)
                sys.exit(1)
            if isinstance(stopped, ProcessError):
                stopped = _Stop(
                    f"Stopped by {signal.Signals(heard[0]).name}, after another process. What was saved is kept."
                )
            print(f"referee: {entry.name}: {stopped}", file=sys.stderr, flush=True)
            if environment.global_rank != 0:
                return  # the first of the processes asks, for all
            self.fruitless = 0 if _last_saved(call.directory(entry)) != saved else self.fruitless + 1
            self._come_back(call, entry, environment, queue_again, number)
        else:
            if environment.global_rank == 0:
                task = _task(call, entry)
                let_go(_base(task), task.name)
                print(f"{entry.name}: {'reused' if reused else f'{record.wall_s:.0f} s'}", flush=True)

    def _come_back(self, call: Call, entry: Entry, environment: Any, queue_again: Any, number: int) -> None:
        """Have the job queued again, unless nobody wants it any more or it gets nowhere."""
        if call.cancelled:
            print("referee: it was cancelled; what it has done is saved.", file=sys.stderr, flush=True)
            sys.exit(1)
        if self.fruitless >= FRUITLESS:
            print(
                f"referee: {entry.name}: stopped {self.fruitless} times without having got any further. It may take "
                f"more time at a stretch than it gets ({call.resources}): queue it again with a "
                f"longer --time. What it has done is saved.",
                file=sys.stderr,
                flush=True,
            )
            sys.exit(1)
        # The scheduler may have queued it already, or somebody may have cancelled it by the scheduler's own command.
        if call.on == "slurm" and (state := _job_state(environment.job_id)) not in ("RUNNING", "UNKNOWN"):
            print(f"referee: {LEFT}{state}", file=sys.stderr, flush=True)
            sys.exit(1)
        try:
            queue_again(number, None)
        except subprocess.SubprocessError as error:
            print(
                f"referee: {entry.name}: the scheduler would not queue it again ({error}). What it has done is saved: "
                f"{call.again()}",
                file=sys.stderr,
                flush=True,
            )
            sys.exit(1)


def carry_out(call: Call, entry: Entry, who: str, rank: int) -> tuple[Record, bool]:
    """Carry one run of a call to its record; returns it, and whether it was there already.

    Raises:
        UserError: the code or the settings are others than when the call was made, another process works in the run's
            folder, or whatever stops a run.
    """
    project = find_project(call.root, entry.project)
    if code_digest(project.paper_file) != entry.code_digest:
        raise UserError(
            f"{entry.name}: the code has changed since this was queued; it was not run. Queue it again: {call.again()}"
        )
    preset = entry.preset.partition("+")[0]
    seeds = None if entry.own else (entry.seed,)
    tasks = plan(project, preset, only=[entry.run], overrides=call.overrides, seeds=seeds, out=Path(call.out))
    task = next(task for task in tasks if task.seed == entry.seed)
    if json.loads(json.dumps(dataclasses.asdict(task.config))) != entry.config:
        raise UserError(
            f"{entry.name}: the preset's settings have changed since this was queued; it was not run. "
            f"Queue it again: {call.again()}"
        )
    from common.experiment import execute
    from common.training import distributed, pick_device

    place = distributed.start(pick_device(call.device))
    # A job that comes back may be faster than the end of the one that it was.
    with contextlib.ExitStack() as around:
        if rank == 0:
            around.enter_context(alone_in(task.directory, who, patience_s=60.0))
            around.enter_context(noting_memory(task.directory, place))
        return execute(project.module(), task.project, task.preset, task.run, task.config, task.directory, place)


def _last_saved(directory: Path) -> int:
    """Tells whether training got any further: when its checkpoint was written."""
    try:
        return (directory / "checkpoint.pt").stat().st_mtime_ns
    except OSError:
        return 0


@contextlib.contextmanager
def _signals_stop(heard: list[int] | None = None) -> Iterator[None]:
    """SIGTERM and SIGUSR1 end what is being done, once; training, which hears them first, saves and ends by itself.

    SLURM sends SIGTERM twice to what it displaces, so that the second finds training about to save.

    Args:
        heard: receives, at the end, the signals that came, whoever heard them.
    """
    numbers = [signal.SIGTERM, getattr(signal, f"SIG{SIGNAL}")]
    read, write = os.pipe()
    os.set_blocking(write, False)
    os.set_blocking(read, False)
    others = signal.set_wakeup_fd(write, warn_on_full_buffer=False)  # each signal is a byte

    def stop(number: int, _frame: FrameType | None) -> None:
        if signal.getsignal(signal.SIGINT) != ctrl_c:  # training listens, and has heard this one before
            return
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise _Stop(f"Stopped by {signal.Signals(number).name} outside training; what was trained is saved.")

    ctrl_c = signal.getsignal(signal.SIGINT)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(others)
        os.close(write)
        with contextlib.suppress(BlockingIOError):
            came = os.read(read, 64)
            if heard is not None:
                heard += [number for number in came if number in numbers]
        os.close(read)


def _job_state(job: str) -> str:
    try:
        done = subprocess.run(["scontrol", "show", "job", "-o", job], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return "UNKNOWN"
    match = re.search(r"\bJobState=(\S+)", done.stdout)
    return match[1] if match else "UNKNOWN"


# -- On this machine ---------------------------------------------------------------------------------------------------


def _start_dispatcher(call: Call) -> None:
    """Start the process that starts the runs; it outlives this one, and Ctrl-C does not reach it."""
    call.dispatcher.touch()
    with open(call.folder / "dispatcher.log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "referee.runs.scheduling", str(call.folder)],
            cwd=call.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + 60
    while not (call.folder / "ended.json").exists():  # it is at work, and holds its lock
        if process.poll() is not None or time.monotonic() > deadline:
            said = (call.folder / "dispatcher.log").read_text().strip()
            raise UserError(f"The runs could not be started: {said or 'no word from the process that starts them'}")
        time.sleep(0.02)


def dispatch(call: Call) -> None:
    """Start the runs of a call, so many at a time, until all have ended or the call is cancelled."""
    import fcntl

    submitit = _submitit()
    resources = call.resources
    waiting = [Job(str(call.folder), str(call.root), index) for index in range(len(call.queued))]
    ended, told = list[int](), set[int]()
    jobs: dict[int, str] = {}
    running: dict[int, tuple[int, Any]] = {}  # place -> which run, and submitit's job
    with open(call.dispatcher, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _note_ended(call, ended)
        while running or (waiting and not call.cancelled):
            for place in range(call.at_a_time):
                if place in running or not waiting or call.cancelled:
                    continue
                work = waiting.pop(0)
                executor = submitit.LocalExecutor(folder=call.logs, max_num_timeout=UNLIMITED)
                minutes = resources.minutes or WEEK
                executor.update_parameters(
                    timeout_min=minutes,
                    signal_delay_s=min(NOTICE_S, 20 * minutes),
                    tasks_per_node=resources.processes,
                    gpus_per_node=resources.gpus,
                    visible_gpus=tuple(range(place * resources.gpus, (place + 1) * resources.gpus)),
                    stderr_to_stdout=True,
                )
                job = executor.submit(work)
                running[place] = (work.index, job)
                jobs[work.index] = job.job_id
                call.note_jobs(jobs)
            for place, (index, job) in list(running.items()):
                if call.cancelled and index not in told:
                    told.add(index)
                    job._process.send_signal(signal.SIGTERM)  # handed on: training saves
                if job.done():
                    del running[place]
                    if _wants_to_come_back(call, index):
                        waiting.insert(0, job.submission().function)
                    else:
                        ended.append(index)
                        _note_ended(call, ended)
            time.sleep(0.2)


def _wants_to_come_back(call: Call, index: int) -> bool:
    """Whether a job ended by asking for another go: submitit brings it back by itself, but not for ever."""
    log = call.log(index)
    return log is not None and not call.cancelled and "Requeued job" in "".join(log.read_text().splitlines()[-2:])


def _note_ended(call: Call, ended: list[int]) -> None:
    write_text(call.folder / "ended.json", json.dumps(ended) + "\n")


if __name__ == "__main__":
    from referee.runs import scheduling  # under its own name, by which the jobs find what is in it

    scheduling.dispatch(Call.load(Path(sys.argv[1]).resolve(), find_root()))
