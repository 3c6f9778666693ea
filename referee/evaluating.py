"""`referee evaluate`: metrics of samples, whoever made them, and of a model by its weights; the outcome is a record.

Samples are a folder of images or a file (`common.evaluation.samples`), or drawn from a paper's model
(`referee.trained`).

What decides the values is in the record's configuration: digests of the samples and of the data, the split, network,
seed and number, whether weights are averaged, and the configuration of the model. What a reader should know besides is
there as `notes`. Nothing is written before everything is measured.
"""

import argparse
import dataclasses
import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.digest import code_digest
from common.errors import CheckpointError, ConfigError, DataError, RecordError, nearest
from common.evaluation import metrics
from common.records import Record, Score, environment, git_sha, hardware
from referee.project import Project, UsageError, find_project, find_root

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from common.evaluation.bank import Bank
    from common.evaluation.features import Features
    from common.evaluation.samples import Images
    from referee.trained import Model, Weights

DRAWS = 1000  # from a model, when no number is said

OWN = "own"
"""Stands among the metrics for what a paper's `evaluate` measures of its model."""

BATCH = 100  # samples at a time: drawn from a model, or seen by a network

NOT_SAID = "not said"
"""The split of a reference of the caller's, where neither its file nor --split says which it is."""


# -- The command -------------------------------------------------------------------------------------------------------


def evaluate_command(options: argparse.Namespace) -> int:
    """`referee evaluate`."""
    if options.metrics == "list":
        _list(options.format)
        return 0
    _sensible(options)
    root = find_root()
    project = find_project(root, options.paper) if options.paper else None
    asked = _names(options)
    start = time.perf_counter()
    with _input_errors():
        outcome = _evaluated(options, root, project, asked, start)
    record, directory, notes = outcome.record, outcome.directory, outcome.record.config["notes"]
    _keep(record, directory, outcome.measured if options.keep_features else None)
    shown = directory / "record.json"
    where = shown.relative_to(root).as_posix() if shown.is_relative_to(root) else str(shown)
    if options.format == "json":
        said = {"record": where, "notes": notes, "own": len(outcome.own)}  # of the scores, which the first ones are
        print(json.dumps(said | dataclasses.asdict(record), indent=1))
        return 0
    from referee.show import duration

    _show(outcome)
    for note in notes:
        print(f"note: {note}{'' if note.endswith('?') else '.'}")
    print(f"Record: {where} ({duration(record.wall_s)})")
    return 0


def _show(outcome: "Outcome") -> None:
    """One line a score: whose it is and of which split, where they differ in it; below, how each was measured."""
    from rich.text import Text

    from referee.show import plain_table, print_measured
    from referee.verdicts import show_score

    scores = outcome.record.scores
    whose = ["own" if i < len(outcome.own) else "" for i in range(len(scores))]
    both = len(set(whose)) > 1
    apart = len({score.split for score in scores}) > 1
    table = plain_table()
    for column in ("score", *(["by"] if both else []), *(["split"] if apart else []), "value", "n"):
        table.add_column(column, no_wrap=True, justify="right" if column in ("value", "n") else "left")
    measured: dict[str, dict[str, None]] = {}  # protocol -> the scores it is of, in order
    for score, by in zip(scores, whose, strict=True):
        cells = [score.name, *([by or "metric"] if both else []), *([score.split] if apart else [])]
        limit = outcome.limits.get(score.name, "") if not by else ""
        unknown = f" ({limit})" if limit else ""
        cells += [f"{show_score(score)} {score.unit}{unknown}", f"{score.n:,}"]
        table.add_row(*map(Text, cells))
        measured.setdefault(score.protocol, {})[f"{score.name}{f' ({by})' if by and both else ''}"] = None
    print_measured(table, measured)


def _keep(record: Record, directory: Path, measured: "Measured | None") -> None:
    """Write the record, and the features first where they are to be kept."""
    from common.evaluation.samples import write_features

    try:
        for network, bank in (measured.banks if measured else {}).items():
            bank.split = "" if bank.split == NOT_SAID else bank.split
            write_features(bank, directory / f"features-{network}.safetensors")
        record.save(directory)
    except OSError as error:
        raise UsageError(f"evaluate: {directory} cannot be written to ({error.strerror}); choose --output.") from None


def _sensible(options: argparse.Namespace) -> None:
    """Refuse what cannot be meant, before anything is imported."""
    if bool(options.samples) == bool(options.weights):
        raise UsageError("evaluate: name what is measured, either --samples DIR|FILE or --weights FILE.")
    if options.weights and not options.paper:
        raise UsageError("evaluate: --weights are a paper's; name it: referee evaluate <paper> --weights FILE.")
    if (options.preset or options.run) and not options.weights:
        raise UsageError("evaluate: --preset and --run say what --weights belong to; with --samples they mean nothing.")
    if bool(options.preset) != bool(options.run):
        raise UsageError("evaluate: --preset and --run go together, as in --preset laptop --run eps-simple.")
    if options.output and Path(options.output).exists() and not Path(options.output).is_dir():
        raise UsageError(f"evaluate: --output {options.output} is a file; name a folder.")
    if options.n is not None and options.n < 1:
        raise UsageError(f"evaluate: --n {options.n}: at least one sample.")
    if options.weights and not Path(options.weights).is_file():
        raise UsageError(f"evaluate: {options.weights}: there are no weights here.")
    if options.split == "train":
        _not_unawares(options)


def _not_unawares(options: argparse.Namespace) -> None:
    """Training examples are compared with only where that is meant."""
    if not options.allow_train:
        raise UsageError(
            "evaluate: the split 'train' compares samples with what the model was trained on, and rewards a model that "
            "memorises it. Name 'test' or 'val', or add --allow-train if it is meant (some papers do it so); the "
            "scores will say so."
        )


def _names(options: argparse.Namespace) -> tuple[str, ...]:
    """The metrics that are asked for."""
    if not options.metrics:
        return (OWN,) if options.weights else metrics.DEFAULT
    names = tuple(dict.fromkeys(name.strip() for name in options.metrics.split(",") if name.strip()))
    for name in names:
        if name == OWN and not options.weights:
            raise UsageError("evaluate: 'own' is what the paper measures of its model; it takes --weights.")
        if name != OWN and name not in metrics.OF_SAMPLES:
            hint = nearest(name, (OWN, *metrics.OF_SAMPLES))
            raise UsageError(
                f"evaluate: there is no metric '{name[:40]}'.{hint} There are: {', '.join(metrics.OF_SAMPLES)}; "
                "'--metrics list' says what they are."
            )
    if not names:
        raise UsageError("evaluate: --metrics names none; '--metrics list' says which there are.")
    for_metrics = ("n", "split", "dataset", "reference", "network", "keep_features")
    if names == (OWN,) and (said := [f"--{each.replace('_', '-')}" for each in for_metrics if _given(options, each)]):
        raise UsageError(
            f"evaluate: {', '.join(said)}: of no effect on 'own', which measures as the paper's configuration says. "
            "Leave it away, or name metrics of draws, as in --metrics own,kid."
        )
    return names


def _given(options: argparse.Namespace, name: str) -> bool:
    return getattr(options, name) not in (None, False)


def _list(how: str) -> None:
    """Every metric with what it says."""
    if how == "json":
        said = {name: {"better": metrics.better(name), **m._asdict()} for name, m in metrics.OF_SAMPLES.items()}
        print(json.dumps(said, indent=1))
        return
    from rich.text import Text

    from referee.show import console, plain_table

    table = plain_table()
    for column in ("metric", "better", "unit", "what it is"):
        table.add_column(column)
    for name, meaning in metrics.OF_SAMPLES.items():
        mark = "*" if name in metrics.DEFAULT else ""
        table.add_row(*map(Text, (name + mark, metrics.better(name), meaning.unit, meaning.what)))
    table.add_row(*map(Text, (OWN, "", "", "with --weights: what the paper's own evaluation measures")))
    console().print(table)
    print("* computed when no --metrics are named; with --weights that is 'own'.")


@contextmanager
def _input_errors() -> Iterator[None]:
    """What is wrong with samples, weights or the choice of metrics is the caller's to put right: exit status 2."""
    try:
        yield
    except (DataError, CheckpointError, ConfigError, RecordError) as error:
        raise UsageError(str(error)) from None


# -- What is measured --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What came out: the record, whose first scores are the paper's `own`, and where it goes."""

    record: Record
    directory: Path
    own: list[Score]
    measured: "Measured | None"  # the sample metrics, if there were any

    @property
    def limits(self) -> dict[str, str]:
        """Score -> what is known of it in the place of an error."""
        return self.measured.limits if self.measured else {}


def _evaluated(
    options: argparse.Namespace, root: Path, project: Project | None, asked: tuple[str, ...], start: float
) -> Outcome:
    """Everything that was asked for, measured."""
    import torch

    from common.training import pick_device
    from referee.trained import load_model, own_scores

    device = pick_device(options.device)
    torch.set_flush_denormal(True)  # as in `common.experiment.execute`
    model = load_model(options, project, device) if project and options.weights else None
    of_samples = tuple(name for name in asked if name != OWN)
    own: list[Score] = []
    notes: list[str] = []
    data_sha256: dict[str, str] = {}
    measured: Measured | None = None
    config: dict[str, Any] = {"metrics": list(asked)}
    if model:
        config |= {"weights_file_sha256": model.sha256, "run": model.run, "model": model.plain}
    if of_samples:
        measured = _measure(options, project, model, of_samples, device)
        config |= measured.config
        data_sha256 |= measured.data_sha256
        notes += measured.notes
    if model and OWN in asked:
        own, digests, said = own_scores(model, device, not options.quiet)
        data_sha256 |= digests
        notes += said
    config |= {"seed": options.seed, "notes": notes}
    label = model.run if model else Path(options.samples).resolve().name
    name = _slug(label) + "-" + hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]
    base = root / "runs" / (project.name if project else "samples") / "evaluate" / name
    record = Record(
        project=project.name if project else "samples",
        preset="evaluate",
        run=name,
        config=config,
        scores=own + (measured.scores if measured else []),
        seed=options.seed,
        steps=0,
        code_digest=_digest_of_code(model),
        git_sha=git_sha(root),
        data_sha256=data_sha256,
        environment=environment(),
        hardware=hardware() | {"threads": torch.get_num_threads()},
        wall_s=round(time.perf_counter() - start, 1),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        parameters=sum(p.numel() for p in model.module.parameters()) if model else 0,
    )
    return Outcome(record, Path(options.output) if options.output else base, own, measured)


@dataclass(frozen=True)
class Measured:
    """Sample metrics, with what decided them."""

    scores: list[Score]
    config: dict[str, Any]
    data_sha256: dict[str, str]
    notes: list[str]
    limits: dict[str, str]  # score -> what is known of it in the place of an error
    banks: "dict[str, Bank]"  # network -> the samples' features


def _measure(
    options: argparse.Namespace,
    project: Project | None,
    model: "Model | None",
    names: tuple[str, ...],
    device: "torch.device",
) -> Measured:
    """The metrics of these names, by every network that is asked for."""
    from common.evaluation import samples as reading
    from common.evaluation.bank import Bank
    from referee import caveats
    from referee.trained import sampling

    given = Path(options.samples) if options.samples else None
    samples: Bank | None = None
    if given and reading.is_features(given):
        samples = reading.read_features(given, given.name)
    reference = _reference(options, project, model)
    images: Images | None = None
    if given and samples is None:
        images = reading.open_images(given, reference.like)
    networks = _networks(options, reference, samples, images)
    for network in networks:
        if samples is not None and samples.network != network.name:
            raise DataError(
                f"{given}: features of {samples.network} do not compare with those of {network.name}: leave --network "
                "away, or give the samples themselves."
            )
        if reference.codes is not None:
            network(reference.codes[:1])  # says so if it takes no such images
    classifiers = _classifiers(names, networks, samples)
    if metrics.wants_train(names) and reference.training is None:
        raise DataError(
            "copying and copies look for training examples among the samples: they take --dataset, and --split 'test' "
            "or 'val' as the examples that were held out."
        )
    if model:
        for network in networks:
            _enough(names, options.n or DRAWS, network.dims, reference, options)
        images = _drawn(model, options.n or DRAWS, options.seed, device, reference.like, not options.quiet)
    source = samples or images
    assert source is not None
    if source.split and source.split != reference.split:
        raise DataError(
            f"{given}: says that it is to be compared with the split '{source.split}'; that of the reference is "
            f"'{reference.split}': name the right one by --split."
        )
    rows = _chosen(source.n, options.n if options.samples else None, options.seed, str(given))
    n = source.n if rows is None else len(rows)
    for network in networks:
        _enough(names, n, network.dims, reference, options)
    name = images.name if images else samples.source if samples else ""
    config: dict[str, Any] = {"samples": name, "n": n, "split": reference.split}
    config["networks"] = [network.name for network in networks]
    weights: Weights = model.kept if model else "ema" if options.ema else "raw"
    banks, sha256, marks = _seen(images, samples, rows, [*networks, *classifiers.values()], reference.split, options)
    config |= {"samples_sha256": sha256, "reference": reference.name, "reference_sha256": reference.sha256}
    config["weights"] = weights
    notes = [*(images.notes if images else ()), *caveats.repeated(marks)]
    compared = metrics.wants_reference(names)
    parts = [*(images.decides if images else ()), sampling(model) if model else ""]
    parts.append("averaged weights" if weights == "ema" else "")
    parts.append("the training split, as was asked for" if reference.split == "train" and compared else "")
    same = ""
    if compared and images and reference.codes is not None:
        same = caveats.of_the_reference(marks, reference.codes)
    elif compared and reference.features is not None:
        same = caveats.of_its_features(banks[networks[0].name], reference.features)
    parts.append(same)
    notes += [same] if same else []
    protocol = "; ".join(part for part in parts if part)
    if images and reference.training is not None:
        notes += caveats.of_training(marks, reference.training, reference.name)
    if images and reference.codes is None and any(network.name == "raw-pixels" for network in networks):
        notes.append("the samples were taken to be of 256 levels, since features of pixels do not say of how many")
    scores: list[Score] = []
    for network in networks:
        job = metrics.Job(
            banks[network.name],
            reference.bank(network, not options.quiet) if compared else Bank(network.name),
            reference.train(network, not options.quiet) if metrics.wants_train(names) else None,
            banks[classifiers[network.name].name] if classifiers else None,
            seed=options.seed,
            protocol=protocol,
            weights=weights,
        )
        scores += metrics.measure(names, job, progress=not options.quiet and sys.stderr.isatty())
    if "coverage" in names:
        notes.append(caveats.coverage_of_data(reference.n, n))
    known = [caveats.without_error(score) for score in scores]
    limits = {score.name: limit for score, limit in known if limit}
    if limits:
        notes.append(
            f"{', '.join(limits)}: these samples show no error, which does not make it 0; the record says that it is "
            "not known"
        )
    kept = {network.name: banks[network.name] for network in networks}
    return Measured([score for score, _ in known], config, reference.data_sha256, notes, limits, kept)


def _digest_of_code(model: "Model | None") -> str:
    """Of all that computes metrics, and of the paper's code if its model was used."""
    digest = code_digest(Path(metrics.__file__))
    if model is None:
        return digest
    return hashlib.sha256((digest + code_digest(model.project.paper_file)).encode()).hexdigest()


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:40] or "samples"


# -- What samples are compared with ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """The data that samples are compared with: a split of a data set, or what the caller brings."""

    name: str  # "fashion_mnist", or of a folder
    split: str
    like: Any  # samples.Like; None of features
    codes: "Tensor | None"  # uint8 (m, C, H, W); None of features
    features: "Bank | None"
    training: "Tensor | None"  # the training split's codes, for what looks for copies
    sha256: str  # of the split, or of what was brought
    data_sha256: dict[str, str]

    @property
    def n(self) -> int:
        """Examples."""
        return len(self.codes) if self.codes is not None else self.features.n if self.features else 0

    def bank(self, network: "Features", progress: bool) -> "Bank":
        """Its features under a network."""
        if self.features is not None:
            return self.features
        assert self.codes is not None
        source = f"{self.name}, split not said" if self.split == NOT_SAID else f"{self.name} {self.split}"
        return _cached(self.codes, self.sha256, network, source, self.split, progress)

    def train(self, network: "Features", progress: bool) -> "Bank":
        """The training examples' features."""
        assert self.training is not None
        return _cached(self.training, f"train of {self.sha256}", network, f"{self.name} train", "train", progress)


def _reference(options: argparse.Namespace, project: Project | None, model: "Model | None") -> Reference:
    from common.evaluation import samples as reading

    if options.reference:
        reference = _brought(Path(options.reference), options.split)
        if reference.split == "train":
            _not_unawares(options)
        return reference
    name = options.dataset or _dataset_of(project, model)
    from common.data import load

    if name not in (known := _image_sets()):
        instead = f" Measure what the paper measures of {model.run}: --metrics own." if model else ""
        raise UsageError(
            f"evaluate: there is no data set '{name}' of images.{nearest(name, known)} There are: {', '.join(known)}."
            f"{instead}"
        )
    data = load(name)
    which = options.split or "test"
    split = getattr(data, which)
    shape = tuple(split.x.shape[1:])
    assert data.levels is not None
    digest = reading.Digest(shape)
    digest.add(split.x)
    training = None if which == "train" else data.train.x
    like = reading.Like(name, shape, data.levels)
    return Reference(name, which, like, split.x, None, training, digest.hex(), {data.name: data.sha256})


def _image_sets() -> list[str]:
    """The data sets of images; those of the UCI repository are vectors."""
    from common.data import names

    return [name for name in names() if not name.startswith("uci_")]


def _brought(path: Path, wanted: str | None) -> Reference:
    """A folder or file of the caller's as the reference; of the split that is named, or that it says it is of."""
    import torch

    from common.evaluation import samples as reading

    if reading.is_features(path):
        bank = reading.read_features(path)
        if bank.split and wanted not in (None, bank.split):
            raise DataError(f"{path}: holds features of the split '{bank.split}', and --split is '{wanted}'.")
        bank.split = split = wanted or bank.split or NOT_SAID
        digest = hashlib.sha256(bank.x.numpy().data).hexdigest()
        return Reference(path.name, split, None, None, bank, None, digest, {path.name: digest})
    images = reading.open_images(path)
    if images.split and wanted not in (None, images.split):
        raise DataError(f"{path}: says that it is of the split '{images.split}', and --split is '{wanted}'.")
    split = wanted or images.split or NOT_SAID
    codes = torch.cat(list(images.batches(1000)))
    sha = reading.Digest(images.shape)
    sha.add(codes)
    like = reading.Like(images.name, images.shape, 256)
    return Reference(images.name, split, like, codes, None, None, sha.hex(), {images.name: sha.hex()})


def _dataset_of(project: Project | None, model: "Model | None") -> str:
    """The data set of a model's configuration, or the one that a paper is about."""
    if model:
        name = model.plain.get("dataset")
        if not isinstance(name, str):
            raise UsageError(f"evaluate: the configuration of {model.run} names no data set; name it with --dataset.")
        return name
    if project is None:
        raise UsageError("evaluate: compared with what? Name --dataset NAME, a paper, or --reference DIR|FILE.")
    presets = project.module().PRESETS
    some = (config for preset, runs in presets.items() if preset != "smoke" for config in runs.values())
    named = sorted({name for config in some if isinstance(name := getattr(config, "dataset", None), str)})
    found = [name for name in named if name in _image_sets()]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(f"evaluate: {project.name} names no data set of images; name it with --dataset.")
    raise UsageError(f"evaluate: {project.name} is about several data sets; choose: --dataset {' | '.join(found)}.")


def _networks(
    options: argparse.Namespace, reference: Reference, samples: "Bank | None", images: "Images | None"
) -> "list[Features]":
    """The feature networks: those asked for, the one that files of features come from, or the data set's own."""
    from common.evaluation.networks import for_data, network

    like = reference.like
    shape, levels = (like.shape, like.levels) if like else (images.shape if images else None, 256)
    asked = [name.strip() for name in (options.network or "").split(",") if name.strip()]
    made = [bank.network for bank in (samples, reference.features) if bank]
    if not asked and made:
        asked = made[:1]
    if reference.features is not None:  # nothing is to be computed but what the samples want
        if samples is not None:
            return [_Named(name, samples.dims) for name in dict.fromkeys(asked)]
        if shape is None and "raw-pixels" in asked:
            raise ConfigError(
                f"{options.reference}: features of pixels do not say what shape the images have that are to be drawn; "
                "give the images themselves as --reference, or name a --dataset."
            )
        return [network(name, shape, levels) for name in dict.fromkeys(asked)]
    if not asked:
        return [for_data(reference.name, shape, levels)]
    return [network(name, shape, levels) for name in dict.fromkeys(asked)]


@dataclass(frozen=True)
class _Named:
    """A network that is known by its features alone."""

    name: str
    dims: int

    def __call__(self, codes: "Tensor") -> "Tensor":
        raise DataError(f"{self.name}: only its features are here, and no image can be seen by it.")


def _classifiers(names: Sequence[str], networks: "Sequence[Features]", samples: "Bank | None") -> "dict[str, Features]":
    """Network -> the classifier that it is a part of, where classes are asked for."""
    if not metrics.wants_classes(names):
        return {}
    from common.evaluation.class_score import classifier

    if samples is not None:
        raise DataError("class_score takes the samples themselves: their features do not say what a classifier sees.")
    return {network.name: classifier(network.name.partition("@")[0]) for network in networks}


def _enough(names: Sequence[str], n: int, dims: int, reference: Reference, options: argparse.Namespace) -> None:
    """Refuse too few samples before anything is computed, and say how many each metric takes."""
    sides = ((n, "samples"), (reference.n, f"examples of {reference.name} {reference.split}"))
    for side, (count, what) in enumerate(sides):
        least = {name: metrics.least(name, dims)[side] for name in names}
        short = {name: wanted for name, wanted in least.items() if count < wanted}
        if not short:
            continue
        wanted = ", ".join(f"{name} at least {needed:,}" for name, needed in short.items())
        rest = [name for name in names if name not in short]
        leave = f", or leave it to --metrics {','.join(rest)}" if rest else ""
        more = "more" if what != "samples" or not options.weights else f"more with --n {max(short.values())}"
        raise DataError(
            f"{count:,} {what} are too few: {wanted} (features of {dims:,} dimensions). Take {more}{leave}."
        )


def _bar() -> dict[str, Any]:
    """How a progress bar over images looks; a file or a CI log keeps every refresh as text, so few of them there."""
    return {"unit": " images", "mininterval": 0.5 if sys.stderr.isatty() else 10.0, "dynamic_ncols": True}


def _chosen(there: int, wanted: int | None, seed: int, where: str) -> "Tensor | None":
    """A seeded choice of n of the samples, without repetition; None for all of them."""
    import torch

    if wanted is None or wanted == there:
        return None
    if wanted > there:
        raise DataError(f"{where}: holds {there:,} samples, --n {wanted} are asked for.")
    return torch.randperm(there, generator=torch.Generator().manual_seed(seed))[:wanted].sort().values


def _seen(
    images: "Images | None",
    samples: "Bank | None",
    rows: "Tensor | None",
    networks: "Sequence[Features]",
    split: str,
    options: argparse.Namespace,
) -> "tuple[dict[str, Bank], str, list[bytes]]":
    """The samples' features under each network, in one pass; the digest of the samples, and one of each."""
    from tqdm import tqdm

    from common.evaluation.bank import Bank
    from common.evaluation.duplicates import fingerprints
    from common.evaluation.samples import Digest

    if images is None:
        assert samples is not None
        kept = samples if rows is None else Bank(samples.network, samples.source, samples.split).add(samples.x[rows])
        kept.split = split
        sha256 = hashlib.sha256(kept.x.numpy().data).hexdigest()
        return {network.name: kept for network in networks}, sha256, fingerprints(kept.x)
    banks = {network.name: Bank(network.name, "samples", split) for network in networks}
    marks: list[bytes] = []
    digest = Digest(images.shape)
    total = images.n if rows is None else len(rows)
    with tqdm(total=total, desc="samples", disable=options.quiet, **_bar()) as bar:
        for codes in images.batches(BATCH, rows):
            digest.add(codes)
            marks += fingerprints(codes)
            for network in networks:
                banks[network.name].add(network(codes))
            bar.update(len(codes))
    return banks, digest.hex(), marks


def _cached(codes: "Tensor", digest: str, network: "Features", source: str, split: str, progress: bool) -> "Bank":
    """Features of data, kept in the cache: they are asked for again with every set of samples.

    Known by the data's content, the network's name and the code that computes features. The pixels are not kept.
    """
    from common.downloads import cache_root
    from common.evaluation import networks
    from common.evaluation.bank import bank
    from common.evaluation.samples import read_features, write_features

    if network.name == "raw-pixels":
        return bank(network, codes, source=source, split=split)
    key = hashlib.sha256(f"{digest} {network.name} {code_digest(Path(networks.__file__))}".encode()).hexdigest()
    path = cache_root() / "features" / f"{network.name}-{key[:16]}.safetensors"
    if path.is_file():
        try:
            kept = read_features(path, source)
            if kept.network == network.name and kept.n == len(codes):
                kept.split = split
                return kept
        except DataError:
            pass  # damaged: made again
    made = bank(network, codes, source=source, split=split, batch_size=BATCH, progress=source if progress else "")
    with suppress(OSError):  # a cache that cannot be written is none
        write_features(made, path)
    return made


# -- Draws -----------------------------------------------------------------------------------------------------------


def _drawn(model: "Model", n: int, seed: int, device: "torch.device", like: Any, progress: bool) -> "Images":
    """n draws from a model, as codes."""
    import torch
    from tqdm import tqdm

    from common.evaluation.samples import of_values
    from referee.trained import draws_of

    draw = draws_of(model, like.levels if like else 256)
    generator = torch.Generator(device).manual_seed(seed)
    parts: list[Tensor] = []
    with tqdm(total=n, desc="draws", disable=not progress, **_bar()) as bar:
        while (done := sum(map(len, parts))) < n:
            parts.append(draw(min(BATCH, n - done), generator).cpu())
            if len(parts[-1]) == 0:
                raise DataError(f"{model.project.name}: the model draws nothing.")
            bar.update(len(parts[-1]))
    return of_values(torch.cat(parts), f"draws of {model.run}", like)
