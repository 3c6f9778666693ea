"""The commands that run a paper's code: `run`, `probe` and `demo`. Here, and only here, torch is imported."""

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from common.errors import DataError, UserError, nearest
from common.records import Record, folder_seed, results
from referee.project import Project, UsageError, find_project, find_root, paper_names
from referee.runs.locks import alone_in
from referee.runs.memory import KEPT, noting_memory
from referee.runs.planning import Task, naming, parse_seeds, plan
from referee.runs.planning import folder as folder_of
from referee.runs.side_by_side import cores, side_by_side
from referee.words import number_of

PUBLISHED = ("record.json", "config.json", "metrics.jsonl", "examples.safetensors", KEPT)  # and pictures
OF_OTHER_SEEDS = ("record.json", "config.json", "metrics.jsonl")  # git stays small: the rest is for the own seed alone
PICTURES = (".png", ".svg")
MAX_PUBLISHED = 20 * 1024 * 1024  # bytes a file: the repository is no store for large weights

ASIDE = ".before"  # in a preset's folder: runs that --fresh replaces, one level too deep to be taken for runs


# -- referee run -------------------------------------------------------------------------------------------------------


def run_command(options: argparse.Namespace, rest: list[str], top: argparse.ArgumentParser) -> int:
    """`referee run`."""
    if options.help or options.paper is None:
        return _run_help(options, top)
    root = find_root()
    project = find_project(root, options.paper)
    if options.preset is None:
        presets = project.module().PRESETS
        raise UsageError(f"run: which preset? --preset {' | '.join(presets)}.")
    only = [name.strip() for name in options.only.split(",") if name.strip()] if options.only else None
    with _only_main_speaks():
        records = run(
            project,
            options.preset,
            only=only,
            overrides=rest,
            seeds=None if options.seeds is None else parse_seeds(options.seeds),
            device=options.device,
            out=Path(options.out),
            resume=options.resume,
            fresh=options.fresh,
            publish=options.publish,
            progress=not options.quiet,
            jobs=options.jobs,
        )
        from referee.show import print_scores

        print_scores(records)
        print(f"Everything is in {project.shown(folder_of(project, Path(options.out)) / records[0].preset)}")
        if options.publish:
            where = project.shown(project.results / records[0].preset)
            print(f"Published to {where}; now: referee tables {project.name}")
            if options.seeds is not None:
                print("Of other seeds than the preset's own: records, settings and curves, no pictures or weights.")
    return 0


def run(
    project: Project,
    preset: str,
    *,
    only: list[str] | None = None,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    device: str = "auto",
    out: Path = Path("runs"),
    resume: bool = False,
    fresh: bool = False,
    publish: bool = False,
    progress: bool = True,
    jobs: int | None = None,
) -> list[Record]:
    """Carry the runs of a preset to their records.

    Args:
        overrides: settings to change, as typed on a command line: ["--k", "3"].
        seeds: each run with each of these; the preset's own alone when not given.
        out: folder for runs; relative to the repository.
        resume: refuse to begin when none of the runs was ever begun.
        fresh: start over; what is there is kept aside until its successor has finished.
        publish: copy the results to the project's folder.
        jobs: runs at a time on a CPU; by default as many as there are cores.
    """
    from common.experiment import execute
    from common.training import distributed, pick_device

    paper = project.module()
    tasks = plan(project, preset, only=only, overrides=overrides, seeds=seeds, out=out)
    label, base = tasks[0].preset, folder_of(project, out) / tasks[0].preset
    if publish:
        _may_be_published(project, preset, tasks)
    weights = project.load().weights if publish else []
    place = distributed.start(pick_device(device))
    unbegun = [task.name for task in tasks if not (task.directory / "config.json").is_file()]
    if resume and len(unbegun) == len(tasks):
        raise UsageError(
            f"run: --resume, but there is nothing to continue for {', '.join(unbegun)} in {project.shown(base)}. "
            "Leave --resume away to begin."
        )
    if jobs is not None and jobs < 1:
        raise UsageError(f"run: --jobs {jobs}: at least one run at a time.")
    if place.type != "cpu" or distributed.world_size() > 1 or len(tasks) == 1:
        jobs = 1  # a GPU, or the processes of torchrun, are for one run after the other
    jobs = min(jobs or cores(), len(tasks))
    print(f"{project.name} · {label} · {_how_many(tasks)} · {place}{f', {jobs} at a time' * (jobs > 1)}", flush=True)
    if missing := sorted({task.run for task in tasks} - {task.run for task in tasks if task.own}):
        print(f"      the preset's own seed is not among them: {', '.join(missing)}", flush=True)
    if resume and unbegun:
        print(f"      never begun, so from the start: {', '.join(unbegun)}", flush=True)
    if fresh:
        for task in tasks if distributed.is_main() else ():
            with alone_in(task.directory):  # nobody else's work is put aside
                pass
        if distributed.is_main() and (aside := put_aside(base, tasks)):
            where = project.shown(base / ASIDE)
            print(f"      kept in {where} until their successors have finished: {', '.join(aside)}", flush=True)
        distributed.barrier()
    count, width = 0, max(len(task.name) for task in tasks)

    def tell(name: str, result: tuple[Record, bool]) -> None:
        nonlocal count
        count += 1
        record, reused = result
        finished = record.finished[:16].replace("T", " ")
        what = f"reused: same settings and code, of {finished} UTC" if reused else f"{record.wall_s:.0f} s"
        if record.trained and not reused:
            trained = record.trained["finished"][:16].replace("T", " ")
            what = f"evaluated again in {record.timings_s['evaluate']:.0f} s: same training code as on {trained} UTC"
        print(f"[{count}/{len(tasks)}] {name:{width}}  {what}", flush=True)
        if distributed.is_main():
            let_go(base, name)

    records: list[Record] = []
    if jobs > 1:
        published = published_seconds(project, preset)
        longest_first = sorted(tasks, key=lambda task: -published.get(task.run, 0.0))
        work = {task.name: (project.root, task, progress) for task in longest_first}
        done = side_by_side(_execute_here, work, jobs=jobs, progress=progress, finished=tell)
        records = [done[task.name][0] for task in tasks]
    else:
        for task in tasks:
            if progress:
                print(f"      {task.name}", flush=True)
            with contextlib.ExitStack() as around:
                if distributed.is_main():
                    around.enter_context(alone_in(task.directory))
                    around.enter_context(noting_memory(task.directory, place))
                around.enter_context(naming(task))
                result = execute(
                    paper, project.name, label, task.run, task.config, task.directory, place, progress=progress
                )
            tell(task.name, result)
            records.append(result[0])
    if publish and distributed.is_main():
        for task, record in zip(tasks, records, strict=True):
            target = project.results / task.directory.relative_to(base.parent)
            publish_run(task.directory, target, f"{label}/{task.run}" in weights, own=task.own)
            if record.git_sha.endswith("+"):
                print(f"      note: {task.name} was made from code that is not committed", file=sys.stderr)
    return records


def _how_many(tasks: Sequence[Task]) -> str:
    """'3 runs', or '3 runs, 5 seeds each'."""
    runs = len({task.run for task in tasks})
    seeds = len(tasks) // runs
    one = all(task.own for task in tasks)
    return number_of(runs, "run") + ("" if one else f", {number_of(seeds, 'seed')} each")


def _may_be_published(project: Project, preset: str, tasks: Sequence[Task]) -> None:
    """Refuse what is not the preset's, and seeds that would lie in the folder of a run that is not there."""
    if tasks[0].preset != preset:
        raise UsageError("run: a run with changed settings cannot be published; claims are judged by the presets.")
    own = {task.run for task in tasks if task.own}
    there = {path.parent.name for path in (project.results / preset).glob("*/record.json")}
    if missing := sorted({task.run for task in tasks} - own - there):
        raise UsageError(
            f"run: --publish: the preset's own seed of {', '.join(missing)} is neither among --seeds nor published; "
            "other seeds only stand beside it."
        )


def _execute_here(root: Path, task: Task, progress: bool) -> tuple[Record, bool]:
    """One run, in a process of its own (`side_by_side`)."""
    import torch

    from common.experiment import execute

    paper, place = find_project(root, task.project).module(), torch.device("cpu")
    with alone_in(task.directory), naming(task), noting_memory(task.directory, place):
        return execute(
            paper, task.project, task.preset, task.run, task.config, task.directory, place, progress=progress
        )


def put_aside(base: Path, tasks: Iterable[Task]) -> list[str]:
    """Move what runs have left aside, all before any of them starts over: an interruption leaves none to be reused.

    What is aside already stays there: what stands in its place is then an interrupted start over. A run's own folder
    holds those of its other seeds, which stay where they are. The record goes first, and then the checkpoint: without
    them nothing of a folder is used again.
    """
    first = ("record.json", "checkpoint.pt")
    put: list[str] = []
    for task in tasks:
        own = [path for path in _entries(task.directory) if folder_seed(path.name) is None]
        if not own:
            continue
        aside = base / ASIDE / task.name
        keep = not aside.exists()
        for path in sorted(own, key=lambda path: path.name not in first):
            if keep:
                aside.mkdir(parents=True, exist_ok=True)
                path.rename(aside / path.name)
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        with contextlib.suppress(OSError):  # it holds other seeds
            task.directory.rmdir()
        put.append(task.name)
    return put


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def let_go(base: Path, name: str) -> None:
    """Delete what was put aside of a run, now that its successor has finished."""
    shutil.rmtree(base / ASIDE / name, ignore_errors=True)
    with contextlib.suppress(OSError):  # it is not there, or holds other runs
        (base / ASIDE).rmdir()


def published_seconds(project: Project, preset: str) -> dict[str, float]:
    """How long each run of a preset took when it was published, in seconds: what takes longest had best begin first."""
    with contextlib.suppress(UserError):
        return {name: record.wall_s for name, record in results(project.results).get(preset, {}).items()}
    return {}


def _run_help(options: argparse.Namespace, top: argparse.ArgumentParser) -> int:
    """The command's help; with a paper, its presets and settings too."""
    actions = [a for a in top._actions if isinstance(a, argparse._SubParsersAction)]
    actions[0].choices["run"].print_help()
    if options.paper is None:
        if not options.help:
            raise UsageError(f"run: which paper? {', '.join(paper_names(find_root())) or 'There is none yet'}.")
        return 0
    paper = find_project(find_root(), options.paper).module()
    print(f"\npresets of {options.paper}:")
    for preset, runs in paper.PRESETS.items():
        print(f"  {preset}: {', '.join(runs)}")
    import tyro

    print(f"\nsettings of {options.paper} (defaults are Config's; a preset's runs set their own):")
    said = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(said):
        tyro.cli(paper.Config, args=["--help"], prog=f"referee run {options.paper}")
    lines = [line.strip("│|").rstrip() for line in said.getvalue().splitlines()]
    skip = re.compile(r"usage:|\W*options\W*$|\s*-h, --help|[\s╰╯─-]*$")
    print("\n".join(line for line in lines if not skip.match(line)))
    return 0


def publish_run(source: Path, target: Path, with_weights: bool, *, own: bool = True) -> None:
    """Copy a finished run into a project's results: its folder appears whole, or stays as it was.

    Other seeds that are published in the folder stay there.

    Args:
        own: the run is of the preset's own seed; of another, only what the statistics and the checks need is copied.
    """
    names = list(PUBLISHED if own else OF_OTHER_SEEDS)
    if own:
        names += ["weights.safetensors"] if with_weights else []
        names += sorted(p.name for p in source.iterdir() if p.suffix in PICTURES)
    new = target.with_name(f".{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        for name in names:
            path = source / name
            if not path.is_file():
                continue
            if path.stat().st_size > MAX_PUBLISHED:
                raise UserError(f"{path}: {path.stat().st_size / 1e6:.0f} MB is too large to be published in git.")
            shutil.copyfile(path, new / name)
        for path in _entries(target):
            if folder_seed(path.name) is not None and path.is_dir() and not path.is_symlink():
                shutil.copytree(path, new / path.name, symlinks=True)
        old = target.with_name(f".{target.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        new.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


@contextlib.contextmanager
def _only_main_speaks() -> Any:
    """Under `torchrun`, one process prints; the others are silent but for errors."""
    if os.environ.get("RANK", "0") == "0":
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


# -- referee probe -----------------------------------------------------------------------------------------------------


def probe_command(options: argparse.Namespace) -> int:
    """`referee probe`."""
    project = find_project(find_root(), options.paper)
    file = project.load()
    paper = project.module()
    from referee.loading import check_module

    offered = dict(paper.PROBES)
    if options.publish and options.only:
        raise UsageError("probe: --publish keeps what all probes came to; leave --only away.")
    names = [n.strip() for n in options.only.split(",") if n.strip()] if options.only else list(offered)
    for name in names:
        if name not in offered:
            hint = nearest(name, offered)
            raise UsageError(f"probe: {project.name} offers no probe '{name}'.{hint} Probes: {', '.join(offered)}.")
    shown = project.shown(project.folder / "project.yaml")
    problems = check_module(file, paper.PRESETS, offered, shown)
    results = [_probe(name, offered[name], sys.stderr if options.format == "table" else None) for name in names]
    if options.format == "json":
        print(
            json.dumps({"project": project.name, "probes": results, "problems": [str(p) for p in problems]}, indent=1)
        )
    else:
        _print_probes(results)
    for problem in problems:
        print(f"referee: {problem}", file=sys.stderr)
    if options.publish:
        from datetime import UTC, datetime

        from referee.probed import save_probes

        path = save_probes(project, results, datetime.now(UTC).isoformat(timespec="seconds"))
        print(f"Published: {project.shown(path)}", file=sys.stderr)
    return 1 if problems or not all(r["passed"] for r in results) else 0


def _probe(name: str, call: Any, progress: TextIO | None) -> dict[str, Any]:
    if progress is not None and progress.isatty():
        print(f"probing {name} ...", end="\r", file=progress, flush=True)
    try:
        result = call()
    except UserError as error:
        detail = str(error)
    except Exception as error:  # what a subject raises is a finding about it, not about us
        detail = f"it raised {type(error).__name__}: {error}"
    else:
        return {
            "name": name,
            "statement": result.statement,
            "passed": bool(result.passed),
            "numbers": dict(result.numbers),
            "detail": result.detail,
        }
    return {"name": name, "statement": "", "passed": False, "numbers": {}, "detail": detail}


def _print_probes(results: Sequence[Mapping[str, Any]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from referee.show import console

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("probe", "", "statement", "numbers"):
        table.add_column(column)
    for r in results:
        numbers = "\n".join(f"{k} {v if isinstance(v, str) else format(v, '.4g')}" for k, v in r["numbers"].items())
        statement = Text(r["statement"])
        for line in r["detail"].splitlines():
            statement.append(f"\n- {line}", style="red")
        verdict = Text("✓ pass", style="bold green") if r["passed"] else Text("✗ FAIL", style="bold red")
        table.add_row(Text(r["name"]), verdict, statement, Text(numbers, style="dim"))
    console().print(table)
    passed = sum(r["passed"] for r in results)
    print(f"{passed} of {len(results)} probes passed")


# -- referee demo ------------------------------------------------------------------------------------------------------


def demo_command(options: argparse.Namespace) -> int:
    """`referee demo`: run, judge, re-execute the notebook, report, build the site."""
    from referee.report import write_report
    from referee.show import print_scores, print_verdicts
    from referee.standing import standing

    project = find_project(find_root(), options.paper)
    preset = options.preset
    try:
        records = run(project, preset, device=options.device)
    except DataError as error:
        if preset == "smoke":
            raise
        print(f"\n{error}\n\nThe same movement on the bundled data instead (preset smoke):\n", file=sys.stderr)
        preset = "smoke"
        records = run(project, preset, device=options.device)
    print_scores(records)
    judged = standing(project, runs=True)
    print_verdicts(judged, runs=True)
    notebook = execute_notebook(project)
    if notebook:
        print(f"Notebook, executed anew: {project.shown(notebook)}")
    page = write_report(judged, runs=True, output=project.runs / "report.html")
    print(f"Report: {page}")
    _show_site(project)
    return 0


def _show_site(project: Project) -> None:
    """Build the public site, which shows what is published, and name the project's page; or say why it is not built."""
    try:
        from referee.site.build import build

        built = build(project.root)
    except (UserError, ModuleNotFoundError) as error:
        print(f"The site was not built: {error}", file=sys.stderr)
        return
    for warning in built.warnings:
        print(f"Site: {warning}", file=sys.stderr)
    print(f"Page on the site: {built.html / 'projects' / f'{project.name}.html'}")


def execute_notebook(project: Project) -> Path | None:
    """Execute a copy of the project's notebook on the runs of this machine; None where there is no notebook.

    The notebook reads results from the folder in the environment variable REFEREE_RESULTS.

    Raises:
        UserError: a cell failed; the message shows its error.
    """
    source = project.folder / f"{project.name}.ipynb"
    if not source.is_file():
        return None
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from traitlets.config import Config

    print(f"Executing {project.shown(source)} ...", flush=True)
    notebook = nbformat.read(source, as_version=4)  # type: ignore[no-untyped-call]
    config = Config()
    config.KernelManager.transport_encryption = "auto"  # without, the kernel warns that others could listen
    where = {"metadata": {"path": str(project.folder)}}
    client = NotebookClient(notebook, timeout=300, resources=where, config=config)
    there = {"REFEREE_RESULTS": str(project.runs), "PYTHONPATH": os.pathsep.join(_import_path(project))}
    try:
        client.execute(env={**os.environ, **there})
    except CellExecutionError as error:
        raise UserError(f"{project.shown(source)}: a cell failed with {error.ename}: {error.evalue}") from None
    target = project.runs / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)  # type: ignore[no-untyped-call]
    return target


def _import_path(project: Project) -> list[str]:
    """Where the notebook's process finds `projects` and `common`, whatever is installed."""
    inherited = os.environ.get("PYTHONPATH", "")
    return [str(project.root), *([inherited] if inherited else [])]
