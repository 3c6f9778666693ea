"""The commands that run a paper's code: `run`, `probe` and `demo`. Here, and only here, torch is imported."""

import argparse
import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO, get_args, get_origin, get_type_hints

from common.errors import ConfigError, DataError, UserError, nearest
from common.records import Record, results
from referee.project import Project, UsageError, find_project, find_root, paper_names
from referee.side_by_side import cores, side_by_side

if TYPE_CHECKING:
    from common.experiment import Paper

PUBLISHED = ("record.json", "config.json", "metrics.jsonl", "examples.safetensors")  # and pictures
PICTURES = (".png", ".svg")
MAX_PUBLISHED = 20 * 1024 * 1024  # bytes a file: the repository is no store for large weights

ASIDE = ".before"  # in a preset's folder: runs that --fresh replaces, one level too deep to be taken for runs

FLAGS = ("--preset", "--only", "--resume", "--fresh", "--device", "--out", "--jobs", "--publish", "--quiet", "--help")


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
        print(f"Everything is in {project.shown(_base(project, Path(options.out)) / records[0].preset)}")
        if options.publish:
            where = project.shown(project.results / records[0].preset)
            print(f"Published to {where}; now: referee tables {project.name}")
    return 0


def run(
    project: Project,
    preset: str,
    *,
    only: list[str] | None = None,
    overrides: Sequence[str] = (),
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
        out: folder for runs; relative to the repository.
        resume: refuse to begin when none of the runs was ever begun.
        fresh: start over; what is there is kept aside until its successor has finished.
        publish: copy the results to the project's folder.
        jobs: runs at a time on a CPU; by default as many as there are cores.
    """
    paper = project.module()
    from common.experiment import execute, pick_runs
    from common.training import distributed, pick_device

    configs = pick_runs(paper, preset, only)
    configs, label = override(paper, preset, configs, overrides, prog=f"referee run {project.name}")
    if publish and label != preset:
        raise UsageError("run: a run with changed settings cannot be published; claims are judged by the presets.")
    weights = project.load().weights if publish else []
    place = distributed.start(pick_device(device))
    base = _base(project, out) / label
    unbegun = [name for name in configs if not (base / name / "config.json").is_file()]
    if resume and len(unbegun) == len(configs):
        raise UsageError(
            f"run: --resume, but there is nothing to continue for {', '.join(unbegun)} in {project.shown(base)}. "
            "Leave --resume away to begin."
        )
    if jobs is not None and jobs < 1:
        raise UsageError(f"run: --jobs {jobs}: at least one run at a time.")
    if place.type != "cpu" or distributed.world_size() > 1 or len(configs) == 1:
        jobs = 1  # a GPU, or the processes of torchrun, are for one run after the other
    jobs = min(jobs or cores(), len(configs))
    together = f", {jobs} at a time" if jobs > 1 else ""
    print(f"{project.name} · {label} · {len(configs)} run{'s' * (len(configs) > 1)} · {place}{together}", flush=True)
    if resume and unbegun:
        print(f"      never begun, so from the start: {', '.join(unbegun)}", flush=True)
    if fresh:
        if distributed.is_main() and (aside := _put_aside(base, configs)):
            where = project.shown(base / ASIDE)
            print(f"      kept in {where} until their successors have finished: {', '.join(aside)}", flush=True)
        distributed.barrier()
    count, width = 0, max(map(len, configs))

    def tell(name: str, result: tuple[Record, bool]) -> None:
        nonlocal count
        count += 1
        record, reused = result
        finished = record.finished[:16].replace("T", " ")
        what = f"reused: same settings and code, of {finished} UTC" if reused else f"{record.wall_s:.0f} s"
        print(f"[{count}/{len(configs)}] {name:{width}}  {what}", flush=True)
        if distributed.is_main():
            _let_go(base, name)

    records: list[Record] = []
    if jobs > 1:
        published = published_seconds(project, preset)
        longest_first = sorted(configs, key=lambda name: -published.get(name, 0.0))
        tasks = {
            name: (project.root, project.name, label, name, configs[name], base / name, progress)
            for name in longest_first
        }
        done = side_by_side(_execute_here, tasks, jobs=jobs, progress=progress, finished=tell)
        records = [done[name][0] for name in configs]
    else:
        for name, config in configs.items():
            if progress:
                print(f"      {name}", flush=True)
            result = execute(paper, project.name, label, name, config, base / name, place, progress=progress)
            tell(name, result)
            records.append(result[0])
    if publish and distributed.is_main():
        for record in records:
            publish_run(base / record.run, project.results / label / record.run, f"{label}/{record.run}" in weights)
            if record.git_sha.endswith("+"):
                print(f"      note: {record.run} was made from code that is not committed", file=sys.stderr)
    return records


def _execute_here(
    root: Path, project: str, label: str, name: str, config: Any, directory: Path, progress: bool
) -> tuple[Record, bool]:
    """One run, in a process of its own (`side_by_side`)."""
    import torch

    from common.experiment import execute

    paper = find_project(root, project).module()
    return execute(paper, project, label, name, config, directory, torch.device("cpu"), progress=progress)


def _put_aside(base: Path, names: Iterable[str]) -> list[str]:
    """Move the folders of runs aside, all before any of them starts over: an interruption leaves none to be reused.

    One that is aside already stays there: what stands in its place is then an interrupted start over.
    """
    there = [name for name in names if (base / name).exists()]
    for name in there:
        aside = base / ASIDE / name
        if aside.exists():
            shutil.rmtree(base / name)
        else:
            aside.parent.mkdir(exist_ok=True)
            (base / name).rename(aside)
    return there


def _let_go(base: Path, name: str) -> None:
    """Delete what was put aside of a run, now that its successor has finished."""
    shutil.rmtree(base / ASIDE / name, ignore_errors=True)
    with contextlib.suppress(OSError):  # it is not there, or holds other runs
        (base / ASIDE).rmdir()


def published_seconds(project: Project, preset: str) -> dict[str, float]:
    """How long each run of a preset took when it was published, in seconds: what takes longest had best begin first."""
    with contextlib.suppress(UserError):
        return {name: record.wall_s for name, record in results(project.results).get(preset, {}).items()}
    return {}


def override(
    paper: "Paper", preset: str, configs: Mapping[str, Any], arguments: Sequence[str], prog: str
) -> tuple[dict[str, Any], str]:
    """Settings changed by command-line arguments, and the label of what results.

    The label is the preset's name, followed by '+' and eight hexadecimal digits of the changes if there are any.

    Raises:
        UsageError: an argument is no setting; the message names the nearest.
        ConfigError: a setting is out of range, or has a value of the wrong type.
    """
    if not arguments:
        return dict(configs), preset
    fields = [f.name for f in dataclasses.fields(paper.Config)]
    if not arguments[0].startswith("--"):
        raise UsageError(f"run: unexpected argument '{arguments[0]}'. Settings are changed with --<setting> <value>.")
    given: set[str] = set()
    for argument in arguments:
        if not argument.startswith("--"):
            continue
        name = argument[2:].partition("=")[0].replace("-", "_")
        name = name if name in fields or not name.startswith("no_") else name[3:]
        if name not in fields:
            hint = nearest(argument.partition("=")[0], [*FLAGS, *(f"--{f}" for f in fields)])
            raise UsageError(
                f"run: '{preset}' has no setting '{argument.partition('=')[0]}'.{hint} Settings: {', '.join(fields)}."
            )
        given.add(name)
    changed = {name: _typed(paper.Config, config, arguments, prog) for name, config in configs.items()}
    for config in changed.values():
        for field in given:
            if isinstance(value := getattr(config, field), float) and not math.isfinite(value):
                raise ConfigError(f"--{field} {value}: a finite number is needed.")
    if changed == dict(configs):
        return changed, preset
    some = next(iter(changed.values()))
    changes = {field: getattr(some, field) for field in sorted(given)}
    digest = hashlib.sha256(json.dumps(changes, sort_keys=True, default=str).encode()).hexdigest()
    return changed, f"{preset}+{digest[:8]}"


def _typed(config_type: type, default: Any, arguments: Sequence[str], prog: str) -> Any:
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return tyro.cli(config_type, args=list(arguments), default=default, prog=prog)
    except SystemExit:
        complaints = _complaints(config_type, arguments) or ["\n  ".join(_unboxed(said.getvalue()))]
        raise ConfigError("\n".join(f"run: {complaint}" for complaint in complaints)) from None


def _complaints(config_type: type, arguments: Sequence[str]) -> list[str]:
    """What is wrong with the values typed for settings, one message a setting; [] where this cannot tell."""
    typed: dict[str, list[str]] = {}
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            values = typed.setdefault(name.replace("-", "_"), [])
            values += [value] if equals else []
        else:
            values.append(argument)
    hints = get_type_hints(config_type)
    found = (_complaint(name, hints[name], values) for name, values in typed.items() if name in hints)
    return [complaint for complaint in found if complaint]


def _complaint(name: str, wanted: Any, values: Sequence[str]) -> str:
    """What is wrong with the values of one setting, given the type it is declared with; '' if nothing is."""
    start = " ".join([f"--{name}", *values])
    if get_origin(wanted) is Literal:
        choices = [str(choice) for choice in get_args(wanted)]
        if len(values) == 1 and values[0] in choices:
            return ""
        return f"{start}: no such choice.{nearest(' '.join(values), choices)} Choices: {', '.join(choices)}."
    if wanted is bool:
        return f"{start}: takes no value; --{name} says yes, --no-{name} says no." if values else ""
    several = get_origin(wanted) is tuple
    kind = get_args(wanted)[0] if several else wanted
    if kind not in (int, float) or (several and get_args(wanted)[1:] != (...,)):
        return ""
    number = "whole number" if kind is int else "number"
    if not several and len(values) != 1:
        return f"{start}: one {number} is wanted, {len(values) or 'none'} given."
    wrong = next((value for value in values if not _reads_as(kind, value)), None)
    if wrong is None:
        return ""
    return f"{start}: {number}s are wanted, '{wrong}' is none." if several else f"{start}: a {number} is wanted."


def _reads_as(kind: type[int] | type[float], text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _unboxed(text: str) -> list[str]:
    """The lines of a message of tyro's, without its title and the box around it (of letters, or ASCII)."""
    lines = [line.strip("│| ") for line in text.strip().splitlines()[1:]]
    return [line for line in lines if line.strip("─-+╰╯ ") and not line.startswith("For full helptext")]


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


def publish_run(source: Path, target: Path, with_weights: bool) -> None:
    """Copy a finished run into a project's results: its folder appears whole, or stays as it was."""
    names = [*PUBLISHED, *(["weights.safetensors"] if with_weights else [])]
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
        old = target.with_name(f".{target.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        new.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _base(project: Project, out: Path) -> Path:
    return (out if out.is_absolute() else project.root / out) / project.name


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
