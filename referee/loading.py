"""Read `project.yaml`: untrusted text in, a `ProjectFile` out, or every problem of the file with its line.

Rules have permanent ids. PRJ-001 to PRJ-012 are those of `referee.documents`; here, 009 is about metrics, 010 about
claims, 011 about a claim and its metric, and one is added:

    PRJ-013  presets, runs and probes named in the file exist in the paper's module
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from common.errors import nearest
from referee.documents import Path_, Problem, Tree, parse_yaml, read_text
from referee.schema import Compute, OrderingClaim, ProjectFile, ValueClaim, find_metric


def load_project(path: Path, shown: str | None = None) -> ProjectFile:
    """Read and check a `project.yaml`.

    Args:
        path: the file.
        shown: what messages call it; the path when not given.

    Raises:
        DocumentError: with all problems found.
    """
    shown = shown or str(path)
    return parse_project(read_text(path, rules="PRJ", shown=shown), shown)


def parse_project(text: str, shown: str = "project.yaml") -> ProjectFile:
    """Check the text of a `project.yaml`; see `load_project`."""
    return parse_yaml(text, ProjectFile, rules="PRJ", shown=shown, also=_contradictions)


def check_module(
    project: ProjectFile,
    presets: Mapping[str, Iterable[str]],
    probes: Iterable[str],
    shown: str = "project.yaml",
    text: str = "",
) -> list[Problem]:
    """What the file names and the paper's module does not have (rule PRJ-013).

    Args:
        presets: preset -> names of its runs, as in the module's `PRESETS`.
        probes: the names in the module's `PROBES`.
        text: the file's, for the lines.
    """
    found: list[Problem] = []

    def missing(message: str) -> None:
        found.append(Problem(shown, 1, "PRJ-013", message))

    def check(what: str, preset: str, runs: Iterable[str]) -> None:
        if preset not in presets:
            hint = nearest(preset, presets)
            missing(f"{what}: the paper's module has no preset '{preset}'.{hint}")
            return
        known = list(presets[preset])
        for run in runs:
            if run not in known:
                hint = nearest(run, known)
                missing(f"{what}: preset '{preset}' has no run '{run}'.{hint} Runs: {', '.join(known)}.")

    if project.compute is not None:
        found += check_needs(project.compute, presets, shown, text)
    for claim in project.claims:
        if isinstance(claim, ValueClaim):
            check(f"claim '{claim.id}'", claim.preset, [claim.run])
        elif isinstance(claim, OrderingClaim):
            check(f"claim '{claim.id}'", claim.preset, claim.runs)
    for entry in project.weights:
        preset, run = entry.split("/", 1)
        check("weights", preset, [run])
    offered = list(probes)
    for name in project.probes:
        if name not in offered:
            missing(f"probes: the paper's module offers no probe '{name}'.{nearest(name, offered)}")
    return found


def check_needs(compute: Compute, presets: Iterable[str], shown: str, text: str = "") -> list[Problem]:
    """Presets that `compute` names and the paper's module does not have (rule PRJ-013)."""
    unknown = [preset for preset in compute.presets if preset not in presets]
    if not unknown:
        return []
    tree = Tree(shown, "PRJ")
    tree.value(tree.compose(text), ())
    for preset in unknown:
        has = f"{nearest(preset, presets)} Presets: {', '.join(presets)}."
        tree.problem(
            ("compute", "presets", preset), "013", f"compute: the paper's module has no preset '{preset}'.{has}"
        )
    return tree.problems


def _contradictions(data: dict[str, Any], tree: Tree) -> None:
    """What no single field shows: ids used twice, claims at odds with their metric."""
    claims = data.get("claims")
    first: dict[str, int] = {}
    for i, claim in enumerate(claims if isinstance(claims, list) else []):
        if not isinstance(claim, dict):
            continue
        path: Path_ = ("claims", i)
        identity = claim.get("id")
        where = f"claim '{identity}': "
        if isinstance(identity, str):
            if identity in first:
                message = f"the claim id '{identity}' is used twice (first on line {first[identity]})."
                tree.problem((*path, "id"), "010", message + " Give each claim its own.")
            first.setdefault(identity, tree.line((*path, "id")))
        runs = claim.get("runs")
        if isinstance(runs, list) and len({str(r) for r in runs}) < len(runs):
            tree.problem((*path, "runs"), "011", f"{where}a run stands twice in 'runs'.")
        name = claim.get("metric")
        metric = find_metric(name) if isinstance(name, str) else None
        if metric is None:
            continue
        if claim.get("unit", "nats") != metric.unit:
            message = f"{where}'{name}' is measured in {metric.unit}; write 'unit: {metric.unit}'."
            tree.problem((*path, "unit" if "unit" in claim else "metric"), "011", message)
        direction = claim.get("direction")
        if direction in ("lower", "higher") and direction != metric.direction:
            message = f"{where}a better '{name}' is {metric.direction}, not {direction}."
            tree.problem((*path, "direction"), "011", message)
