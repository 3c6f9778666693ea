"""A project as it stands: what it claims, what has been measured, and how the two compare."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.digest import code_digest
from common.errors import RecordError
from common.records import Record, folder_seed, read_examples
from referee.project import Project
from referee.schema import ProjectFile
from referee.verdicts import Evidence, Verdict, judge

MAX_FILE = 4 * 1024 * 1024  # bytes of a file of examples that is read to compare two runs


@dataclass(frozen=True)
class Standing:
    """A project as it stands: what it claims, what was measured, and how the two compare."""

    project: Project
    file: ProjectFile
    evidence: Mapping[str, Mapping[str, Evidence]]  # preset -> run -> evidence
    verdicts: list[Verdict]
    problems: list[str]  # records that cannot be used, one message each
    digest: str | None  # of the paper's code as it is now

    @property
    def fell_short(self) -> bool:
        """Whether something has to be put right before the verdicts can be relied on."""
        return bool(self.problems) or any(v.stale for v in self.verdicts)


def standing(project: Project, *, runs: bool = False, folder: Path | None = None) -> Standing:
    """Read a project and judge its claims; imports nothing of the project.

    Args:
        runs: judge what ran on this machine (`runs/<paper>`) instead of the published results.
        folder: judge the records in this folder instead of either.
    """
    file = project.load()
    base = folder or (project.runs if runs else project.results)
    evidence, problems = read_evidence(project, base)
    digest: str | None = None
    if project.paper_file.is_file():
        try:
            digest = code_digest(project.paper_file)
        except SyntaxError as error:
            where = f"{project.shown(project.paper_file)} or what it imports"
            problems.append(f"{where} is not Python (line {error.lineno}: {error.msg}); nothing can be said of stale.")
    figures = {
        claim.figure: figure_file(project, base, claim.figure) for claim in file.claims if claim.kind == "figure"
    }
    shown = {figure: project.shown(path) for figure, path in figures.items() if path is not None}
    verdicts = judge(project.name, file.claims, evidence, digest=digest, figures=shown)
    return Standing(project, file, evidence, verdicts, problems, digest)


def figure_file(project: Project, base: Path, figure: str) -> Path | None:
    """The file a figure claim shows, None if there is none; `results/` stands for the folder that is judged."""
    path = base / figure.removeprefix("results/") if figure.startswith("results/") else project.folder / figure
    limit = base.resolve() if figure.startswith("results/") else project.folder.resolve()
    return path if path.is_file() and path.resolve().is_relative_to(limit) else None


def read_evidence(project: Project, base: Path) -> tuple[dict[str, dict[str, Evidence]], list[str]]:
    """All usable records below a folder (preset -> run -> evidence), and what is wrong with the others.

    Records of other seeds are with the evidence of the preset's own, and left aside where there is none of that.
    """
    found: dict[str, dict[str, Evidence]] = {}
    problems: list[str] = []
    for path in sorted(base.glob("*/*/record.json")):
        folder, shown = path.parent, project.shown(path)
        preset, run = path.parts[-3], path.parts[-2]
        if preset.startswith(".") or run.startswith("."):
            continue  # put aside
        try:
            record = _record(project, folder, preset, run)
            big = folder / "examples.safetensors"
            examples = read_examples(folder) if not big.exists() or big.stat().st_size <= MAX_FILE else {}
        except RecordError as error:
            problems.append(str(error).replace(f"{project.root}/", ""))
            continue
        others: list[Evidence] = []
        for beside in folder.glob("seed-*/record.json"):
            if folder_seed(beside.parent.name) is None:
                continue
            try:
                other = _record(project, beside.parent, preset, run)
                if why := not_a_replicate(record, other, beside.parent.name):
                    raise RecordError(f"{project.shown(beside)}: {why}")
            except RecordError as error:
                problems.append(str(error).replace(f"{project.root}/", ""))
                continue
            others.append(Evidence(other, project.shown(beside)))
        others.sort(key=lambda other: other.record.seed)
        found.setdefault(preset, {})[run] = Evidence(record, shown, examples, tuple(others))
    return found, problems


def _record(project: Project, folder: Path, preset: str, run: str) -> Record:
    """The record in a folder, which is of this run.

    Raises:
        RecordError: there is none, or it is another's.
    """
    record = Record.load(folder)
    says = (record.project, record.preset, record.run)
    if says != (project.name, preset, run):
        raise RecordError(
            f"{project.shown(folder / 'record.json')}: says it is the record of {'/'.join(says)}; it lies in the wrong "
            "folder or was copied. Put it where it belongs, or run this one again with --fresh."
        )
    return record


def not_a_replicate(own: Record, other: Record, folder: str) -> str:
    """Why a record cannot count as the same run with another seed, and what to do; '' where it can.

    Args:
        own: of the preset's own seed.
        other: in the folder of another seed, beside it.
        folder: that folder's name.
    """
    seed = folder_seed(folder)
    again = f"Run it again: referee run {own.project} --preset {own.preset} --only {own.run} --seeds {seed} --fresh."
    if other.seed != seed or other.config.get("seed") != seed:
        return f"its seed is {json.dumps(other.config.get('seed'))[:40]}, the folder says {seed}. {again}"
    if other.seed == own.seed:
        return f"its seed is that of the preset, whose record is in the folder above. Delete {folder}."
    differ = sorted(
        name
        for name in {*own.config, *other.config} - {"seed"}
        if (name in own.config, own.config.get(name)) != (name in other.config, other.config.get(name))
    )
    if differ:
        name = differ[0]
        ours, its = json.dumps(own.config.get(name))[:60], json.dumps(other.config.get(name))[:60]
        return f"it ran with {name[:60]} = {its}, the run beside it, of the preset's own seed, with {ours}. {again}"
    return ""
