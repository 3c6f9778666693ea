"""`referee run --on`: runs of one or several papers as one array of a scheduler's jobs, or several at a time here.

submitit hands them over: to SLURM, or to processes of this machine. Each job carries out one run of one seed by
`common.experiment.execute`, like `referee run` does. Asked to make room (SIGTERM), or at the end of its time (SIGUSR1),
it lets training save, has itself queued again, and continues from there, so that it ends with the same bits as if it
had never been asked. `referee.runs` has what a call leaves on the disk, and judges what became of it.
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
from common.errors import UserError
from common.records import Record, write_text
from referee import cost
from referee.fetching import absent
from referee.locks import alone_in
from referee.planning import Task, parse_seeds, plan
from referee.project import UsageError, find_project, find_root, paper_names
from referee.runs import Call, Entry, Resources, all_calls, calls_folder, finished, queue, states, watch_and_tell
from referee.side_by_side import cores

if TYPE_CHECKING:
    from referee.schema import Compute

SIGNAL = "USR1"  # what a job gets before its time is up
NOTICE_S = 90  # seconds before: enough to finish a step and write a checkpoint
FRUITLESS = 5  # times that a job may be stopped without having got any further
UNLIMITED = 100_000  # times that a job may come back, as long as it gets further
WEEK = 7 * 24 * 60  # minutes


# -- Asking ------------------------------------------------------------------------------------------------------------


def run_command(options: argparse.Namespace, rest: list[str]) -> int:
    """`referee run --on`."""
    root = find_root()
    call, notes = prepare(root, options, rest)
    for note in notes:
        print(f"      {note}", flush=True)
    if call is None:
        return 0
    submit(call)
    print(f"{call.name}: {len(call.queued)} runs on {call.on}, each with {call.resources}", flush=True)
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
    entries = [_entry(root, task, digests[task.project]) for task in tasks]
    resources = _resources(root, papers, preset, options)
    at_a_time = options.array or (_room_here(resources) if options.on == "local" else 256)
    folder = calls_folder(root, options.out) / _new_name(calls_folder(root, options.out))
    busy = _busy(root, options.out)
    there = {entry.directory: busy[entry.directory] for entry in entries if entry.directory in busy}
    if there and not options.resume:
        directory, call_name = next(iter(there.items()))
        raise UsageError(
            f"run: {directory} is queued or running already, in {call_name}"
            + (f", and {len(there) - 1} more" if len(there) > 1 else "")
            + ". --resume leaves those alone and submits the rest; 'referee runs cancel' takes them off the queue."
        )
    if options.resume and not there and not any((root / entry.directory).is_dir() for entry in entries):
        raise UsageError("run: --resume, but none of these runs was ever begun. Leave --resume away to begin.")
    if there:
        notes.append(f"queued or running already: {', '.join(e.name for e in entries if e.directory in there)}")
    planned = [pair for pair in zip(entries, tasks, strict=True) if pair[0].directory not in there]
    entries = [entry for entry, _ in planned]
    if reused := [entry.name for entry in entries if entry.reused]:
        notes.append(f"reused, same settings and code: {', '.join(reused)}")
    if all(entry.reused for entry in entries):
        notes.append("Nothing to queue: the same command without --on shows the scores.")
        return None, notes
    new = [task for entry, task in planned if not entry.reused]
    if missing := absent(task.config for task in new):
        need = f"{', '.join(missing)}: 'referee fetch {' '.join(papers)}'"
        notes.append(f"not on this machine, and jobs without a network will fail for want of {need}")
    costs = cost.known(root, new)
    if options.estimate:
        costs = cost.tried(root, new, costs, overrides, seconds=cost.TRIAL_S, device=options.device)
    notes += cost.summary(new, costs, resources.minutes)
    call = Call(
        folder=folder,
        root=root,
        command=["referee", *options.typed],
        overrides=overrides,
        out=options.out,
        device=options.device if options.device != "auto" else "cuda" if resources.gpus else "cpu",
        on=options.on,
        at_a_time=at_a_time,
        resources=resources,
        entries=entries,
    )
    return call, notes


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
    if options.fresh:
        raise UsageError(
            "run: --fresh with --on: runs of the same settings and code are not queued again. Move their folders "
            "away, or start over on this machine with 'referee run --fresh'."
        )
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


def _entry(root: Path, task: Task, digest: str) -> Entry:
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
        reused=finished(directory, config, digest) is not None,
    )


def _resources(root: Path, papers: Sequence[str], preset: str, options: argparse.Namespace) -> Resources:
    """What each job gets: what was typed, else the most that any of the papers asks for, else the defaults."""
    wanted: dict[str, Any] = {}
    for paper in papers:
        compute: Compute | None = find_project(root, paper).load().compute
        needs = compute.presets.get(preset) if compute else None
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
        wanted["minutes"] = WEEK
    return Resources(**wanted)


def _room_here(resources: Resources) -> int:
    """How many jobs this machine holds at a time."""
    if resources.gpus:
        import torch

        return max(1, torch.cuda.device_count() // resources.gpus)
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


def submit(call: Call) -> None:
    """Write the call down and hand its runs over.

    Raises:
        UserError: the scheduler refuses; the message has its own words, and nothing is left of the call.
    """
    call.logs.mkdir(parents=True)
    call.save()
    if call.on == "local":
        _start_dispatcher(call)
        return
    submitit = _submitit()
    resources = call.resources
    parameters: dict[str, Any] = {
        "job_name": call.job_name,
        "time": resources.minutes,
        "nodes": 1,
        "ntasks_per_node": resources.processes,
        "cpus_per_task": resources.cpus,
        "array_parallelism": call.at_a_time,
        "signal_delay_s": min(NOTICE_S, 20 * resources.minutes),
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

        A mistake of the user's ends the job with its message, as on the command line; SystemExit, with status 1.
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
        from common.training.stop import Interrupted

        try:
            with _signals_stop():
                if call.cancelled:  # before there was anybody to hear the signal
                    raise _Stop("Stopped before it began.")
                record, reused = carry_out(call, entry, f"job {environment.job_id}", environment.global_rank)
        except (Interrupted, _Stop) as stopped:
            print(f"referee: {entry.name}: {stopped}", file=sys.stderr, flush=True)
            if environment.global_rank != 0:
                return  # the first of the processes asks, for all
            self.fruitless = 0 if _last_saved(call.directory(entry)) != saved else self.fruitless + 1
            self._come_back(call, entry, environment, queue_again, number)
        except UserError as error:
            print(f"referee: {error}", file=sys.stderr, flush=True)
            sys.exit(1)
        else:
            if environment.global_rank == 0:
                _note_used(call, self.index)
                print(f"{entry.name}: {'reused' if reused else f'{record.wall_s:.0f} s'}", flush=True)

    def _come_back(self, call: Call, entry: Entry, environment: Any, queue_again: Any, number: int) -> None:
        """Have the job queued again, unless nobody wants it any more or it gets nowhere."""
        if call.cancelled:
            print("referee: it was cancelled; what it has done is saved.", file=sys.stderr, flush=True)
            sys.exit(1)
        if self.fruitless >= FRUITLESS:
            print(
                f"referee: {entry.name}: stopped {self.fruitless} times without having got any further. It may take "
                f"more time at a stretch than the {call.resources.minutes} minutes it gets: queue it again with a "
                f"longer --time. What it has done is saved.",
                file=sys.stderr,
                flush=True,
            )
            sys.exit(1)
        # The scheduler may have queued it already, or somebody may have cancelled it by the scheduler's own command.
        if call.on == "slurm" and (state := _job_state(environment.job_id)) not in ("RUNNING", "UNKNOWN"):
            print(f"referee: it is left to the scheduler, which says: {state}", file=sys.stderr, flush=True)
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
    with alone_in(task.directory, who, patience_s=60.0) if rank == 0 else contextlib.nullcontext():
        return execute(project.module(), task.project, task.preset, task.run, task.config, task.directory, place)


def _note_used(call: Call, index: int) -> None:
    """Keep the most memory that this process, and its GPU, needed, for those who ask what such a run takes."""
    import resource

    import torch

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    gpu = round(torch.cuda.max_memory_allocated() / 1e6) if call.device.startswith("cuda") else None
    write_text(call.folder / "used" / f"{index}.json", json.dumps({"memory_mb": round(peak), "gpu_mb": gpu}) + "\n")


def _last_saved(directory: Path) -> int:
    """Tells whether training got any further: when its checkpoint was written."""
    try:
        return (directory / "checkpoint.pt").stat().st_mtime_ns
    except OSError:
        return 0


@contextlib.contextmanager
def _signals_stop() -> Iterator[None]:
    """SIGTERM and SIGUSR1 end what is being done, once; training, which hears them first, saves and ends by itself."""
    numbers = [signal.SIGTERM, getattr(signal, f"SIG{SIGNAL}")]

    def stop(number: int, _frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise _Stop(f"Stopped by {signal.Signals(number).name} outside training, which is saved.")

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
            [sys.executable, "-m", "referee.scheduling", str(call.folder)],
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
                executor.update_parameters(
                    timeout_min=resources.minutes,
                    signal_delay_s=min(NOTICE_S, 20 * resources.minutes),
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
    from referee import scheduling  # under its own name, by which the jobs find what is in it

    scheduling.dispatch(Call.load(Path(sys.argv[1]).resolve(), find_root()))
