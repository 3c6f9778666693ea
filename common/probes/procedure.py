"""Probes of procedures: does a score depend on how it was computed, or a training run on how often it was stopped?"""

import random
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from common.errors import ConfigError, UserError
from common.probes.result import Findings, ProbeResult, rounding

ScoreFn = Callable[[Tensor, int], Tensor | float]
"""(x (N, ...), batch size) -> the score of all N examples, or their N values in order."""


def per_example(function: Callable[[Tensor], Tensor]) -> ScoreFn:
    """For `invariance`: a function x (B, ...) -> (B,), called batch by batch, its values joined."""
    return lambda x, size: torch.cat([function(batch) for batch in torch.split(x, size)])


def batch_mean(loss: Callable[[Tensor], Tensor]) -> ScoreFn:
    """For `invariance`: a loss x (B, ...) -> mean over its batch, (), averaged with the batches' sizes as weights.

    A loss that is a mean over examples gives the same number for any batch size. One whose terms are weighted by the
    batch size (a KL divided by B a second time) does not.
    """

    def score(x: Tensor, size: int) -> Tensor:
        return torch.stack([loss(batch) * (len(batch) / len(x)) for batch in torch.split(x, size)]).sum()

    return score


def invariance(
    score: ScoreFn,
    x: Tensor,
    *,
    order: bool = True,
    tolerance: float | None = None,
) -> ProbeResult:
    """The score does not depend on batch size, order, or a short last batch.

    Computed with all N examples in one batch, then one by one, with sizes that leave a short last batch (a single
    example in the worst case), and, unless `order` is false, for x reversed and shuffled; per-example values must be
    permuted like x. A mean of batch means, a dropped or padded last batch, batch statistics, and a term divided by
    the batch size are all found.
    Tolerance: rounding of the type returned, 100 units in the last place (float32: 1e-5 relative), because kernels
    sum in another order for another batch size. The examples' own scores must differ by more than 1000 times that,
    else the probe fails as inconclusive. Cost: about 7 N + N evaluated examples.

    The score must be deterministic. A stochastic one needs its noise to belong to the example and not to the batch:
    draw it in advance and let it be a part of x (`x = cat([images, noise], 1)`), or with one generator per
    example; with noise by position rather than by content pass `order=False`.

    Args:
        score: (x, batch size) -> () or (N,); see `per_example` and `batch_mean` for functions of one batch.
        x: (N, ...) different examples, N >= 5.

    Raises:
        ConfigError: fewer than five examples.
    """
    n = len(x)
    if n < 5:
        raise ConfigError(f"{n} examples leave no room for several batches and a short last one; use 5 or more.")
    with Findings("invariance", "the score does not depend on batch size, order, or a short last batch") as found:
        kept = x.clone()

        def evaluate(examples: Tensor, size: int, like: tuple[int, ...] | None) -> Tensor:
            with torch.no_grad():
                value = torch.as_tensor(score(examples, size)).detach().cpu()
            if like is not None and tuple(value.shape) != like:
                raise found.broken(f"with batches of {size} the score has shape {tuple(value.shape)}, not {like}")
            return value

        whole = evaluate(x, n, None)
        found.unchanged(kept, x, "the score")
        shape = tuple(whole.shape)
        if shape not in ((), (n,)):
            raise found.broken(f"the score has shape {shape}; a single number or ({n},) is expected")
        if not torch.equal(whole, evaluate(kept, n, shape)):
            raise found.broken("the score differs between two equal calls: its noise must belong to the examples")
        dtype = whole.dtype if isinstance(score(kept, n), Tensor) else torch.float32
        whole = whole.double()
        size_of_score = float(whole.abs().max())
        allowed = rounding(dtype, size_of_score) if tolerance is None else tolerance
        alone = torch.stack([evaluate(kept[i : i + 1], 1, shape and (1,)).double().reshape(()) for i in range(n)])
        spread = float(alone.max() - alone.min())
        found.numbers |= {"n": n, "spread": spread, "tolerance": allowed}
        found.expect(spread > 1000 * allowed, "inconclusive: the examples' scores hardly differ; use others")

        worst = 0.0

        def compare(examples: Tensor, size: int, wanted: Tensor, what: str) -> None:
            nonlocal worst
            error = float((evaluate(examples, size, shape).double() - wanted).abs().max())
            worst = max(worst, error)
            found.expect(error <= allowed, f"{what} the score is off by {error:.4g}")

        sizes = sorted({1, n // 2, n // 2 + 1, n - 1} - {n})
        for size in sizes:
            last = n % size or size
            compare(kept, size, whole, f"with batches of {size} (the last of {last})")
        if order:
            shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(0))
            for name, index in (("reversed", torch.arange(n).flip(0)), ("shuffled", shuffled)):
                wanted = whole[index] if shape else whole
                index = index.to(x.device)
                compare(kept[index], n, wanted, f"with x {name}")
                compare(kept[index], n - 1, wanted, f"with x {name} and batches of {n - 1}")
        found.numbers["max_error"] = worst
    return found.result()


class _Killed(BaseException):
    """Sudden death, as far as one process can play it: no handler for ordinary errors sees it."""


def resume(
    train: Callable[[Path], Mapping[str, Tensor] | nn.Module],
    *,
    files: tuple[str, ...] = ("metrics.jsonl",),
    seed: int = 0,
) -> ProbeResult:
    """Interrupted and resumed = never interrupted, to the bit.

    The probe interrupts any training that calls `torch.optim` optimisers, from outside: after the a-th optimiser
    update the process is sent SIGTERM (a checkpoint is expected); the next session continues and, some updates later,
    dies suddenly in the middle of an update (nothing more is saved); a last session runs to the end. That for a = 1,
    half of all updates, and the last but one, each in a fresh directory. Required:
      - two runs that nobody interrupts agree (otherwise there is nothing to compare with);
      - every tensor, and every file in `files` that the uninterrupted run leaves, is the same to the bit;
      - the last session makes no update that was saved: starting over is not resuming.
    Exact, no tolerance. Cost: five complete runs and some repeated updates; the instance should take 4 to 20 updates.
    Call from the main thread, on one process. A kill within the writing of a checkpoint is not played here.

    Args:
        train: directory -> all that must agree: a module, or tensors by name (averaged weights, optimiser state, ...).
            Trains to the end from whatever the directory holds. For a paper:
            `lambda d: paper.train(config, Run(d, torch.device("cpu"), {}, seed=0, progress=False))`.
        files: names in the directory that must be the same, byte for byte.
        seed: torch's global seed at the start of each session, as `execute` sets it.

    Raises:
        ConfigError: fewer than four optimiser updates, so there is nowhere to interrupt.
    """
    with (
        Findings("resume", "interrupted and resumed = never interrupted, to the bit") as found,
        tempfile.TemporaryDirectory(prefix="probe-resume-") as root,
        _random_state(),
    ):
        here = Path(root)
        wanted, total, _ = _session(train, here / "reference", seed)
        assert wanted is not None
        if total < 4:
            raise ConfigError(f"training makes {total} optimiser updates; four or more are needed to interrupt it.")
        found.numbers["updates"] = total
        again, _, _ = _session(train, here / "again", seed)
        assert again is not None
        if difference := _difference(wanted, again) or _differing(here / "reference", here / "again", files):
            raise found.broken(f"two runs that nobody interrupted differ in {difference}: training is not repeatable")
        identical = 0
        moments = sorted({1, total // 2, total - 1})
        for moment in moments:
            complaints = _interrupted_run(train, here, moment, total, wanted, files, seed)
            identical += not complaints
            found.complaints += complaints
        found.numbers["identical"] = f"{identical} of {len(moments)}"
    return found.result()


def _interrupted_run(
    train: Callable[[Path], Mapping[str, Tensor] | nn.Module],
    here: Path,
    moment: int,
    total: int,
    wanted: dict[str, Tensor],
    files: tuple[str, ...],
    seed: int,
) -> list[str]:
    """One run stopped after update `moment`, then killed, then finished; what is wrong with it."""
    directory = here / f"stopped-{moment}"
    finished, saved, end = _session(train, directory, seed, stop=moment)
    if finished is not None:
        return [f"SIGTERM at update {moment} of {total} does not stop training"]
    remaining = total - saved
    if remaining > 1:
        finished, _, _ = _session(train, directory, seed, kill=1 + remaining // 2)
    finished, made, _ = _session(train, directory, seed)
    assert finished is not None
    complaints = []
    if isinstance(end, _Killed):
        complaints.append(f"SIGTERM at update {moment} of {total} ends training without a checkpoint")
    elif made > remaining:
        complaints.append(
            f"stopped after update {saved} of {total}, the last session makes {made} updates, not {remaining}"
        )
    if difference := _difference(wanted, finished):
        complaints.append(f"interrupted at update {moment} of {total}, it ends with another {difference}")
    if difference := _differing(here / "reference", directory, files):
        complaints.append(f"interrupted at update {moment} of {total}, it leaves another {difference}")
    return complaints


def _session(
    train: Callable[[Path], Mapping[str, Tensor] | nn.Module],
    directory: Path,
    seed: int,
    stop: int | None = None,
    kill: int | None = None,
) -> tuple[dict[str, Tensor] | None, int, BaseException | None]:
    """One call of train: (what it returns or None, optimiser updates made, what ended it)."""
    updates = 0

    def after_update(*_: Any) -> None:
        nonlocal updates
        updates += 1
        if updates == stop:
            signal.raise_signal(signal.SIGTERM)
        if updates == kill:
            raise _Killed

    def unhandled(number: int, frame: FrameType | None) -> None:
        raise _Killed  # training has no handler of its own: it would have died here

    directory.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    previous = signal.signal(signal.SIGTERM, unhandled)
    hook = register_optimizer_step_post_hook(after_update)
    try:
        result = train(directory)
    except (_Killed, UserError) as end:
        if stop is None and kill is None:
            raise  # nobody interrupted: the subject's own failure
        return None, updates, end
    finally:
        hook.remove()
        signal.signal(signal.SIGTERM, previous)
    tensors = result.state_dict() if isinstance(result, nn.Module) else result
    return {name: value.detach().cpu().clone() for name, value in tensors.items()}, updates, None


@contextmanager
def _random_state() -> Iterator[None]:
    """Leave torch's and Python's global random numbers as they were."""
    python = random.getstate()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)


def _difference(wanted: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> str:
    """The first tensor that is not the same to the bit, or ''."""
    if wanted.keys() != got.keys():
        return f"set of tensors ({', '.join(sorted(wanted.keys() ^ got.keys()))})"
    for name, a in wanted.items():
        b = got[name]
        same = a.dtype == b.dtype and a.shape == b.shape
        if not same or not torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8)):
            return f"'{name}'"
    return ""


def _differing(wanted: Path, got: Path, files: tuple[str, ...]) -> str:
    """The first file that is not the same to the byte, or ''."""
    for name in files:
        first, second = wanted / name, got / name
        if not first.exists():
            continue
        if not second.exists() or first.read_bytes() != second.read_bytes():
            return name
    return ""
