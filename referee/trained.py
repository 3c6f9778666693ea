"""A paper's model by its weights, for `referee evaluate`: which configuration is theirs, and what is drawn from it.

What draws is `generate(config, model, n, *, levels, generator) -> uint8 (n, C, H, W)` of the paper's module or package,
or, where that is not there, the model's own `sample(n, generator=...)`, if it returns values in [0, 1] or codes. There
may also be `sampling(config) -> str`, for protocols: what, beside the weights, decides how samples come out.

What lies beside the weights is believed as far as it can be checked. config.json says how the model is built, and the
weights have to fit. A record is theirs if it has the same configuration. The training's log is theirs if the folder is
as a run left it, or as it was committed: weights that were put into it later did not take this course.
"""

import argparse
import dataclasses
import hashlib
import inspect
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from common.errors import CheckpointError, ConfigError, DataError
from common.records import Record, Score
from referee.project import Project, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Weights = Literal["raw", "ema"]

LOG = "metrics.jsonl"


@dataclass(frozen=True)
class Model:
    """A paper's model with its weights, and the configuration that they belong to."""

    project: Project
    paper: Any  # common.experiment.Paper
    config: Any
    plain: dict[str, Any]  # the configuration, as a record has it
    run: str  # "laptop/eps-simple", or what the folder is called
    module: "nn.Module"
    path: Path
    sha256: str
    kept: Weights  # what the weights are


def load_model(options: argparse.Namespace, project: Project, device: "torch.device") -> Model:
    """The model, its configuration from the preset that is named or from what lies beside the weights.

    Raises:
        CheckpointError: the weights are no safetensors file, of another model, or hold what is not finite.
        ConfigError: there is no such preset or run, or what lies beside the weights is no configuration.
        UsageError: nothing says which configuration is theirs; or they are called averaged, and the record says raw.
    """
    from common.experiment import load_weights, pick_runs
    from common.training import place

    path = Path(options.weights)
    paper = project.module()
    if options.preset:
        config = pick_runs(paper, options.preset, [options.run])[options.run]
        run = f"{options.preset}/{options.run}"
    else:
        config = _config_beside(path, paper, project)
        run = "/".join(path.resolve().parts[-3:-1])
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    beside = _record_beside(path, plain)
    said = {score.weights for score in beside.scores} if beside else set()
    if options.ema and said == {"raw"}:
        raise UsageError(
            f"evaluate: --ema, but the record beside {path.name} has scores of raw weights alone: leave --ema away."
        )
    module = paper.build(config)
    _fits(_tensors(path), module, path, run, paper)
    place(load_weights(module, path), device)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    kept: Weights = "ema" if options.ema or said == {"ema"} else "raw"
    return Model(project, paper, config, plain, run, module, path, sha256, kept)


def _config_beside(path: Path, paper: Any, project: Project) -> Any:
    """The configuration in the config.json that `referee run` leaves beside weights."""
    beside = path.parent / "config.json"
    if not beside.is_file():
        raise UsageError(
            f"evaluate: which configuration do {path.name} belong to? There is no config.json beside them; name it: "
            f"{_named(paper)}."
        )
    try:
        plain = json.loads(beside.read_text(encoding="utf-8"))
        config = paper.Config(**{name: _frozen(value) for name, value in plain.items()})
    except (ValueError, TypeError, AttributeError) as error:
        said = str(error).splitlines()[0][:200].replace("Config.__init__() ", "")
        raise ConfigError(
            f"{beside}: is no configuration of {project.name} as it is now ({said}). If {path.name} were made by "
            f"another paper or by older code, say which configuration of {project.name} they are for: {_named(paper)}."
        ) from None
    return config


def _named(paper: Any) -> str:
    return f"--preset {' | '.join(paper.PRESETS)} --run NAME"


def _frozen(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _record_beside(path: Path, plain: Mapping[str, Any]) -> Record | None:
    """The record in the weights' folder, if it is of their configuration."""
    if not (path.parent / "record.json").is_file():
        return None
    record = Record.load(path.parent)
    return record if record.config == plain else None


def _tensors(path: Path) -> "dict[str, Tensor]":
    from common.evaluation.tensor_file import read_safetensors

    return read_safetensors(path)[0]


def _fits(tensors: "Mapping[str, Tensor]", module: "nn.Module", path: Path, run: str, paper: Any) -> None:
    """Refuse weights of another model, and those that hold NaN or infinity: they make black images without a word."""
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in tensors]
    strange = [name for name in tensors if name not in wanted]
    shapes = [
        f"{name} {tuple(tensors[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    parts = (("missing", missing), ("not the model's", strange), ("of another shape", shapes))
    if differs := [f"{len(names)} {what} ({_some(names)})" for what, names in parts if names]:
        raise CheckpointError(
            f"{path}: weights of another model than {run}'s, of {len(wanted)} tensors: {'; '.join(differs)}. "
            f"Name the configuration that they are of: {_named(paper)}."
        )
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not (finite := tensor.isfinite()).all():
            bad = int((~finite).sum())
            raise CheckpointError(
                f"{path}: the tensor '{name}' holds NaN or infinity in {bad:,} of {tensor.numel():,} places: what is "
                "drawn from it means nothing. Look at how it was trained."
            )


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


# -- What the paper measures -------------------------------------------------------------------------------------------


def own_scores(model: Model, device: "torch.device", progress: bool) -> tuple[list[Score], dict[str, str], list[str]]:
    """What the paper's own `evaluate` measures, the digests of the data that it used, and what to note about it."""
    import torch

    from common.experiment import Run

    notes: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        log = model.path.parent / LOG
        if log.is_file():  # some scores are of the training's course
            if belongs(log, model):
                shutil.copy(log, scratch)
            else:
                notes.append(
                    f"the {LOG} beside the weights was not used, since nothing shows that they took that course: "
                    "scores of it are left out"
                )
        run = Run(Path(scratch), device, config=model.plain, seed=model.config.seed, progress=progress)
        torch.manual_seed(model.config.seed)
        return model.paper.evaluate(model.config, model.module, run), dict(run.data), notes


def belongs(log: Path, model: Model) -> bool:
    """Whether a training log is that of the weights beside it.

    It is where the folder has the record of this configuration, and is as it was committed, or lies among the runs of
    this machine and has not changed since the record, which a run writes last.
    """
    folder, record = log.resolve().parent, log.resolve().with_name("record.json")
    weights = folder / "weights.safetensors"
    if model.path.resolve() != weights or _record_beside(weights, model.plain) is None:
        return False
    if folder.is_relative_to(model.project.results.resolve()):
        return _committed(folder, [weights, log, record])
    if not folder.is_relative_to(model.project.runs.resolve()):
        return False
    return max(weights.stat().st_mtime_ns, log.stat().st_mtime_ns) <= record.stat().st_mtime_ns


def _committed(folder: Path, files: list[Path]) -> bool:
    """Whether all of these files are as they were committed last."""
    names = [file.name for file in files]
    for command in (["ls-files", "--error-unmatch"], ["diff", "--quiet", "HEAD"]):
        try:
            done = subprocess.run(["git", "-C", str(folder), *command, "--", *names], capture_output=True)
        except FileNotFoundError:  # no git on this machine
            return False
        if done.returncode:
            return False
    return True


# -- Draws -------------------------------------------------------------------------------------------------------------


def offered(model: Model, name: str) -> Callable[..., Any] | None:
    """A function that the paper's module, or its package, offers beside what it has to; None where there is none."""
    package = sys.modules.get(getattr(model.paper, "__package__", "") or "")
    found = (getattr(place, name, None) for place in (model.paper, package))
    return next((each for each in found if callable(each)), None)


def sampling(model: Model) -> str:
    """What decides how samples come out of this configuration, in the paper's words; "" where it says nothing."""
    say = offered(model, "sampling")
    return str(say(model.config)) if say else ""


def draws_of(model: Model, levels: int) -> "Callable[[int, torch.Generator], Tensor]":
    """What draws from a model: its project's `generate`, or its own `sample`.

    Raises:
        DataError: there is neither.
    """
    if generate := offered(model, "generate"):
        return lambda n, generator: generate(model.config, model.module, n, levels=levels, generator=generator)
    sample: Any = getattr(model.module, "sample", None)
    try:
        inspect.signature(sample).bind(1, generator=None)
    except (TypeError, ValueError):
        raise DataError(
            f"{model.project.name} does not say how samples are drawn: its module has no generate(config, model, n, *, "
            "levels, generator), its model no sample(n, generator=...). Measure what the paper measures: --metrics own."
        ) from None
    return lambda n, generator: sample(n, generator=generator)
