"""What a call of `referee run` asks for: which runs, with which settings and seeds, and the folder of each.

A run's own folder, `<out>/<paper>/<preset>/<run>`, is that of the preset's own seed, by which a claim with one seed is
judged. Another seed of the same run lies one level deeper, in `seed-<s>` of that folder:

    runs/iwae/laptop/iwae-1l-k5/record.json         the preset's own seed
    runs/iwae/laptop/iwae-1l-k5/seed-3/record.json  the same run with seed 3
"""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from common.errors import ConfigError, UserError, nearest
from common.records import seed_folder
from referee.project import Project, UsageError

if TYPE_CHECKING:
    from common.experiment import Paper

FLAGS = (
    "--preset",
    "--only",
    "--seeds",
    "--resume",
    "--fresh",
    "--device",
    "--out",
    "--jobs",
    "--on",
    "--publish",
    "--quiet",
    "--help",
)
"""What `referee run` takes beside a paper's settings, for those who mistype one."""

MOST_SEEDS = 1000  # in one call
LARGEST_SEED = 2**32 - 1  # that every generator of random numbers takes


@dataclass(frozen=True)
class Task:
    """One run of one seed.

    Attributes:
        project: the paper's name.
        preset: the label of what results: the preset's name, followed by a digest of changed settings.
        run: the run's name in the preset; the same for all its seeds.
        seed: what its random numbers begin with.
        own: whether that is the preset's own seed.
        config: the paper's `Config`, with that seed.
        directory: the run's own folder, absolute.
    """

    project: str
    preset: str
    run: str
    seed: int
    own: bool
    config: Any
    directory: Path

    @property
    def name(self) -> str:
        """'iwae-1l-k50', or 'iwae-1l-k50 seed 3' where that is not the preset's own."""
        return self.run if self.own else f"{self.run} seed {self.seed}"


def disk_is_full(error: Exception) -> bool:
    """Whether an error is that of a disk without room, or one that nothing may be written to any more."""
    number = getattr(error, "errno", None)
    return number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) or "(os error 28)" in str(
        error
    )  # as safetensors says it


@contextlib.contextmanager
def naming(task: Task) -> Iterator[None]:
    """Meanwhile what goes wrong says in which run: several may be at work. And for which paper data are fetched."""
    try:
        yield
    except UserError as error:
        said = str(error).replace("referee fetch <paper>", f"referee fetch {task.project}")
        error.args = (f"{task.project} {task.preset} {task.name}: {said}",)
        raise
    except Exception as error:
        if disk_is_full(error):
            raise UserError(
                f"{task.project} {task.preset} {task.name}: cannot write to {task.directory} ({error}). Make room; the "
                "same command continues from what is saved."
            ) from None
        error.add_note(f"This was in {task.project} {task.preset} {task.name}.")
        raise


def plan(
    project: Project,
    preset: str,
    *,
    only: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    out: Path = Path("runs"),
) -> list[Task]:
    """The runs that a call asks for, in the preset's order, the seeds of each beside one another, its own first.

    Nothing is written. The paper's code is imported, and torch with it.

    Args:
        only: these runs of the preset; all of them when not given.
        overrides: settings to change, as typed on a command line: ["--k", "3"].
        seeds: each run with each of these; the preset's own alone when not given.
        out: folder for runs; relative to the repository.

    Raises:
        UsageError: a setting that is none, or seeds that the paper has no setting for or that a setting contradicts;
            an `out` that cannot be written to.
        ConfigError: there is no such preset or run, or a setting has a value that cannot be.
    """
    from common.experiment import pick_runs

    paper = project.module()
    configs = pick_runs(paper, preset, list(only) if only else None)
    configs, label = override(paper, preset, configs, overrides, prog=f"referee run {project.name}")
    has_seed = "seed" in {field.name for field in dataclasses.fields(paper.Config)}
    if seeds is not None and not has_seed:
        raise UsageError(f"run: --seeds, but the Config of '{project.name}' has no setting 'seed'.")
    if seeds is not None and any(re.match(r"--seed(=|$)", argument) for argument in overrides):
        raise UsageError("run: --seeds and --seed contradict each other; give one of them.")
    base = folder(project, out) / label
    _require_room(folder(project, out), out)
    tasks: list[Task] = []
    for run, config in configs.items():
        own = config.seed if has_seed else 0
        wanted = [own] if seeds is None else sorted(set(seeds), key=lambda seed: (seed != own, seed))
        for seed in wanted:
            directory = base / run if seed == own else base / run / seed_folder(seed)
            changed = config if seed == own else dataclasses.replace(config, seed=seed)
            tasks.append(Task(project.name, label, run, seed, seed == own, changed, directory))
    return tasks


def _require_room(base: Path, out: Path) -> None:
    """Refuse a folder for runs that is none, or that nothing can be written to."""
    there = next(path for path in (base, *base.parents) if path.exists())
    if not there.is_dir():
        raise UsageError(f"run: --out {out}: {there} is a file; name a folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"run: --out {out}: {there} cannot be written to; name another folder.")


def folder(project: Project, out: Path) -> Path:
    """Where the runs of a paper are, for `--out`: absolute."""
    return (out if out.is_absolute() else project.root / out) / project.name


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds as they are typed: "0-4", "0,2,7", "3", or "0-4,10"; in ascending order.

    Raises:
        UsageError: it says no such thing, or one seed twice.
    """
    found: list[int] = []
    for part in text.split(","):
        part = part.strip()
        if re.match(r"-\s*\d", part):
            raise UsageError(f"--seeds {text}: a seed is 0 or more, '{part}' is negative.")
        match = re.fullmatch(r"(\d{1,12})(?:\s*-\s*(\d{1,12}))?", part)
        if match is None:
            raise UsageError(f"--seeds {text}: '{part}' is no seed and no range. Write 0-4, or 0,2,7, or 3.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UsageError(f"--seeds {text}: the range '{part}' runs backwards. Write {last}-{first}.")
        if last > LARGEST_SEED:
            raise UsageError(f"--seeds {text}: {last} is too large; a seed is at most {LARGEST_SEED}.")
        if len(found) + last - first >= MOST_SEEDS:
            raise UsageError(f"--seeds {text}: more than {MOST_SEEDS:,} seeds in one call.")
        found += range(first, last + 1)
    if twice := sorted({seed for seed in found if found.count(seed) > 1}):
        raise UsageError(f"--seeds {text}: {', '.join(map(str, twice))} stands there twice.")
    return tuple(sorted(found))


# -- Settings changed on the command line ------------------------------------------------------------------------------


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
