"""What `project.yaml` may say: the data model, and the metrics a claim may be about.

`python -m referee.schema` writes the model as JSON Schema to `referee/project.schema.json`, which editors use to
complete and check a file while it is typed. `referee.loading` reads files and reports what is wrong with them.
"""

import json
import re
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from common.errors import nearest
from common.evaluation.metrics import OF_SAMPLES, OTHERS
from common.records import PRESETS_ORDER
from referee.documents import pattern, refuse


class Metric(NamedTuple):
    """A quantity that a claim may be about."""

    unit: str
    direction: Literal["lower", "higher"]  # which way is better
    what: str


METRICS: dict[str, Metric] = {
    "nll": Metric("nats", "lower", "negative log-likelihood of an example, −log p(x)"),
    "elbo": Metric("nats", "higher", "evidence lower bound of an example, E_q[log p(x,z) − log q(z|x)]"),
    "elbo_train": Metric("nats", "higher", "evidence lower bound of a training example"),
    "iwae_bound": Metric("nats", "higher", "importance-weighted bound L_k of an example"),
    "log_density": Metric("nats", "higher", "log-density of an example in the space that the protocol names"),
    "bits_per_dim": Metric("bits/dim", "lower", "negative log2-likelihood per dimension"),
    "rate": Metric("bits/dim", "lower", "bits that a progressive code sends before the last, lossless step"),
    "distortion": Metric("bits/dim", "lower", "bits of the last step of a progressive code, which make it lossless"),
    "active_units": Metric("units", "higher", "latent units whose posterior mean varies with x"),
    "reconstruction_error": Metric("MSE", "lower", "squared error of a pixel in [0, 1], encoded and decoded again"),
    "dual_value": Metric(
        "distance", "higher", "Wasserstein distance that a critic has found, D(x) − D(G(z)) per slope"
    ),
    "gradient_decades": Metric(
        "decades", "lower", "powers of ten between a critic's largest and smallest layer gradient"
    ),
    "weights_at_extremes": Metric("share", "lower", "weights within 1 % of the largest magnitude in their layer"),
    "loss_quality": Metric("rank correlation", "higher", "Spearman's, of negative critic loss and Fréchet distance"),
    "latent_distance": Metric("ratio", "lower", "distance of two samplers' images of one latent over that of others"),
    "parzen": Metric("nats", "higher", "log-density of an example under Gaussian windows around samples"),
    "nll_cost": Metric("nats", "lower", "what a change of the model adds to the NLL of an example, the most of all"),
    "self_neighbour": Metric("share", "higher", "altered training images whose nearest training image is their own"),
    "bdmc_gap": Metric("nats", "lower", "gap of upper and lower bound on the log-likelihood of simulated data"),
    "bound_gap_growth": Metric("nats", "higher", "how much more a bound misses on test than on training examples"),
    "fd_true": Metric("squared units", "lower", "Fréchet distance of two distributions with known moments"),
    "code_bias": Metric("levels", "lower", "how much brighter bytes are than the real numbers they come from"),
    "codes_broken": Metric("codes", "lower", "of 256 codes, those that come back as others from real numbers"),
    **{name: Metric(*meaning) for name, meaning in OTHERS.items()},
}
"""Known metrics. A new one is added here, with its unit and its better direction, before a claim can use it."""

METRIC_NAMES = tuple(METRICS)

OF_A_NETWORK = rf"({'|'.join(OF_SAMPLES)})\[([a-z0-9][a-z0-9_.-]{{0,40}}(?:@[0-9a-f]{{8}})?)\]"
"""A metric of samples says by which network: "fd[lenet-mnist@a24bccc1]"; the digits begin its weights' SHA-256."""


def find_metric(name: str) -> Metric | None:
    """The metric of that name: one of `METRICS`, or one of samples by any network; None when there is none."""
    if found := re.fullmatch(OF_A_NETWORK, name):
        unit, direction, what = OF_SAMPLES[found[1]]
        network = found[2]
        known = " (what papers call FID)" if found[1] == "fd" and network.startswith("inception-") else ""
        return Metric(unit, direction, f"{what}, in the features of {network}{known}")
    return METRICS.get(name)


def metric_called(name: str) -> Metric:
    """The metric of a name that is known to be one's: a claim's, or a score's that was looked for."""
    if (metric := find_metric(name)) is None:
        raise KeyError(name)
    return metric


def _number(value: object) -> object:
    # Numbers stay decimals: 87.10 was printed to two places, and a float would forget that.
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        shown = repr(value) if isinstance(value, str) else type(value).__name__
        raise refuse("unreadable_number", f"{shown} is not a number")
    number = Decimal(str(value))
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -12 or abs(number.adjusted()) > 12:
        raise refuse("unreadable_number", f"{str(value)[:20]} has more places than any paper prints")
    return number


def _metric(name: str) -> str:
    if find_metric(name) is None:
        hint = nearest(name, METRIC_NAMES)
        known = ", ".join((*METRIC_NAMES, *(f"{name}[<network>@<digest>]" for name in OF_SAMPLES)))
        raise refuse("unknown_name", f"unknown metric '{name[:64]}'.{hint} Known: {known}")
    return name


def _inside(path: str) -> str:
    if path.startswith(("/", "\\", "~")) or ".." in re.split(r"[/\\]", path) or ":" in path:
        raise refuse("unsafe", f"'{path}' is not a path inside the project's folder")
    return path


def _day(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise refuse("contradiction", "a date is written like 2026-12-01")
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise refuse("contradiction", f"{value} is not in the calendar") from None


Day = Annotated[date, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
Number = Annotated[Decimal, BeforeValidator(_number), WithJsonSchema({"type": "number"})]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
Slug = Annotated[
    str, pattern(r"^[a-z0-9][a-z0-9-]{0,63}$", "it is made of small letters, digits and hyphens, like nll-k50")
]
Name = Annotated[str, pattern(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", "it is made of letters, digits and . _ -")]
Handle = Annotated[
    str, pattern(r"^[A-Za-z0-9][A-Za-z0-9-]{0,38}$", "it is a public handle: letters, digits and hyphens")
]
InsidePath = Annotated[str, StringConstraints(min_length=1, max_length=300), AfterValidator(_inside)]
MetricName = Annotated[
    str,
    AfterValidator(_metric),
    WithJsonSchema({"anyOf": [{"enum": list(METRIC_NAMES)}, {"type": "string", "pattern": f"^{OF_A_NETWORK}$"}]}),
]
Preset = Literal["smoke", "laptop", "workstation", "paper"]
assert Preset.__args__ == PRESETS_ORDER  # type: ignore[attr-defined]
Direction = Literal["lower", "higher", "near"]


class Part(BaseModel):
    """Anything in the file: unknown fields are errors, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Paper(Part):
    """The paper that is implemented."""

    title: Text
    authors: Annotated[list[Text], Field(min_length=1)]
    venue: Text
    year: Annotated[int, Field(ge=1900, le=2100)]
    arxiv: Annotated[str, pattern(r"^[0-9]{4}\.[0-9]{4,5}$", 'it is the number alone, like "1509.00519"')] | None = None
    """The number alone, in quotes: "1509.00519"."""


class Member(Part):
    """Somebody of the team, by public handle."""

    handle: Handle
    role: Text


class _Claim(Part):
    id: Slug
    source: Text
    """Where the paper says so: "Table 1, IWAE, 1 stochastic layer, k=50"."""
    certainty: Literal["seen", "mem"]
    """How surely the published value is known: "seen" in the paper or a copy of its table, or from memory ("mem")."""
    dataset: Name
    preset: Preset
    """The preset the claim is about; for an ordering, the smallest at which it may be judged."""
    note: Text | None = None
    """What a reader should know about this claim."""


class ValueClaim(_Claim):
    """The paper prints a number."""

    kind: Literal["value"]
    metric: MetricName
    unit: Text = "nats"
    split: Literal["train", "val", "test"] = "test"
    run: Name
    paper_value: Number
    direction: Direction
    """Which way is better; "near" where neither is, as for a count that describes a model."""
    tolerance: Annotated[Number, Field(ge=0)]
    """How much worse than the paper (for "near": how far from it) still counts as within tolerance, in its unit."""
    paper_stderr: Annotated[Number, Field(ge=0)] | None = None
    """The paper's standard error, in the value's unit, where it states one. Papers often print two of them, or the
    spread over runs: convert it, and say in the note what is printed."""


class OrderingClaim(_Claim):
    """The paper says what is better than what."""

    kind: Literal["ordering"]
    statement: Text
    metric: MetricName
    unit: Text = "nats"
    split: Literal["train", "val", "test"] = "test"
    runs: Annotated[list[Name], Field(min_length=2)]
    """Best first."""


class FigureClaim(_Claim):
    """The paper shows something that only a person can compare."""

    kind: Literal["figure"]
    statement: Text
    figure: InsidePath
    """The file that shows it here, relative to the project's folder."""


Claim = Annotated[ValueClaim | OrderingClaim | FigureClaim, Field(discriminator="kind")]


class Amendment(Part):
    """A claim that was added, changed or removed after the proposal was accepted. What is listed here stays."""

    claim: Slug
    """The claim's id."""
    date: Day
    change: Literal["added", "changed", "removed"]
    reason: Text
    """Why, for a reader who knows the claim."""


class Deviation(Part):
    """Something done differently from the paper."""

    where: Text
    paper: Text
    ours: Text
    effect: Text


class Borrowed(Part):
    """Code that is not the team's own."""

    path: InsidePath
    source: Text
    licence: Text
    what: Text


class Needs(Part):
    """What one run of a preset wants of a scheduler; flags of `referee run --on` win, and defaults fill the rest."""

    gpus: Annotated[int, Field(ge=0, le=64)] | None = None
    cpus: Annotated[int, Field(ge=1, le=256)] | None = None
    """Cores of each process; with several GPUs there is a process for each."""
    memory_gb: Annotated[Number, Field(gt=0)] | None = None
    minutes: Annotated[int, Field(ge=1)] | None = None
    """At a stretch: a run that takes longer saves, is queued again and continues."""


class Compute(Part):
    """What the results took, and what a scheduler is asked for."""

    hardware: Text
    wall_hours: Annotated[Number, Field(ge=0)] | None = None
    note: Text | None = None
    presets: dict[Text, Needs] = {}
    """preset -> what each of its runs wants."""


class ProjectFile(Part):
    """`project.yaml`: a paper, who implements it, what it claims, and what was done differently."""

    stage: Literal["proposed", "v1", "v2", "published"]
    family: Slug
    paper: Paper
    team: Annotated[list[Member], Field(min_length=1)]
    licence: Text
    probes: list[Name] = []
    """Checks of the mathematics that apply; the paper's module offers a tiny instance of each."""
    weights: list[
        Annotated[str, pattern(r"^[a-z]+/[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", "it is preset/run, like laptop/k50")]
    ] = []
    """Runs whose weights are published, as "preset/run"."""
    claims: Annotated[list[Claim], Field(min_length=1)]
    """Fixed when the proposal is accepted; from then on a change needs an amendment."""
    amendments: list[Amendment] = []
    """Oldest first; none is ever taken away."""
    deviations: list[Deviation] = []
    borrowed: list[Borrowed] = []
    compute: Compute | None = None


SCHEMA_FILE = Path(__file__).with_name("project.schema.json")


def schema_text(model: type[BaseModel], title: str) -> str:
    """A model as JSON Schema, as the text of a file."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema(), "title": title}
    return json.dumps(schema, indent=1) + "\n"


def json_schema() -> str:
    """The model of `project.yaml` as JSON Schema, as text."""
    return schema_text(ProjectFile, "project.yaml")


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json_schema(), encoding="utf-8")
