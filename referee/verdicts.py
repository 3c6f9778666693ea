"""Verdicts: how each claim compares with what was measured. Computed here, typed nowhere.

A value is judged at the claim's own preset, with the errors of both sides (`referee.weighing` has the rule):

    reproduced        not clearly worse than the paper's value, and clearly not worse by more than the claim's tolerance
    within tolerance  clearly worse, and clearly by no more than the tolerance
    inconclusive      the errors leave open whether it is worse by more than the tolerance, or ours is unknown
    trend only        clearly worse by more than that, yet every ordering claim on the same metric and preset that this
                      run takes part in (at least one) is reproduced
    not reproduced    clearly worse by more than that, and no such ordering holds it up

An ordering is judged at the largest preset, no smaller than the claim's, at which all its runs are there.
Neighbours are compared through the difference of their values example by example where both kept these (the standard
error of a paired difference is far smaller than that of either value), else through the errors of the two values:

    reproduced        every step goes the claimed way, by more than two standard errors
    not reproduced    some step goes the other way, by more than two standard errors where there is one step, and a
                      little more where there are several; or, known exactly, goes the other way or is a tie
    inconclusive      neither: some difference is too close to zero for its error, or its error is unknown

Each promises the same, whatever the number of steps: in at most 2.3 % of cases a wrong order is called reproduced, or a
right one not reproduced. The first asks every step to pass, so that a wrong one has to pass by chance on its own; the
second asks any step to fail, and the more there are the more often one does by chance: `against` has the correction.

Where a run was made with several seeds, its value is their mean, and the errors cover the choice of test examples and
that of the seed (`referee.seeds` has the rule); an ordering then compares its runs through the seeds that all of them
have, seed by seed. Of a single seed the errors cover the choice of test examples alone. A score of kind "exact" without
an error (a count of units) is known exactly.

For both, *compute-limited* says that only smaller presets ran, and *not attempted* that nothing comparable did. Scores
are comparable when metric, unit, split and data set are the claim's.

A value that is better than the paper's by more than `FAR` times the tolerance, or two standard errors of the
difference where that is more, or that is better and has the other sign, is marked as too good: it is more often another
protocol than another result.

A figure is never judged here: *for a person to judge* when there is one to look at.

A verdict from a record made by other code than the present is marked stale.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Literal

import numpy as np

from common.records import PRESETS_ORDER, Record, Score
from referee.schema import Claim, FigureClaim, OrderingClaim, ValueClaim, find_metric, metric_called
from referee.seeds import Spread, over_seeds, show_seeds
from referee.weighing import ERRORS, Shortfall, errors, examples_needed, reach, seeds_needed, shortfall

Status = Literal[
    "reproduced",
    "within tolerance",
    "trend only",
    "inconclusive",
    "not reproduced",
    "compute-limited",
    "not attempted",
    "for a person to judge",
]


FAR = 3


@dataclass(frozen=True)
class Evidence:
    """A record, where it lies, the per-example values it kept, and the records of the same run with other seeds."""

    record: Record
    path: str  # of record.json, as shown to people
    examples: Mapping[str, np.ndarray] = field(default_factory=dict)
    others: tuple["Evidence", ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        """Its own first."""
        return (self.record.seed, *(other.record.seed for other in self.others))


@dataclass(frozen=True)
class Step:
    """Two neighbours in an ordering: by how much the first is better than the second."""

    better: str
    worse: str
    difference: float  # > 0: as claimed
    stderr: float | None  # None: unknown; 0: the difference is known exactly
    unit: str
    paired: bool
    n: int | None
    spread: Spread | None = None  # of the difference over seeds, where there are several

    @property
    def clear(self) -> bool:
        """Whether it goes the claimed way by more than two standard errors."""
        reach = self.reach(ERRORS)
        return reach is not None and self.difference > reach

    def reach(self, errors: float) -> float | None:
        """How far the difference may be off, allowing for so many standard errors; None where that is unknown."""
        if self.spread is not None:
            return self.spread.reach(errors)
        return None if self.stderr is None else errors * self.stderr

    def against(self, steps: int = 1) -> bool:
        """Whether it clearly goes the other way; known exactly, a tie is against too.

        Args:
            steps: how many there are in the ordering. A difference of nothing goes the other way by more than two
                standard errors in 2.3 % of cases, and one of several does in up to so many times that. So each is given
                that chance divided by their number (Bonferroni; Holm's procedure begins so, and how it begins decides
                whether any is rejected): 2.3 standard errors where there are two steps, 2.4 for three, 2.5 for four.
        """
        if self.stderr == 0:
            return self.difference <= 0
        reach = self.reach(allowed(steps))
        return reach is not None and self.difference < -reach


def allowed(steps: int) -> float:
    """Standard errors that one of so many steps may go the wrong way before it speaks against their order."""
    normal = NormalDist()
    return -normal.inv_cdf(normal.cdf(-ERRORS) / steps)


@dataclass(frozen=True)
class Verdict:
    """What a claim came to, with all that a reader needs to check it."""

    claim: str
    kind: str
    status: Status
    statement: str  # the claim in words: the source of a value, the sentence of an ordering or a figure
    source: str
    certainty: str
    metric: str | None
    unit: str | None
    paper: str
    ours: str
    protocol: str
    preset: str  # the claim's
    judged_at: str | None  # the preset that was looked at
    runs: tuple[str, ...]
    records: tuple[str, ...]
    command: str
    stale: bool
    too_good: bool = False  # far better than the paper's value
    other_data: str = ""  # ", on digits": what was looked at, where it is not the claim's data set
    notes: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    paper_value: float | None = None
    paper_stderr: float | None = None  # None: the paper states none
    tolerance: float | None = None
    shortfall: Shortfall | None = None  # of a value that was judged at the claim's preset
    value: float | None = None
    stderr: float | None = None
    n: int | None = None  # test examples, of each seed
    seeds: tuple[int, ...] = ()  # that were averaged, where there are several
    spread: Spread | None = None  # of a value over these

    @property
    def untried(self) -> bool:
        """Whether there is nothing at all to look at."""
        return self.status == "not attempted" and not self.records

    @property
    def below(self) -> bool:
        """Whether what was looked at is of a smaller preset than the claim's."""
        return self.judged_at in _smaller(self.preset)


Records = Mapping[str, Mapping[str, Evidence]]  # preset -> run -> evidence


def judge(
    project: str,
    claims: Iterable[Claim],
    records: Records,
    *,
    digest: str | None = None,
    figures: Mapping[str, str] | None = None,
) -> list[Verdict]:
    """The verdict on every claim, in order.

    Args:
        project: the paper's name, for the commands.
        records: the evidence there is.
        digest: of the code as it is now; None leaves staleness undecided (False).
        figures: figure file -> path shown, for those that exist.
    """
    claims = list(claims)
    court = _Court(project, records, digest, figures or {})
    orderings = {c.id: court.ordering(c) for c in claims if isinstance(c, OrderingClaim)}
    verdicts: list[Verdict] = []
    for claim in claims:
        if isinstance(claim, OrderingClaim):
            verdicts.append(orderings[claim.id])
        elif isinstance(claim, ValueClaim):
            trends = [
                orderings[o.id]
                for o in claims
                if isinstance(o, OrderingClaim) and claim.run in o.runs and _same(o, claim)
            ]
            verdicts.append(court.value(claim, trends))
        else:
            verdicts.append(court.figure(claim))
    return verdicts


def _same(a: OrderingClaim, b: ValueClaim) -> bool:
    return (a.metric, a.dataset, a.split) == (b.metric, b.dataset, b.split)


class _Court:
    def __init__(self, project: str, records: Records, digest: str | None, figures: Mapping[str, str]):
        self.project = project
        self.records = records
        self.digest = digest
        self.figures = figures

    # -- values --------------------------------------------------------------------------------------------------

    def value(self, claim: ValueClaim, trends: Sequence[Verdict]) -> Verdict:
        there = self.records.get(claim.preset, {}).get(claim.run)
        status: Status = "not attempted"
        notes: list[str] = []
        too_good = False
        used: Evidence | None = None
        score: Score | None = None
        short: Shortfall | None = None
        spread: Spread | None = None
        judged_at: str | None = None
        where = ""
        if there is not None:
            score, why = comparable(there.record, claim)
            used, judged_at = there, claim.preset
            if score is None:
                notes.append(f"{why}.")
            else:
                score, spread, left_out = averaged(there, score)
                short = shortfall(claim, score, spread)
                status, more = _weigh(claim, score, spread, short, trends)
                notes += more + left_out
                too_good = status == "reproduced" and _too_good(claim, score, spread)
        else:
            for preset in _smaller(claim.preset):
                if (other := self.records.get(preset, {}).get(claim.run)) is None:
                    continue
                status, used, judged_at = "compute-limited", other, preset
                score, why = comparable(other.record, claim, any_data=True)
                if score is not None:
                    score, spread, _ = averaged(other, score)
                where = other_data(other.record, claim)
                notes.append(f"Only the {preset} preset ran{where}{f': {why}' if why else ''}.")
                break
            else:
                larger = [p for p in _larger(claim.preset) if claim.run in self.records.get(p, {})]
                if larger:
                    notes.append(f"The {larger[0]} preset ran, but the claim is about {claim.preset}.")
        return Verdict(
            claim=claim.id,
            kind="value",
            status=status,
            statement=claim.source,
            source=claim.source,
            certainty=claim.certainty,
            metric=claim.metric,
            unit=claim.unit,
            paper=f"{paper_value(claim)} {claim.unit}",
            ours=show_over_seeds(score, spread, claim.direction) + where if score else "–",
            too_good=too_good,
            other_data=where,
            protocol=score.protocol if score else "",
            preset=claim.preset,
            judged_at=judged_at,
            runs=(claim.run,),
            records=_paths([used], spread) if used else (),
            command=self._command(claim.preset, [claim.run], spread),
            stale=self._stale(_all([used], spread) if used else []),
            notes=tuple(notes) + ((claim.note,) if claim.note else ()),
            paper_value=float(claim.paper_value),
            paper_stderr=None if claim.paper_stderr is None else float(claim.paper_stderr),
            tolerance=float(claim.tolerance),
            shortfall=short,
            value=score.value if score else None,
            stderr=score.stderr if score else None,
            n=score.n if score else None,
            seeds=spread.seeds if spread else (),
            spread=spread,
        )

    # -- orderings -----------------------------------------------------------------------------------------------

    def ordering(self, claim: OrderingClaim) -> Verdict:
        notes: list[str] = []
        status: Status = "not attempted"
        judged_at: str | None = None
        evidence: list[Evidence] = []
        scores: list[Score] = []
        steps: tuple[Step, ...] = ()
        spreads: list[Spread] = []
        where = ""
        largest_first = [*reversed(_larger(claim.preset)), claim.preset, *_smaller(claim.preset)]
        for preset in largest_first:
            there = self.records.get(preset, {})
            if any(run not in there for run in claim.runs):
                continue
            candidates = [there[run] for run in claim.runs]
            below = preset in _smaller(claim.preset)
            judged = [comparable(e.record, claim, any_data=below) for e in candidates]
            reasons = [f"{e.record.run}: {why}" for e, (s, why) in zip(candidates, judged, strict=True) if s is None]
            found = [s for s, _ in judged if s is not None]
            protocols = {s.protocol for s in found}
            if not reasons and len(protocols) > 1:
                reasons = [f"The runs were measured differently ({' / '.join(sorted(protocols))})"]
            evidence, judged_at = candidates, preset
            where = other_data(candidates[0].record, claim)
            if reasons:
                status = "compute-limited" if below else "not attempted"
                notes.append(f"{f'Only the {preset} preset ran{where}: ' if below else ''}{'; '.join(reasons)}.")
                break
            scores = found
            steps = tuple(
                compare(claim.metric, candidates[i], scores[i], candidates[i + 1], scores[i + 1])
                for i in range(len(scores) - 1)
            )
            if spreads := _common(candidates, scores):
                shared = any(map(_shared, candidates))
                steps = tuple(
                    over(s, spreads[i], spreads[i + 1], claim.metric, shared=shared) for i, s in enumerate(steps)
                )
                scores = [spread.of(score) for spread, score in zip(spreads, scores, strict=True)]
            if left_out := _left_out(candidates, spreads):
                notes.append(left_out)
            status, undecided = _order(steps)
            if below:
                how = undecided or f"the order {'held' if status == 'reproduced' else 'did not hold'}"
                notes.append(f"Only the {preset} preset ran{where}; there {how}.")
                status = "compute-limited"
            elif undecided:
                notes.append(f"{undecided[:1].upper()}{undecided[1:]}.")
            break
        else:
            some = [
                f"{p}: {', '.join(r for r in claim.runs if r not in self.records[p])} missing"
                for p in PRESETS_ORDER
                if any(r in self.records.get(p, {}) for r in claim.runs)
            ]
            if some:
                notes.append("Not all its runs are there (" + "; ".join(some) + ").")
        return Verdict(
            claim=claim.id,
            kind="ordering",
            status=status,
            statement=claim.statement,
            source=claim.source,
            certainty=claim.certainty,
            metric=claim.metric,
            unit=claim.unit,
            paper=claim.statement,
            ours=_ranking(claim, scores, spreads) + where if scores else "–",
            other_data=where,
            protocol=scores[0].protocol if scores else "",
            preset=claim.preset,
            judged_at=judged_at,
            runs=tuple(claim.runs),
            records=_paths(evidence, *spreads[:1]),
            command=self._command(claim.preset, claim.runs, *spreads[:1]),
            stale=self._stale(_all(evidence, *spreads[:1])),
            notes=tuple(notes) + ((claim.note,) if claim.note else ()),
            steps=steps,
            seeds=spreads[0].seeds if spreads else (),
        )

    # -- figures -------------------------------------------------------------------------------------------------

    def figure(self, claim: FigureClaim) -> Verdict:
        path = self.figures.get(claim.figure)
        parts = claim.figure.split("/")
        used: list[Evidence] = []
        if path and len(parts) == 4 and parts[0] == "results":
            made = self.records.get(parts[1], {}).get(parts[2])
            used = [made] if made else []
        command = self._command(claim.preset, [parts[2]] if len(parts) == 4 else [])
        return Verdict(
            claim=claim.id,
            kind="figure",
            status="for a person to judge" if path else "not attempted",
            statement=claim.statement,
            source=claim.source,
            certainty=claim.certainty,
            metric=None,
            unit=None,
            paper=claim.statement,
            ours=path or "–",
            protocol="",
            preset=claim.preset,
            judged_at=parts[1] if used else None,
            runs=tuple(e.record.run for e in used),
            records=tuple(e.path for e in used),
            command=command,
            stale=self._stale(used),
            notes=((claim.note,) if claim.note else ()),
        )

    def _command(self, preset: str, runs: Sequence[str], spread: Spread | None = None) -> str:
        only = f" --only {','.join(runs)}" if runs else ""
        seeds = f" --seeds {show_seeds(spread.seeds)}" if spread else ""
        return f"referee run {self.project} --preset {preset}{only}{seeds}"

    def _stale(self, evidence: Iterable[Evidence]) -> bool:
        return self.digest is not None and any(e.record.code_digest != self.digest for e in evidence)


def _all(evidence: Iterable[Evidence], spread: Spread | None = None) -> list[Evidence]:
    """What was looked at: the runs of the presets' own seeds, and those of the others that were averaged."""
    seeds = spread.seeds if spread else ()
    return [each for e in evidence for each in (e, *(other for other in e.others if other.record.seed in seeds))]


def _paths(evidence: Iterable[Evidence], spread: Spread | None = None) -> tuple[str, ...]:
    return tuple(e.path for e in _all(evidence, spread))


def averaged(evidence: Evidence, score: Score) -> tuple[Score, Spread | None, list[str]]:
    """A score as the mean over seeds, its spread over them, and which seeds cannot be counted, a note each.

    The score itself and None where only the preset's own seed has it.

    Args:
        score: of the record of the preset's own seed.
    """
    found = scores_by_seed(evidence, score)
    missing = [seed for seed in evidence.seeds if seed not in found]
    notes = [f"Measured otherwise, and not counted: {_named(missing)}."] if missing else []
    spread = over_seeds(found, shared=_shared(evidence)) if len(found) > 1 else None
    return (spread.of(score) if spread else score), spread, notes


def all_scores(evidence: Evidence) -> list[tuple[Score, Spread | None]]:
    """Every score of a run, as the mean over its seeds where there are several."""
    return [averaged(evidence, score)[:2] for score in evidence.record.scores]


def scores_by_seed(evidence: Evidence, score: Score) -> dict[int, Score]:
    """What a score of a run's own seed is with each of its seeds: where it was measured alike, on the same data."""

    def what(s: Score) -> tuple[object, ...]:
        return s.name, s.split, s.weights, s.unit, s.kind, s.protocol

    found = {evidence.record.seed: score}
    for other in evidence.others:
        there = next((s for s in other.record.scores if what(s) == what(score)), None)
        if there is not None and other.record.data_sha256 == evidence.record.data_sha256:
            found[other.record.seed] = there
    return found


def _common(candidates: Sequence[Evidence], scores: Sequence[Score]) -> list[Spread]:
    """Each run's spread over the seeds that all of them have; [] where these are fewer than two."""
    found = [scores_by_seed(e, s) for e, s in zip(candidates, scores, strict=True)]
    common = sorted(set.intersection(*(set(each) for each in found)))
    if len(common) < 2:
        return []
    return [
        over_seeds({seed: each[seed] for seed in common}, shared=_shared(e))
        for e, each in zip(candidates, found, strict=True)
    ]


def _shared(evidence: Evidence) -> bool:
    """Whether all seeds of a run are scored on the same examples: not where it names no data set, and draws its own."""
    return bool(evidence.record.data_sha256)


def _left_out(candidates: Sequence[Evidence], spreads: Sequence[Spread]) -> str:
    """Which seeds an ordering does not count, since not all of its runs have them."""
    counted = set(spreads[0].seeds) if spreads else {e.record.seed for e in candidates}
    others = sorted({seed for e in candidates for seed in e.seeds} - counted)
    return (
        f"Not counted, since not all of these runs have a comparable score of it: {_named(others)}." if others else ""
    )


def _named(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def over(step: Step, better: Spread, worse: Spread, metric: str, *, shared: bool = True) -> Step:
    """A step between the runs of two presets' own seeds, as one between the means over the same seeds of both.

    The difference is taken seed by seed; its error over test examples, if seeds share any, is that of the step.
    """
    sign = -1.0 if metric_called(metric).direction == "lower" else 1.0
    differences = tuple(sign * (a - b) for a, b in zip(better.values, worse.values, strict=True))
    spread = Spread(better.seeds, differences, step.stderr if shared else 0.0)
    return replace(step, difference=spread.mean, stderr=spread.stderr, spread=spread)


def other_data(record: Record, claim: ValueClaim | OrderingClaim) -> str:
    """', on digits' when a record is about other data than the claim; '' when it is about the same."""
    if not record.data_sha256 or claim.dataset in record.data_sha256:
        return ""
    return f", on {', '.join(record.data_sha256)}"


def comparable(
    record: Record, claim: ValueClaim | OrderingClaim, *, any_data: bool = False
) -> tuple[Score | None, str]:
    """The record's score that a claim is about; None and the reason when there is none.

    Args:
        any_data: accept other data than the claim's, to say what came out on a smaller preset.
    """
    if (data := other_data(record, claim)) and not any_data:
        return None, f"It ran{data.removeprefix(',')}, the claim is about {claim.dataset}: not comparable"
    named = [s for s in record.scores if s.name == claim.metric]
    on_split = [s for s in named if s.split == claim.split]
    if not on_split:
        has = ", ".join(f"{s.name} ({s.split})" for s in record.scores) or "no score"
        return None, f"It has no score '{claim.metric}' on the {claim.split} split; it has {has}"
    score = next((s for s in on_split if s.weights == "raw"), on_split[0])
    if score.unit != claim.unit:
        return None, f"Its '{claim.metric}' is in {score.unit}, the claim is in {claim.unit}"
    return score, ""


def compare(metric: str, a: Evidence, score_a: Score, b: Evidence, score_b: Score) -> Step:
    """By how much run `a` is better than run `b`, paired example by example where that is possible."""
    sign = -1.0 if metric_called(metric).direction == "lower" else 1.0
    x, y = _examples(a, score_a), _examples(b, score_b)
    same_data = a.record.data_sha256 == b.record.data_sha256
    if x is not None and y is not None and x.shape == y.shape and len(x) > 1 and same_data:
        d = sign * (x - y)
        stderr = float(d.std(ddof=1) / math.sqrt(len(d)))
        return Step(a.record.run, b.record.run, float(d.mean()), stderr, score_a.unit, True, len(d))
    difference = sign * (score_a.value - score_b.value)
    error_a, error_b = _error(score_a), _error(score_b)
    error = None if error_a is None or error_b is None else math.hypot(error_a, error_b)
    return Step(a.record.run, b.record.run, difference, error, score_a.unit, False, None)


def _error(score: Score) -> float | None:
    return 0.0 if score.stderr is None and score.kind == "exact" else score.stderr


def _examples(evidence: Evidence, score: Score) -> np.ndarray | None:
    """Per-example values that belong to a score: finite, as many as it says, and their mean is its value."""
    values = evidence.examples.get(score.name)
    if values is None or values.ndim != 1 or len(values) != score.n:
        return None
    values = values.astype(np.float64)
    return values if math.isclose(values.mean(), score.value, rel_tol=1e-4, abs_tol=1e-4) else None


def _weigh(
    claim: ValueClaim, score: Score, spread: Spread | None, short: Shortfall, trends: Sequence[Verdict]
) -> tuple[Status, list[str]]:
    """What a value comes to, and what there is to say of it."""
    outcome = short.outcome
    if outcome == "inconclusive":
        return outcome, [_what_it_takes(claim, score, spread)]
    if outcome != "further off":
        if not short.near and short.high is not None and short.high < -short.tolerance:
            return outcome, ["Better than claimed by more than the tolerance: check the protocol."]
        return outcome, []
    here = [t for t in trends if t.judged_at == claim.preset]
    if here and all(t.status == "reproduced" for t in here):
        return "trend only", [f"The order holds: {', '.join(t.claim for t in here)}."]
    return "not reproduced", []


def _what_it_takes(claim: ValueClaim, score: Score, spread: Spread | None) -> str:
    """Why a value is inconclusive, and what would settle it."""
    if score.stderr is None and score.kind != "exact":
        return "Its error is unknown: without one nothing can be said."
    if spread is not None and (seeds := seeds_needed(claim, score, spread)) is not None:
        many = f"some {seeds} seeds in place of {len(spread.seeds)}"
        return f"The tolerance lies within the errors. It would take {many}."
    needed = examples_needed(claim, score, spread)
    if needed is None and spread is not None:
        return "The tolerance lies within the errors, and neither more seeds nor more examples alone settle it."
    if needed is None:
        return "The tolerance lies within the errors, and no number of examples settles it: the paper's are too large."
    step = 10 ** (math.floor(math.log10(needed)) - 1)  # two digits, rounded up
    many = f"some {math.ceil(needed / step) * step:,.0f}" if needed < 1e9 else "more than a thousand million"
    return f"The tolerance lies within the errors. It would take {many} examples in place of {score.n:,}."


def _too_good(claim: ValueClaim, score: Score, spread: Spread | None) -> bool:
    """Whether a value is so much better than the paper's that the protocol is the first thing to look at."""
    paper, tolerance = float(claim.paper_value), float(claim.tolerance)
    if claim.direction == "near":
        return False
    better_by = paper - score.value if claim.direction == "lower" else score.value - paper
    ours, papers, _ = errors(claim, score, spread)
    return better_by > FAR * max(tolerance, math.hypot(reach(ours or 0, spread), ERRORS * papers)) or (
        better_by > tolerance and paper * score.value < 0
    )


def _order(steps: Sequence[Step]) -> tuple[Status, str]:
    """What an ordering's steps come to; and, where it is inconclusive, which pairs are not told apart."""
    if all(s.clear for s in steps):
        return "reproduced", ""
    if any(s.against(len(steps)) for s in steps):
        return "not reproduced", ""

    def named(found: Iterable[Step]) -> str:
        return ", ".join(f"{s.better} and {s.worse}" for s in found)

    by_chance = f"{allowed(len(steps)):.1f} standard errors, as one of {len(steps)} steps may by chance"
    known = [s for s in steps if s.stderr is not None]
    why = {
        "not told apart by two standard errors": [s for s in known if not s.clear and not s.against()],
        f"the wrong way by more than two but less than {by_chance}": [s for s in known if s.against()],
        "not told apart, their errors being unknown": [s for s in steps if s.stderr is None],
    }
    return "inconclusive", "; ".join(f"{text}: {named(found)}" for text, found in why.items() if found)


def _smaller(preset: str) -> list[str]:
    """Presets smaller than this one, the largest first."""
    return list(reversed(PRESETS_ORDER[: PRESETS_ORDER.index(preset)]))


def _larger(preset: str) -> list[str]:
    """Presets larger than this one, the smallest first."""
    return list(PRESETS_ORDER[PRESETS_ORDER.index(preset) + 1 :])


# -- How numbers are shown ---------------------------------------------------------------------------------------------


def minus(text: str) -> str:
    """A leading hyphen as a minus sign."""
    return "−" + text[1:] if text.startswith("-") else text


def show(value: float, stderr: float | None = None) -> str:
    """A value to the places its error allows (two digits of the error): '84.78 ± 0.23'."""
    if stderr:
        places = min(6, max(0, 1 - math.floor(math.log10(stderr))))
        return f"{minus(f'{value:.{places}f}')} ± {stderr:.{places}f}"
    if float(value).is_integer() and abs(value) < 1e6:
        return minus(str(int(value)))
    return minus(f"{value:.5g}")


def show_score(score: Score, direction: str | None = None) -> str:
    """A score with its error; a bound is marked as one: the exact value is at most, or at least, this.

    Args:
        direction: which way is better, the metric's own when not given.
    """
    if direction is None and (metric := find_metric(score.name)):
        direction = metric.direction
    mark = {"lower": "≤ ", "higher": "≥ "}.get(direction or "", "bound ") if score.kind == "bound" else ""
    return mark + show(score.value, score.stderr)


def paper_value(claim: ValueClaim) -> str:
    """What the paper prints, and its standard error where it states one: '−1366.9 ± 0.7'."""
    error = f" ± {claim.paper_stderr}" if claim.paper_stderr else ""
    return f"{minus(str(claim.paper_value))}{error}"


def show_shortfall(short: Shortfall, unit: str) -> str:
    """'worse by 0.12 nats, between 0.43 better and 0.66 worse; tolerance 1.5'."""
    half = 0.0 if short.high is None else short.high - short.by
    places = min(9, max(0, 1 - math.floor(math.log10(half)))) if half else None

    def number(value: float) -> str:
        return f"{abs(value):.5g}" if places is None else f"{abs(value):.{places}f}"

    word = "off" if short.near else "worse" if short.by > 0 else "better"
    amount = number(short.by)
    said = f"{word} by {amount} {unit.removesuffix('s') if amount == '1' else unit}" if short.by else "equal"
    if short.low is None or short.high is None:
        said += ", error unknown"
    elif half:
        low, high = number(short.low), number(short.high)
        if short.near:
            said += f", by at most {high}" if short.low <= 0 else f", between {low} and {high}"
        elif short.low < 0 < short.high:
            said += f", between {low} better and {high} worse"
        else:
            said += f", between {min(low, high, key=float)} and {max(low, high, key=float)}"
    return f"{said}; tolerance {short.tolerance:g}"


def _bare(score: Score) -> str:
    """The value to the places its error allows, without the error."""
    return show(score.value, score.stderr).partition(" ")[0]


def show_over_seeds(score: Score, spread: Spread | None, direction: str | None = None) -> str:
    """'≤ 84.90 ± 0.12 nats', with '(84.71 to 85.10, 5 seeds)' behind it where it is a mean over several."""
    said = f"{show_score(score, direction)} {score.unit}"
    return f"{said} ({show_spread(spread)})" if spread else said


def show_spread(spread: Spread) -> str:
    """'84.71 to 85.10, 5 seeds': the least and the most, to the places that the error of the mean allows."""
    least, most = (show(end(spread.values), spread.stderr).partition(" ")[0] for end in (min, max))
    count = f"{len(spread.seeds)} seeds"
    return f"{count}, all alike" if min(spread.values) == max(spread.values) else f"{least} to {most}, {count}"


def _ranking(claim: OrderingClaim, scores: Sequence[Score], spreads: Sequence[Spread]) -> str:
    parts = [f"{claim.runs[0]} {_bare(scores[0])}"]
    for run, before, score in zip(claim.runs[1:], scores, scores[1:], strict=False):
        sign = "<" if before.value < score.value else ">" if before.value > score.value else "="
        parts.append(f"{sign} {run} {_bare(score)}")
    means = f" (means over {len(spreads[0].seeds)} seeds)" if spreads else ""
    return " ".join(parts) + f" {claim.unit}{means}"


def show_step(step: Step) -> str:
    """'k5 better than k1 by 0.29 ± 0.05 nats (paired, n = 500)', or '(paired, n = 500, 5 seeds)'."""
    facts = [f"paired, n = {step.n:,}"] if step.paired else ["error unknown"] if step.stderr is None else []
    facts += [f"{len(step.spread.seeds)} seeds"] if step.spread else []
    how = f" ({', '.join(facts)})" if facts else ""
    if step.difference == 0:
        return f"{step.better} equals {step.worse}{how}"
    word = "better" if step.difference > 0 else "worse"
    amount = show(abs(step.difference), step.stderr)
    unit = step.unit.removesuffix("s") if amount == "1" else step.unit
    return f"{step.better} {word} than {step.worse} by {amount} {unit}{how}"
