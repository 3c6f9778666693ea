"""One run of a paper, from a configuration to a record.

A paper's file `projects/<paper>/<paper>.py` is a plain module. What it offers to be run is written down in `Paper`
below; nothing has to be inherited or registered. `execute` carries one run through its stages, each of which is
skipped when it is already done: train (resumed where it was interrupted), evaluate, illustrate, record. When code has
changed since a run was finished, but none that its training reaches, its weights are kept and evaluated again. What of
this decides numbers is in `prepare` and `measure`, which count for the digest of a paper's code (`common.digest`); the
rest keeps the books.
"""

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from common import records
from common.data import Data
from common.digest import code_digest, training_digest
from common.errors import CheckpointError, ConfigError, RecordError, nearest
from common.probes import ProbeResult
from common.records import Record, Score
from common.training import distributed, place

TRAINED = "trained.json"  # the record that came with a run's weights, while they are evaluated again
WEIGHTS = "weights.safetensors"


@dataclass
class Run:
    """Where one run keeps its files, and what it has to tell its record."""

    directory: Path
    device: torch.device
    config: dict[str, Any]  # what a checkpoint must agree with: the configuration and the training code's digest
    seed: int
    progress: bool = True  # show progress bars
    steps: int = 0  # updates done; set by `fit`
    data: dict[str, str] = field(default_factory=dict)  # data set -> sha256 of its content
    examples: dict[str, Tensor] = field(default_factory=dict)  # score name -> per-example values (n,)
    timings_s: dict[str, float] = field(default_factory=dict)  # stage -> seconds, over all sessions

    def uses(self, data: Data) -> Data:
        """Note the data set in the record, and hand it through."""
        self.data[data.name] = data.sha256
        return data


class Paper(Protocol):
    """What `projects/<paper>/<paper>.py` offers; a module satisfies it by having these names.

    It, or its package's `__init__.py`, may also say how samples are drawn, for `referee evaluate`:

        generate(config, model, n, *, levels, generator) -> uint8 (n, C, H, W), codes like the data's
        sampling(config) -> str, a few words on what else decides them, for the protocol: "50 of 1,000 steps"
    """

    __file__: str
    Config: type  # frozen dataclass of plain values; has a field `seed`
    PRESETS: Mapping[str, Mapping[str, Any]]  # preset -> run -> Config
    PROBES: Mapping[str, Callable[[], ProbeResult]]  # probe -> the probe on a tiny instance

    def build(self, config: Any) -> nn.Module:
        """The untrained model."""

    def train(self, config: Any, run: Run) -> nn.Module:
        """Train to the end, from wherever an earlier session stopped."""

    def evaluate(self, config: Any, model: nn.Module, run: Run) -> list[Score]:
        """Measure the trained model. Every process of `torchrun` is asked; the first one's scores are kept.

        They may divide the work (`common.evaluation.shards`); only the first one may write.
        """

    def illustrate(self, config: Any, model: nn.Module, run: Run) -> None:
        """Write `samples.png` into the run's folder. Only the first process is asked."""


def pick_runs(paper: Paper, preset: str, only: list[str] | None = None) -> dict[str, Any]:
    """The runs of a preset, run name -> configuration; all of them, or those in `only`.

    Raises:
        ConfigError: there is no such preset or run; the message names the nearest.
    """
    if preset not in paper.PRESETS:
        hint = nearest(preset, paper.PRESETS)
        raise ConfigError(f"unknown preset '{preset}'.{hint} Presets: {', '.join(paper.PRESETS)}.")
    runs = dict(paper.PRESETS[preset])
    for name in only or []:
        if name not in runs:
            hint = nearest(name, runs)
            raise ConfigError(f"preset '{preset}' has no run '{name}'.{hint} Runs: {', '.join(runs)}.")
    return {name: config for name, config in runs.items() if not only or name in only}


def execute(
    paper: Paper,
    project: str,
    preset: str,
    name: str,
    config: Any,
    directory: Path,
    device: torch.device,
    *,
    progress: bool = True,
) -> tuple[Record, bool]:
    """Carry one run to its record; what an earlier call has done is used and not done again.

    Args:
        directory: the run's own folder, `runs/<paper>/<preset>/<run>`.

    Returns:
        The record, and whether it was there already.

    Raises:
        CheckpointError: the folder holds an unfinished run of another configuration or of other training code.
        ProcessError: under `torchrun`, another process has ended.
        UserError: whatever stopped the run; its folder then holds all it takes to continue.
    """
    code, training = code_digest(Path(paper.__file__)), training_digest(Path(paper.__file__))
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    main = distributed.is_main()
    if finished := _finished(directory, plain, code):
        return finished, True
    same = {**plain, "code_digest": training}
    run = Run(directory, device, config=same, seed=config.seed, progress=progress and main)
    with distributed.together(directory):
        earlier = distributed.gather(_settle(directory, plain, training) if main else None)[0]
        prepare(config)
        model = _again(paper, config, run, earlier) if earlier else paper.train(config, run)
        distributed.broadcast([model])  # averages that a layer keeps of its batches are each process's own
        start = time.perf_counter()
        scores = measure(paper.evaluate, config, model, run)
        run.timings_s["evaluate"] = time.perf_counter() - start
        if main:  # the other processes have nothing left to add
            with distributed.alone():
                paper.illustrate(config, model, run)
            _save_weights(model, directory / WEIGHTS)
            examples = {k: v.double().cpu().numpy() for k, v in run.examples.items()}
            records.write_examples(directory, examples)
            record = Record(
                project=project,
                preset=preset,
                run=name,
                config=plain,
                scores=scores,
                seed=config.seed,
                steps=run.steps,
                code_digest=code,
                git_sha=records.git_sha(Path(paper.__file__).parent),
                data_sha256=dict(run.data),
                environment=records.environment(),
                hardware=records.hardware() | _torch_hardware(device),
                wall_s=round(sum(run.timings_s.values()), 1),
                finished=datetime.now(UTC).isoformat(timespec="seconds"),
                parameters=sum(p.numel() for p in model.parameters()),
                timings_s={stage: round(seconds, 1) for stage, seconds in run.timings_s.items()},
                training_digest=training,
                weights_sha256=_sha256(directory / WEIGHTS),
                trained=_origin(earlier) if earlier else {},
            )
            record.save(directory)  # last: a folder with a record is a finished run
            for name in ("checkpoint.pt", TRAINED):
                (directory / name).unlink(missing_ok=True)
        distributed.barrier()
    return Record.load(directory), False


def prepare(config: Any) -> None:
    """Set what the numbers of a run depend on, before it computes any: how denormals count, and the seed."""
    # Denormal numbers (in float32, below 1e-38) count as zero: a processor is some ten times slower at them, and they
    # do come up (the normalised weights of poor samples in an importance-weighted gradient). Here, before the first
    # parallel operation of the run's process: a thread takes the setting over when it begins, and never again.
    torch.set_flush_denormal(True)
    torch.manual_seed(config.seed)


def measure(evaluate: Callable[..., list[Score]], config: Any, model: nn.Module, run: Run) -> list[Score]:
    """The scores that a paper's `evaluate` gives a trained model, which is put into evaluation mode."""
    model.eval()
    return evaluate(config, model, run)


def load_weights(model: nn.Module, path: Path) -> nn.Module:
    """Fill a model with published weights; safetensors only, nothing is unpickled.

    Raises:
        CheckpointError: the file is missing, is not safetensors, or belongs to another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        model.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there are no weights here; run the preset first.") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error}); it was not opened.") from None
    except RuntimeError as error:
        raise CheckpointError(f"{path}: weights of another model. {error}") from None
    return model.eval()


def _finished(directory: Path, config: dict[str, Any], code: str) -> Record | None:
    """The record of the same configuration and code, if the run is done."""
    if not (directory / "record.json").exists():
        return None
    record = Record.load(directory)
    return record if record.config == config and record.code_digest == code else None


def _settle(directory: Path, config: dict[str, Any], training: str) -> Record | None:
    """Make the folder ready: put an outdated finished run aside, write down what this one is.

    Returns the record of weights that the present code would train again, if there are such. They stay, with the course
    of their training and the memory that it took. So do the folders of other seeds, which are runs of their own in
    which another process may be at work.
    """
    stays: set[str] = set()
    earlier = None
    for name in ("record.json", TRAINED):
        if earlier := _trained(directory, name, config, training):
            stays = {WEIGHTS, "metrics.jsonl", "memory.json", TRAINED}
            (directory / name).replace(directory / TRAINED)  # first: without a record, the run is not finished
            break
    outdated = [name for name in ("record.json", TRAINED) if (directory / name).exists() and name not in stays]
    if stays or outdated:
        aside = directory.with_name(f".{directory.name}.outdated")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        left = [path for path in directory.iterdir() if records.folder_seed(path.name) is None]
        for path in sorted(left, key=lambda path: path.name not in outdated):
            if path.name in stays:
                shutil.copy2(path, aside / ("record.json" if path.name == TRAINED else path.name))
            else:
                path.rename(aside / path.name)
    directory.mkdir(parents=True, exist_ok=True)
    records.write_text(directory / "config.json", json.dumps(config, indent=1) + "\n")
    return earlier


def _trained(directory: Path, name: str, config: dict[str, Any], training: str) -> Record | None:
    """The record of that name, if the weights beside it are its own, of this configuration and training code."""
    try:
        record = Record.load(directory, name)
        same = record.config == config and record.training_digest == training
        return record if same and record.weights_sha256 == _sha256(directory / WEIGHTS) else None
    except (RecordError, OSError):
        return None


def _again(paper: Paper, config: Any, run: Run, earlier: Record) -> nn.Module:
    """The model that an earlier run has trained; of its training, `run` then knows what it would have learned by it."""
    model = paper.build(config)
    if distributed.is_main():  # who sends them to the others
        load_weights(model, run.directory / WEIGHTS)
    run.steps = earlier.steps
    run.data |= earlier.data_sha256
    run.timings_s |= {stage: seconds for stage, seconds in earlier.timings_s.items() if stage != "evaluate"}
    return place(model, run.device)


def _origin(record: Record) -> dict[str, Any]:
    """Where the weights of a record are from."""
    own = {name: getattr(record, name) for name in ("git_sha", "environment", "hardware", "finished")}
    return record.trained or own


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _save_weights(model: nn.Module, path: Path) -> None:
    """Publish the parameters and buffers, atomically."""
    part = path.with_suffix(".part")
    save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, part)
    part.replace(path)


def _torch_hardware(device: torch.device) -> dict[str, str | int]:
    """What of the hardware torch used: results are the same to the bit only at the same number of threads."""
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    together = {"processes": distributed.world_size()} if distributed.world_size() > 1 else {}
    return {"threads": torch.get_num_threads(), **together, **gpu}
