"""`referee fetch`: bring to this machine, and verify, all that a paper's presets will ask for.

For machines without a network, such as a cluster's nodes: once on a login node, then every run finds what it needs in a
cache that the nodes see and may only read. What is needed is taken from what says so already, never listed by hand:

- data sets: settings of the presets' runs whose value is a data set's name, the claims, the published records;
- feature networks: those named in the published records' scores, and for a paper that sees by networks the one that
  each of its data sets has;
- weights of other projects: settings `weights` and `weights_sha256` (`common.weights`).

What a paper's code asks for by a name that stands in none of them is not known here, nor are LPIPS's networks.
"""

import argparse
import dataclasses
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.errors import UserError
from common.records import Record, results
from referee.project import Project, UsageError, find_project, find_root, paper_names

Kind = Literal["data", "network", "weights"]

NAMED_NETWORK = re.compile(r"(?<![\w-])([a-z][a-z0-9_-]*@[0-9a-f]{8})(?![0-9a-f])")
MARKS = {"there": "✓", "fetched": "↓", "missing": "✗"}


@dataclass(frozen=True, order=True)
class Need:
    """One thing that runs will ask for. sha256: of weights only; they are known by it."""

    kind: Kind
    name: str
    sha256: str = ""


@dataclass(frozen=True)
class Found:
    """What became of a need. detail: where it is and how large; or why it is missing, and what to do."""

    state: Literal["there", "fetched", "missing"]
    detail: str


# -- What is needed ----------------------------------------------------------------------------------------------------


def needs(project: Project, preset: str | None = None) -> list[Need]:
    """What the runs of a preset ask for; of all presets when none is named.

    Raises:
        ConfigError: there is no such preset.
        UserError: the project's files cannot be read.
    """
    from common.evaluation.networks import DEFAULTS
    from common.experiment import pick_runs

    paper = project.module()
    presets = list(paper.PRESETS) if preset is None else [preset]
    configs = [config for name in presets for config in pick_runs(paper, name).values()]
    published = [r for name, runs in results(project.results).items() if name in presets for r in runs.values()]
    claimed = [claim.dataset for claim in project.load().claims if claim.preset in presets]

    data = _data_sets([*_strings(configs), *claimed, *(name for record in published for name in record.data_sha256)])
    networks = _networks_of(published)
    if _sees_by_networks(paper):
        seen = {name.partition("@")[0] for name in networks}
        networks |= {DEFAULTS[name] for name in data if name in DEFAULTS and DEFAULTS[name] not in seen}
    found = {Need("data", name) for name in data} | {Need("network", name) for name in networks}
    for config in configs:
        address = getattr(config, "weights", None)
        if isinstance(address, str) and "/" in address:
            found.add(Need("weights", address, str(getattr(config, "weights_sha256", ""))))
    return sorted(found)


def _strings(configs: Iterable[Any]) -> list[str]:
    """Every setting that is a word."""
    settings = [getattr(config, field.name) for config in configs for field in dataclasses.fields(config)]
    return [value for value in settings if isinstance(value, str)]


def _data_sets(names: Iterable[str]) -> set[str]:
    from common.data import names as known

    return set(names) & set(known())


def _networks_of(records: Iterable[Record]) -> set[str]:
    """'lenet-mnist@a24bccc1': networks that scores were measured by."""
    said = (f"{score.name} {score.protocol}" for record in records for score in record.scores)
    return {name for text in said for name in NAMED_NETWORK.findall(text)}


def _sees_by_networks(paper: Any) -> bool:
    """Whether a paper's file has imported anything that makes a feature network."""
    from common.evaluation import efficientnet, features, networks

    makers = (features.lenet, features.inception, efficientnet.efficientnet_lite0, networks.network, networks.for_data)
    return any(value is maker for value in vars(paper).values() for maker in makers)


# -- Getting it --------------------------------------------------------------------------------------------------------


def get(need: Need, root: Path) -> Found:
    """Find it on this machine or fetch it, and verify its content; a mistake is part of the answer, not raised."""
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        try:
            if need.kind == "data":
                found = _data(need.name)
            elif need.kind == "network":
                found = _network(need.name)
            else:
                found = _weights(need, root)
        except UserError as error:
            return Found("missing", str(error))
    notes = [str(warning.message) for warning in noted if warning.category is UserWarning]
    return Found(found.state, "\n".join([found.detail, *notes]))


def _data(name: str) -> Found:
    from common.data import registry
    from common.downloads import cache_root

    data, entry = registry.load(name), registry.REGISTRY[name]
    if entry.bundled is not None:
        return Found("there", f"comes with {data.source}")
    fetched = data.source in map(str, entry.sources)
    cached = fetched or data.source.startswith("the cache")
    folder = cache_root() / entry.folders[0] if cached else Path(data.source)
    where = f"{folder}, {_megabytes(registry.size(name, folder))}"
    return Found("fetched", f"from {data.source} to {where}") if fetched else Found("there", where)


def _network(name: str) -> Found:
    from common.evaluation.networks import network

    network(name)  # verifies the weights' digest; Inception's are fetched by its package where they are not there
    return Found("there", "its package keeps the weights" if name == "inception" else "comes with what is installed")


def _weights(need: Need, root: Path) -> Found:
    from common import weights

    path = weights.find(need.name, need.sha256, root=root)
    return Found("there", f"{path.relative_to(root).as_posix()}, {_megabytes(path.stat().st_size)}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 50_000 else f"{size / 1e3:.1f} kB"


def absent(configs: Iterable[Any]) -> list[str]:
    """Data sets that runs with these settings will ask for and that are not on this machine; only looks, reads none."""
    from common.data import registry
    from common.data.sources import local_folders
    from common.downloads import cache_root

    found = []
    for name in sorted(_data_sets(_strings(configs))):
        entry = registry.REGISTRY[name]
        folders = [*local_folders(entry.folders, None), *entry.installed, cache_root() / entry.folders[0]]
        if entry.bundled is None and not any(registry.size(name, folder) for folder in folders):
            found.append(name)
    return found


# -- referee fetch -----------------------------------------------------------------------------------------------------


def fetch_command(options: argparse.Namespace) -> int:
    """`referee fetch`."""
    root = find_root()
    known = paper_names(root)
    if options.all == bool(options.papers):
        raise UsageError(f"fetch: which papers? Some of {', '.join(known) or '(there is none)'}; or --all.")
    projects = [find_project(root, name) for name in (known if options.all else dict.fromkeys(options.papers))]
    if options.all:
        projects = [project for project in projects if _has(project, options.preset)]
        if not projects:
            raise UsageError(f"fetch: no paper has {f'the preset {options.preset}' if options.preset else 'code yet'}.")
    wanted = {project.name: needs(project, options.preset) for project in projects}
    every = sorted({need for some in wanted.values() for need in some})
    missing = 0
    width = max((len(need.name) for need in every), default=0)
    for need in every:
        found = get(need, root)
        missing += found.state == "missing"
        of = "" if len(wanted) == 1 else f"  ({', '.join(name for name, some in wanted.items() if need in some)})"
        print(f"{MARKS[found.state]} {need.kind:7}  {need.name:{width}}  {found.state}{of}", flush=True)
        for line in found.detail.split("\n"):
            print(f"    {line}", flush=True)
    print(_last_words(len(every), missing, list(wanted), options.preset))
    return 1 if missing else 0


def _has(project: Project, preset: str | None) -> bool:
    """Whether a project has code, and that preset; among all projects the others are passed over."""
    return project.paper_file.is_file() and (preset is None or preset in project.module().PRESETS)


def _last_words(count: int, missing: int, papers: Sequence[str], preset: str | None) -> str:
    of = f"{', '.join(papers)}, {f'preset {preset}' if preset else 'all presets'}"
    if missing:
        return f"{missing} of {count} missing: {of}."
    return f"All {count} here and verified: {of}. Machines that see the same folders need no network."
