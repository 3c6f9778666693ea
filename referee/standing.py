"""A project as it stands: what it claims, what has been measured, and how the two compare."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.errors import RecordError
from common.records import Record, code_digest, read_examples
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
    """All usable records below a folder (preset -> run -> evidence), and what is wrong with the others."""
    found: dict[str, dict[str, Evidence]] = {}
    problems: list[str] = []
    for path in sorted(base.glob("*/*/record.json")):
        folder, shown = path.parent, project.shown(path)
        preset, run = path.parts[-3], path.parts[-2]
        if preset.startswith(".") or run.startswith("."):
            continue  # put aside
        try:
            record = Record.load(folder)
            says = (record.project, record.preset, record.run)
            if says != (project.name, preset, run):
                raise RecordError(
                    f"{shown}: says it is the record of {'/'.join(says)}; it lies in the wrong folder or "
                    "was copied. Put it where it belongs, or run this one again with --fresh."
                )
            big = folder / "examples.safetensors"
            examples = read_examples(folder) if not big.exists() or big.stat().st_size <= MAX_FILE else {}
        except RecordError as error:
            problems.append(str(error).replace(f"{project.root}/", ""))
            continue
        found.setdefault(preset, {})[run] = Evidence(record, shown, examples)
    return found, problems
