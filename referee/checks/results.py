"""RES: records are readable, made by the present code on the right data, plausible, and what the tables show."""

import ast
import hashlib
import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import RecordError, UserError, nearest
from common.records import PRESETS_ORDER, Record, Score, folder_seed, read_examples
from referee.checks.base import FROM_V1, NOTE_FROM_V1, WARN_FROM_V1, Found, Submission, check
from referee.checks.reading import (
    MAX_TEXT,
    PLACEHOLDER,
    Unreadable,
    parse_json,
    read_bytes,
    read_text,
    safetensors_header,
)
from referee.schema import find_metric
from referee.seeds import show_seeds
from referee.stages import declared
from referee.standing import not_a_replicate
from referee.words import number_of

MAX_RECORD = 256 * 1024  # bytes
MAX_EXAMPLES = 4 * 1024 * 1024
MAX_LEFT = 64 * 1024 * 1024

LEFT_BY_A_RUN = ("metrics.jsonl", "examples.safetensors", "samples.png", "weights.safetensors")
"""Files that no two runs of different settings have in common."""

SPLIT_NAMED = re.compile(
    r"\b(train|val|test)(?:ing|idation)?[ -](?:set|split|examples|images|data|points)\b", re.IGNORECASE
)
"""A protocol's words for the examples that were scored."""

BOUNDS = frozenset({"elbo", "elbo_train", "iwae_bound"})
"""Metrics that are bounds by their definition."""

BOUND_PROTOCOL = re.compile(r"\bL_\{?\d+|\bELBO\b|\bIWAE\b|\bbound\b|\bimportance\b|\bk ?= ?\d+", re.IGNORECASE)
"""Ways of measuring that give a bound, or an estimate of one."""

LATENT = frozenset({"vae", "diffusion", "hierarchical-vae", "vq-vae"})
"""Families whose likelihood is an integral that nobody can do exactly."""

SHA256 = re.compile(r"[0-9a-f]{64}")
ADDRESS = re.compile(r"([a-z][a-z0-9_]{0,63})/([a-z]{1,20})/([A-Za-z0-9][A-Za-z0-9_.-]{0,63})")


def records(submission: Submission) -> dict[Path, Record | str]:
    """The published records by file; for one that cannot be used, the reason instead."""
    if "records" not in submission.cache:
        found: dict[Path, Record | str] = {}
        for entry in submission.files(".json"):  # sorted: a run's own record comes before those of its other seeds
            if _is_record(submission, entry.path):
                found[entry.path] = _record(submission, entry.path, found)
        submission.cache["records"] = found
    known: dict[Path, Record | str] = submission.cache["records"]
    return known


def _is_record(submission: Submission, path: Path) -> bool:
    """Whether a file is a run's record: results/<preset>/<run>/record.json, or in a folder seed-<s> of that."""
    parts = path.relative_to(submission.project.folder).parts
    in_place = len(parts) == 4 or (len(parts) == 5 and folder_seed(parts[3]) is not None)
    return in_place and parts[0] == "results" and parts[-1] == "record.json"


def _other_seed(submission: Submission, path: Path) -> bool:
    """Whether a record lies in the folder of another seed than the preset's own."""
    return len(path.relative_to(submission.project.folder).parts) == 5


def _record(submission: Submission, path: Path, known: Mapping[Path, Record | str]) -> Record | str:
    preset, run = path.relative_to(submission.project.folder).parts[1:3]
    try:
        raw = parse_json(read_text(path, MAX_RECORD))
        _flat(raw)
        record = Record.load(path.parent)
    except Unreadable as error:
        return f"{error}; run it again with --fresh."
    except RecordError as error:
        return str(error).replace(f"{path}: ", "").replace(str(path), path.name)
    says = (record.project, record.preset, record.run)
    if says != (submission.name, preset, run):
        return f"says it is the record of {'/'.join(says)[:120]}; put it where it belongs, or run it again."
    if preset not in PRESETS_ORDER:
        return f"lies under '{preset[:40]}', which is no preset ({', '.join(PRESETS_ORDER)}); move or delete it."
    if _other_seed(submission, path):
        own = known.get(path.parents[1] / "record.json")
        if own is None:
            return "is of another seed, and there is no record of the preset's own; publish that too, or delete this."
        if isinstance(own, Record) and (why := not_a_replicate(own, record, path.parent.name)):
            return why
    return record


def _flat(raw: Any) -> None:
    """Refuse what the fields' plain types allow and no run writes: text where the mappings hold numbers, and so on."""
    if not isinstance(raw, dict):
        return
    for name, kinds in {
        "data_sha256": (str,),
        "environment": (str,),
        "hardware": (str, int),
        "timings_s": (int, float),
    }.items():
        values = raw.get(name, {})
        if isinstance(values, dict) and not all(type(v) in kinds for v in values.values()):
            raise Unreadable(f"holds something else than {' or '.join(k.__name__ for k in kinds)} in '{name}'")
    for name in ("wall_s", "seed", "steps", "parameters"):
        if isinstance(value := raw.get(name, 0), int | float) and not abs(value) < 2**63:
            raise Unreadable(f"holds the impossible value {value} in '{name}'")


def usable(submission: Submission) -> Iterator[tuple[Path, Record]]:
    """The records that can be used."""
    for path, record in records(submission).items():
        if isinstance(record, Record):
            yield path, record


def rests_on(record: Record) -> tuple[str, str] | None:
    """The weights that a run took instead of training: "project/preset/run" and SHA-256; None where it names none.

    They stand in its configuration, as `common.weights` has it.
    """
    address, digest = record.config.get("weights"), record.config.get("weights_sha256")
    if not (isinstance(address, str) and isinstance(digest, str)):
        return None
    return (address, digest) if ADDRESS.fullmatch(address) and SHA256.fullmatch(digest) else None


def learns_nothing(submission: Submission, record: Record) -> bool:
    """Whether a run only measures: of the family evaluation, without a parameter and without a step."""
    return submission.file.family == "evaluation" and not record.steps and not record.parameters


@check(
    "RES-001",
    "Records can be read and lie where they belong",
    why="Every table, verdict and figure is computed from them.",
    fix="Never edit a record; run it again with --fresh and publish it.",
)
def records_can_be_read(submission: Submission) -> Iterator[Found]:
    for path, record in records(submission).items():
        if isinstance(record, str):
            yield path, 1, record
    for entry in submission.files(".json"):
        if entry.path.name == "record.json" and not _is_record(submission, entry.path):
            where = "results/<preset>/<run>/record.json, those of other seeds in seed-<s>/ of that folder"
            yield entry.path, 1, f"lies in no run's folder; records are {where}. Move it."


@check(
    "RES-002",
    "Some claim is met by a record",
    why="A version 1 shows at least one thing that came out, whatever it is.",
    fix="Run and publish the preset at which your orderings may be judged, mostly laptop.",
    severity=FROM_V1,
)
def some_claim_is_met(submission: Submission) -> Iterator[Found]:
    if all(v.status == "not attempted" for v in submission.standing.verdicts if v.kind != "figure"):
        message = "no value and no ordering has a record to be judged by; publish the runs of at least one claim."
        yield submission.at("project.yaml"), 1, message


@check(
    "RES-003",
    "Every claim has been tried",
    why="What was not attempted is no failure, but a reader should know how much it is.",
    fix="Run what your machine allows; leave the others as they are. Claims are never taken out.",
    severity=NOTE_FROM_V1,
)
def claims_are_tried(submission: Submission) -> Iterator[Found]:
    untried = [v.claim for v in submission.standing.verdicts if v.untried]
    if untried:
        listed = ", ".join(untried[:4]) + (", …" if len(untried) > 4 else "")
        what = f"{len(untried)} of {len(submission.file.claims)} claims were not attempted ({listed})"
        yield submission.at("project.yaml"), 1, f"{what}; run them, or say in the README why not."


@check(
    "RES-004",
    "Records are made by the present code",
    why="A number belongs to the code that made it; another code may give another number.",
    fix="Run the stale ones again and publish them; where training's code is the same, weights are kept.",
    severity=FROM_V1,
)
def records_are_fresh(submission: Submission) -> Iterator[Found]:
    digest = submission.standing.digest
    stale: dict[str, list[str]] = {}
    seeds: dict[str, set[int]] = {}
    for path, record in usable(submission):
        if digest is not None and record.code_digest != digest:
            other = _other_seed(submission, path)
            stale.setdefault(record.preset, []).append(f"{record.run} seed {record.seed}" if other else record.run)
            seeds.setdefault(record.preset, set()).add(record.seed)
    for preset, runs in stale.items():
        several = f" --seeds {show_seeds(sorted(seeds[preset]))}" if any(" seed " in run for run in runs) else ""
        command = f"referee run {submission.name} --preset {preset}{several} --publish"
        message = f"stale, made by other code than the present: {', '.join(runs)}. Run '{command}'."
        yield submission.at(f"results/{preset}"), 1, message


def pinned(root: Path) -> dict[str, str | None]:
    """The digests that `common/data/registry.py` pins, data set -> SHA-256 or None where none is known.

    Points that are drawn as they are needed (`DRAWN`) are known and have none.

    They are read from its source, since importing it would take torch. {} when there is no such file.
    """
    try:
        tree = ast.parse((root / "common" / "data" / "registry.py").read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return {}
    digests: dict[str, str | None] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id="DRAWN")], value=ast.Tuple(elts=drawn)):
                digests |= {str(name.value): None for name in drawn if isinstance(name, ast.Constant)}
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "DataSet"):
            continue
        fields = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
        name, digest = fields.get("name"), fields.get("sha256")
        if isinstance(name, str) and (digest is None or isinstance(digest, str)):
            digests[name] = digest
    return digests


@check(
    "RES-005",
    "Records are about the data that the registry pins",
    why="Two results are comparable when the data agree to the bit.",
    fix="Load data by name from common.data, hand it through run.uses, and run again.",
    severity=FROM_V1,
)
def data_is_pinned(submission: Submission) -> Iterator[Found]:
    known = pinned(submission.root)
    for path, record in usable(submission):
        drawn = learns_nothing(submission, record) and record.config.get("dataset") == ""
        if not record.data_sha256 and not drawn:
            yield path, 1, "names no data set; hand the data through run.uses(...) and run it again."
        for name, digest in record.data_sha256.items():
            if not SHA256.fullmatch(digest):
                yield path, 1, f"gives '{name[:60]}' a digest that is not SHA-256; run it again."
            elif known and name not in known:
                yield path, 1, f"is about '{name[:60]}', which common/data/registry.py does not know; add it there."
            elif known.get(name) not in (None, digest):
                yield path, 1, f"is about other content of '{name[:60]}' than the registry pins; run it again."


@check(
    "RES-006",
    "Scores are complete and plausible",
    why="A number without n, split and protocol cannot be compared, and an impossible one is a mistake.",
    fix="Correct what `evaluate` returns and run the evaluation again.",
    severity=FROM_V1,
)
def scores_are_plausible(submission: Submission) -> Iterator[Found]:
    for path, record in usable(submission):
        if not record.scores:
            yield path, 1, "holds no score; `evaluate` returns at least one."
        seen: set[tuple[str, str, str]] = set()
        for score in record.scores:
            for what in _odd(score):
                yield path, 1, f"the score '{score.name[:60]}' {what}; correct `evaluate` and run it again."
            key = (score.name, score.split, score.weights)
            if key in seen:
                yield path, 1, f"the score '{score.name[:60]}' stands twice for the {score.split[:20]} split; keep one."
            seen.add(key)


def _odd(score: Score) -> Iterator[str]:
    metric = find_metric(score.name)
    if metric and score.unit != metric.unit:
        yield f"is in {score.unit[:30]!r}, its unit is {metric.unit!r}"
    if score.split not in ("train", "val", "test"):
        yield f"is on the split {score.split[:30]!r}, which is none of train, val, test"
    elif (named := {name.lower() for name in SPLIT_NAMED.findall(score.protocol)}) and score.split not in named:
        yield f"is on the {score.split} split, its protocol speaks of {' and '.join(sorted(named))} examples"
    if score.weights not in ("raw", "ema"):
        yield f"is of the weights {score.weights[:30]!r}, which are neither raw nor ema"
    if len(score.protocol.strip()) < 8 or PLACEHOLDER.search(score.protocol):
        yield "has no protocol that says how it was measured"
    if score.stderr is None and score.kind == "exact" and score.n > 1 and score.unit in ("nats", "bits/dim"):
        yield f"is a mean over {score.n:,} examples and has no standard error"
    elif score.stderr == 0 and score.n > 1 and score.unit in ("nats", "bits/dim"):
        yield f"has no spread at all over {score.n:,} examples"
    if score.n > 10**8:
        yield f"is a mean over {score.n:,} examples, more than any data set here has"
    # A model that is no good may be bounded at any number of bits; an exact likelihood of 16 is a mistake.
    if score.name == "bits_per_dim" and not (score.value > 0 and (score.value <= 16 or score.kind == "bound")):
        yield f"is {score.value:.5g} bits/dim; data of 8 bits lies between 0 and about 8, or below a bound"
    if score.unit == "units" and (score.value < 0 or score.value != int(score.value)):
        yield f"counts {score.value:.5g} units"


@check(
    "RES-007",
    "A bound is not sold as exact",
    why="An ELBO or an importance-weighted bound is at most the log-likelihood; calling it exact flatters the model.",
    fix="Return the score with kind='bound' (or 'estimate').",
    severity=FROM_V1,
)
def bounds_are_bounds(submission: Submission) -> Iterator[Found]:
    latent = submission.file.family in LATENT
    for path, record in usable(submission):
        for score in record.scores:
            likelihood = score.name in ("nll", "bits_per_dim")
            if score.kind != "exact" or score.unit not in ("nats", "bits/dim"):
                continue
            if score.name in BOUNDS or BOUND_PROTOCOL.search(score.protocol):
                why = "by its definition" if score.name in BOUNDS else f"as its protocol says ({score.protocol[:60]})"
            elif likelihood and latent:
                why = f"in the family '{submission.file.family}', whose likelihood nobody can compute exactly"
            else:
                continue
            yield path, 1, f"'{score.name[:60]}' is called exact and is a bound {why}; give it kind='bound'."


@check(
    "RES-008",
    "Scores are the means of their examples",
    why="The values example by example are what a score is computed from: the two cannot disagree.",
    fix="Never edit either; run the evaluation again and publish.",
    severity=FROM_V1,
)
def scores_are_means(submission: Submission) -> Iterator[Found]:
    for path, record in usable(submission):
        kept = path.with_name("examples.safetensors")
        if not any(e.kind == "file" and e.path == kept for e in submission.entries):
            continue
        try:
            safetensors_header(kept, MAX_EXAMPLES)
            examples = read_examples(path.parent)
        except (Unreadable, RecordError):
            continue  # SEC-004 reads all such files
        for score in record.scores:
            if (values := examples.get(score.name)) is not None:
                for what in _disagreement(score, np.asarray(values, dtype=np.float64)):
                    yield kept, 1, f"'{score.name[:60]}': {what}; run the evaluation again."


def _disagreement(score: Score, values: np.ndarray) -> Iterator[str]:
    if values.ndim != 1 or len(values) != score.n:
        yield f"{values.size:,} examples are kept, the record says n = {score.n:,}"
        return
    if not np.isfinite(values).all():
        yield f"{np.count_nonzero(~np.isfinite(values))} of the examples kept are not finite"
        return
    mean = float(values.mean())
    if not math.isclose(mean, score.value, rel_tol=1e-4, abs_tol=1e-4):
        yield f"the examples kept have the mean {mean:.6g}, the record says {score.value:.6g}"
    if score.stderr is not None and len(values) > 1:
        stderr = float(values.std(ddof=1) / math.sqrt(len(values)))
        if not math.isclose(stderr, score.stderr, rel_tol=0.01, abs_tol=1e-6):
            yield f"the examples kept have the standard error {stderr:.4g}, the record says {score.stderr:.4g}"


@check(
    "RES-009",
    "What lies beside a record agrees with it",
    why="config.json and metrics.jsonl are what a reader opens first.",
    fix="Publish the whole folder of a run, with 'referee run … --publish'.",
    severity=FROM_V1,
)
def neighbours_agree(submission: Submission) -> Iterator[Found]:
    for path, record in usable(submission):
        beside = path.with_name("config.json")
        try:
            config = parse_json(read_text(beside, MAX_RECORD))
        except Unreadable as error:
            yield beside, error.line, f"{error}; publish the run's whole folder."
        else:
            if config != record.config:
                yield beside, 1, "differs from the configuration in record.json; publish the run again."
        if record.steps or not (rests_on(record) or learns_nothing(submission, record)):
            yield from _curve(path.with_name("metrics.jsonl"), record, MAX_TEXT)


def _curve(path: Path, record: Record, limit: int) -> Iterator[Found]:
    try:
        lines = read_text(path, limit).splitlines()
    except Unreadable as error:
        yield path, error.line, f"{error}; publish the run's whole folder."
        return
    last = -1.0
    for number, line in enumerate(lines, 1):
        try:
            row = parse_json(line)
        except Unreadable as error:
            yield path, number, f"{error}; a line is one JSON object of finite numbers. Run it again."
            return
        step = row.get("step") if isinstance(row, dict) else None
        numbers = isinstance(row, dict) and all(type(v) in (int, float) for v in row.values())
        if step is None or not numbers:
            yield path, number, "is not an object of numbers with a 'step'; run it again."
            return
        if step <= last:
            yield path, number, f"step {step} comes after step {last:g}; a curve goes forward. Run it again."
            return
        last = step
    if not lines:
        yield path, 1, "is empty; a run logs its learning curve."
    elif last > record.steps:
        took = number_of(record.steps, "step")
        yield path, len(lines), f"goes to step {last:g}, the record says {took}. Run it again."


@check(
    "RES-010",
    "Generated tables are up to date",
    why="Nobody types a result twice; a stale table shows numbers that no record holds.",
    fix="Run 'referee tables' and commit the README.",
    severity=FROM_V1,
)
def tables_are_fresh(submission: Submission) -> Iterator[Found]:
    from referee import tables

    path = submission.at("README.md")
    text = submission.text(path)
    sections = tables.readme_sections(submission.standing)
    try:
        fresh = tables.fill(text, sections, path.name)
    except UserError as error:
        line = re.match(r"README\.md:(\d+): ", str(error))
        yield path, int(line[1]) if line else 1, re.sub(r"^README\.md:(\d+:)? ?", "", str(error))
        return
    if fresh != text:
        old, new = text.splitlines(), fresh.splitlines()
        differs = next(
            (i for i, (a, b) in enumerate(zip(old, new, strict=False), 1) if a != b), min(len(old), len(new))
        )
        yield path, differs, f"a generated table is stale; run 'referee tables {submission.name}'."


@check(
    "RES-011",
    "Records hold the configuration of their preset",
    why="Claims are judged at presets; a record of other settings under a preset's name misleads.",
    fix="Change the preset back, or run it again as it is now and publish.",
    severity=FROM_V1,
    needs="code",
)
def configurations_are_the_presets(submission: Submission) -> Iterator[Found]:
    from referee.checks.code import offered

    presets = offered(submission).presets
    for path, record in usable(submission):
        settings = presets.get(record.preset, {}).get(record.run)
        if settings is not None and _other_seed(submission, path):
            settings = settings | {"seed": record.seed}
        if settings is None:
            message = f"the paper's file has no run '{record.run[:60]}' in preset '{record.preset}'"
            yield path, 1, f"{message}; add it, or delete the record."
        elif settings != record.config:
            fields = sorted(set(settings) | set(record.config))
            field = next(f for f in fields if settings.get(f) != record.config.get(f))
            ours, theirs = json.dumps(record.config.get(field))[:60], json.dumps(settings.get(field))[:60]
            yield path, 1, f"ran with {field} = {ours}, the preset has {theirs}; run it again or change it back."


@check(
    "RES-012",
    "Records say credibly where they come from",
    why="A reader repeats a result from its commit, seed, versions and time.",
    fix="Commit first, then run with --fresh and publish.",
    severity=WARN_FROM_V1,
)
def provenance_is_credible(submission: Submission) -> Iterator[Found]:
    soon = datetime.now(UTC) + timedelta(days=1)
    for path, record in usable(submission):
        only = f"--preset {record.preset} --only {shlex.quote(record.run)}"
        only += f" --seeds {record.seed}" if _other_seed(submission, path) else ""
        again = f"'referee run {submission.name} {only} --fresh --publish'"  # without --fresh it is used again
        if not re.fullmatch(r"[0-9a-f]{40}\+?", record.git_sha):
            yield path, 1, f"names no commit; inside the repository: {again}."
        elif record.git_sha.endswith("+"):
            yield path, 1, f"was made by code that was not committed; commit first, then {again}."
        if str(record.trained.get("git_sha", "")).endswith("+"):
            yield path, 1, f"has weights trained by code that was not committed; commit first, then {again}."
        try:
            finished = datetime.fromisoformat(record.finished)
            finished = finished if finished.tzinfo else finished.replace(tzinfo=UTC)
            if finished > soon:
                yield path, 1, f"finished in the future ({record.finished[:40]}); set the clock, then {again}."
        except ValueError:
            yield path, 1, f"finished at no time ({record.finished[:40]!r}): {again}."
        trains = not (rests_on(record) or learns_nothing(submission, record))
        if (record.steps < 1 and trains) or record.wall_s <= 0:
            took = f"took {record.steps} steps and {record.wall_s} s"
            yield path, 1, f"{took}; a run that trained took some of both, one that did not names its weights."
        if not {"python", "torch", "numpy"} <= set(record.environment):
            yield path, 1, f"does not name the versions of python, torch and numpy: {again}."


@check(
    "RES-013",
    "Weights that are promised are there",
    why="Readers and the notebook continue from them.",
    fix="Publish the run named under 'weights' in project.yaml, or take it out there.",
    severity=FROM_V1,
)
def weights_are_there(submission: Submission) -> Iterator[Found]:
    for entry in submission.file.weights:
        path = submission.at(f"results/{entry}/weights.safetensors")
        if not submission.has(f"results/{entry}/weights.safetensors"):
            yield path, 1, "is missing, and project.yaml lists it under 'weights'; publish that run."


@check(
    "RES-014",
    "What lies beside a record is that run's own",
    why="Curves, pictures and weights of another run show nothing of this one.",
    fix="Publish the whole folder of each run, with 'referee run … --publish'.",
    severity=WARN_FROM_V1,
)
def files_are_the_runs_own(submission: Submission) -> Iterator[Found]:
    for name in LEFT_BY_A_RUN:
        known: dict[str, Record] = {}
        for path, record in usable(submission):
            beside = path.with_name(name)
            if learns_nothing(submission, record):
                continue  # it shows what was scored, and two runs may score the same in two ways
            try:
                content = read_bytes(beside, MAX_LEFT)
                if beside.suffix == ".safetensors" and not safetensors_header(beside, MAX_LEFT):
                    continue  # a run whose scores are no means over examples
            except Unreadable:
                continue  # RES-009 and the rules of layout and safety say so where it matters
            other = known.setdefault(hashlib.sha256(content).hexdigest(), record)
            theirs = f"{other.preset}/{other.run}"
            if theirs == f"{record.preset}/{record.run}" and other.seed != record.seed:
                what = f"is the very file of seed {other.seed}: a copy, or the seed changes nothing"
                yield beside, 1, f"{what}, and then one is enough. Publish the run again, or delete this seed."
            elif other.config != record.config:
                yield beside, 1, f"is the very file of {theirs}, a run of other settings; publish both runs again."


@check(
    "RES-015",
    "Claims are about data sets that are known, or said to be new",
    why="What a claim says freezes with the proposal, a typing error with it.",
    fix="Write the name that the registry has. A data set that the project is to add is named in the claim's note.",
)
def data_sets_are_known(submission: Submission) -> Iterator[Found]:
    known = pinned(submission.root)
    path = submission.at("project.yaml")
    line = declared(submission.text(path)).line
    for i, claim in enumerate(submission.file.claims if known else ()):
        if claim.dataset not in known and claim.dataset not in (claim.note or ""):
            what = f"claim '{claim.id}' is about '{claim.dataset}', which common/data/registry.py does not know."
            new = f"{what}{nearest(claim.dataset, known)} Correct it; if it is to be added, the claim's note names it."
            yield path, line(("claims", i, "dataset")), new


@check(
    "RES-016",
    "No value is far better than the paper's",
    why="What is better by many tolerances, or has the other sign, is more often another protocol than another result.",
    fix="Compare data, split, units, sign and protocol with the paper's. What is right stays, and the README says why.",
    severity=WARN_FROM_V1,
)
def values_are_believable(submission: Submission) -> Iterator[Found]:
    path = submission.at("project.yaml")
    line = declared(submission.text(path)).line
    places = {claim.id: i for i, claim in enumerate(submission.file.claims)}
    for v in submission.standing.verdicts:
        if v.too_good:
            what = f"claim '{v.claim}': the paper has {v.paper}, ours is {v.ours}, far better than the tolerance"
            message = (
                f"{what} ({v.tolerance:g}). Check data, units, sign and protocol, and say in the README why it is."
            )
            yield path, line(("claims", places[v.claim])), message


@check(
    "RES-017",
    "Weights taken from another project are those that it publishes",
    why="What rests on weights that nobody has any more cannot be repeated, and says nothing of those that are there.",
    fix="Put the new digest into the preset, run again and publish; or bring the old weights back.",
    severity=FROM_V1,
)
def weights_are_the_published_ones(submission: Submission) -> Iterator[Found]:
    known: dict[str, str | None] = {}
    for path, record in usable(submission):
        if not (named := rests_on(record)):
            continue
        address, digest = named
        if address not in known:
            known[address] = _published_weights(submission.root, address)
        if known[address] not in (None, digest):
            yield path, 1, f"rests on weights {digest[:12]}…, but {address} now has {known[address]:.12}…."


@check(
    "RES-018",
    "A score that is not exact has an error",
    why="An estimate says how far it may be off, or nobody can tell two of them apart.",
    fix="Give every bound and estimate a standard error in `evaluate`, analytic or by resampling; run again, publish.",
    severity=FROM_V1,
)
def estimates_have_errors(submission: Submission) -> Iterator[Found]:
    for path, record in usable(submission):
        for score in record.scores:
            if score.kind != "exact" and score.stderr is None:
                what = "a bound" if score.kind == "bound" else "an estimate"
                yield path, 1, f"the score '{score.name[:60]}' is {what} and has no standard error; run again with one."


def _published_weights(root: Path, address: str) -> str | None:
    """Their SHA-256; None where there is none to read: weights may be too large to be published."""
    project, preset, run = address.split("/")
    path = root / "projects" / project / "results" / preset / run / "weights.safetensors"
    if any(p.is_symlink() for p in (path, *path.parents[:5])):
        return None
    try:
        return hashlib.sha256(read_bytes(path, MAX_LEFT)).hexdigest()
    except Unreadable:
        return None
