"""Scores that depend on how they are computed, and training that does not survive an interruption."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from common.errors import ConfigError, UserError
from common.experiment import Run
from common.probes import batch_mean, invariance, per_example, resume
from common.probes.result import ProbeResult
from common.training import EMA, State, fit, sgd_step


def assert_caught(result: ProbeResult, words: str) -> None:
    assert not result.passed, result
    assert words in result.detail, result


# invariance ------------------------------------------------------------------------------------------------------


def examples(seed: int = 0) -> Tensor:
    return torch.randn(10, 6, generator=torch.Generator().manual_seed(seed)) * torch.arange(1, 11)[:, None]


def energy(x: Tensor) -> Tensor:
    return x.square().sum(1)


def true_mean(x: Tensor, size: int) -> Tensor:
    return torch.stack([energy(batch).sum() for batch in x.split(size)]).sum() / len(x)


def mean_of_batch_means(x: Tensor, size: int) -> Tensor:
    return torch.stack([energy(batch).mean() for batch in x.split(size)]).mean()


def last_batch_dropped(x: Tensor, size: int) -> Tensor:
    return torch.cat([energy(b) for b in x.split(size) if len(b) == size]).mean()


def last_batch_padded(x: Tensor, size: int) -> Tensor:
    total = sum(energy(nn.functional.pad(b, (0, 0, 0, size - len(b)), value=1.0)).sum() for b in x.split(size))
    return torch.as_tensor(total) / len(x)


def mean_of_perplexities(x: Tensor, size: int) -> float:
    return float(torch.stack([(energy(b).mean() / 1000).exp() * (len(b) / len(x)) for b in x.split(size)]).sum())


def perplexity(x: Tensor, size: int) -> float:
    return float((true_mean(x, size) / 1000).exp())


def kl_over_batch(x: Tensor) -> Tensor:
    """Reconstruction a mean over the batch, KL divided by its size once more."""
    return energy(x).mean() + x.abs().sum(1).mean() / len(x)


def kl_right(x: Tensor) -> Tensor:
    return energy(x).mean() + x.abs().sum(1).mean()


def in_place(x: Tensor, size: int) -> Tensor:
    x.mul_(0.5)
    return true_mean(x, size)


def test_invariance_of_right_scores() -> None:
    for seed in range(20):
        for score in (per_example(energy), true_mean, perplexity, batch_mean(kl_right)):
            assert (result := invariance(score, examples(seed))).passed, result
    network = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 784))
    log_prob = per_example(lambda x: -network(x).square().sum(1))
    assert (result := invariance(log_prob, examples())).passed, result
    by_position = lambda x, size: energy(x) * torch.arange(1, len(x) + 1)  # noqa: E731
    assert invariance(by_position, examples(), order=False).passed


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (mean_of_batch_means, "with batches of 9"),
        (last_batch_dropped, "with batches of 9"),
        (last_batch_padded, "with batches of 9"),
        (mean_of_perplexities, "with batches of"),
        (batch_mean(kl_over_batch), "with batches of 1"),
        (per_example(lambda x: energy(x - x.mean(0))), "with batches of"),  # batch statistics
        (per_example(lambda x: energy(x) / len(x)), "with batches of"),
        (per_example(lambda x: energy(x)[:-1] if len(x) > 1 else energy(x)), "has shape"),
        (lambda x, size: energy(x).sort().values, "with x reversed"),
        (lambda x, size: energy(x[: len(x) // 2 + 1]).mean(), "with x reversed"),
        (lambda x, size: energy(x) * torch.arange(1, len(x) + 1), "with x shuffled"),
        (lambda x, size: true_mean(x, size) + torch.rand(()), "differs between two equal calls"),
        (lambda x, size: energy(x)[:, None], "a single number or"),
        (in_place, "modifies the tensor"),
        (lambda x, size: 1.0, "inconclusive"),
        (lambda x, size: true_mean(x, size) * float("nan"), "differs"),
    ],
)
def test_invariance_finds_wrong_scores(score: Callable[[Tensor, int], Tensor | float], words: str) -> None:
    assert_caught(invariance(score, examples()), words)


def test_invariance_refuses_too_few_examples() -> None:
    with pytest.raises(ConfigError, match="5 or more"):
        invariance(true_mean, examples()[:4])


# resume ----------------------------------------------------------------------------------------------------------


class Stopped(UserError):
    """What a training loop raises after SIGTERM, once it has saved."""


class Training:
    """A training loop that saves every third step and on SIGTERM; `wrong` leaves something out."""

    steps = 8

    def __init__(self, wrong: str = "") -> None:
        self.wrong = wrong

    def __call__(self, directory: Path) -> dict[str, Tensor]:
        path, log = directory / "checkpoint.pt", directory / "metrics.jsonl"
        generator = torch.Generator().manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        average = {name: p.detach().clone() for name, p in model.named_parameters()}
        data = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))
        step, lines = 0, 0
        if path.exists() and self.wrong != "starts over":
            saved = torch.load(path, weights_only=True)
            model.load_state_dict(saved["model"])
            step, lines = saved["step"], saved["lines"]
            if self.wrong != "optimiser":
                optimizer.load_state_dict(saved["optimizer"])
            if self.wrong != "generator":
                generator.set_state(saved["generator"])
            if self.wrong != "global generator":
                torch.set_rng_state(saved["rng"])
            if self.wrong != "average":
                average = saved["average"]
        step += self.wrong == "skips a step" and step > 0
        if self.wrong != "log":
            kept = log.read_text().splitlines(keepends=True)[:lines] if log.exists() else []
            log.write_text("".join(kept))
        stop: list[int] = []
        if self.wrong != "no handler":
            signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
        order = torch.randperm(16, generator=torch.Generator().manual_seed(step if self.wrong == "order" else 7))
        while step < self.steps:
            noise = torch.randn(4, 3, generator=generator) + torch.rand(4, 3)
            if self.wrong == "not seeded":
                noise += torch.randn(4, 3, generator=self.unseeded())
            batch = data[order[4 * (step % 4) :][:4]] + noise
            loss = model(batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            for name, p in model.named_parameters():
                average[name] = average[name].lerp(p.detach(), 0.1)
            with log.open("a") as file:
                file.write(json.dumps({"step": step, "loss": loss.item()}) + "\n")
            lines += 1
            if (stop or step % 3 == 0) and self.wrong != "never saves":
                state = {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                }
                state |= {"generator": generator.get_state(), "rng": torch.get_rng_state()}
                part = path.with_suffix(".part")
                torch.save(state | {"average": average, "lines": lines}, part)
                part.replace(path)
            if stop and self.wrong != "ignores":
                raise Stopped("stopped")
        if self.wrong == "float noise":
            model.weight.data += 1e-7 * (step - lines + (directory.name.count("stopped")))
        return {
            **model.state_dict(),
            **{f"average.{name}": value for name, value in average.items()},
        }

    @staticmethod
    def unseeded() -> torch.Generator:
        generator = torch.Generator()
        generator.seed()
        return generator


def test_resume_of_right_training() -> None:
    before, handler = torch.get_rng_state(), signal.getsignal(signal.SIGTERM)
    result = resume(Training())
    assert result.passed, result
    assert result.numbers["updates"] == Training.steps
    assert torch.equal(before, torch.get_rng_state())
    assert signal.getsignal(signal.SIGTERM) == handler


def test_resume_accepts_a_module() -> None:
    def train(directory: Path) -> nn.Module:
        model = nn.Linear(3, 2)
        result = Training()(directory)
        model.load_state_dict({name: result[name] for name in ("weight", "bias")})
        return model

    assert (result := resume(train)).passed, result


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("optimiser", "ends with another 'weight'"),
        ("generator", "ends with another 'weight'"),
        ("global generator", "ends with another 'weight'"),
        ("order", "ends with another 'weight'"),
        ("skips a step", "ends with another 'weight'"),
        ("float noise", "ends with another 'weight'"),
        ("average", "ends with another 'average.weight'"),
        ("log", "leaves another metrics.jsonl"),
        ("starts over", "the last session makes 8 updates"),
        ("never saves", "the last session makes 8 updates"),
        ("no handler", "without a checkpoint"),
        ("ignores", "does not stop training"),
        ("not seeded", "not repeatable"),
    ],
)
def test_resume_finds_what_was_not_restored(wrong: str, words: str) -> None:
    assert_caught(resume(Training(wrong)), words)


def test_resume_of_fit(tmp_path: Path) -> None:
    """The library's own loop, through the callables a paper would give."""

    def train(directory: Path) -> nn.Module:
        model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 1))
        optimizer = torch.optim.Adam(model.parameters())
        generator = torch.Generator().manual_seed(0)
        state = State(model, {"adam": optimizer}, generator, ema=EMA(model, decay=0.9))

        def step(state: State, batch: Tensor) -> dict[str, Tensor]:
            noise = torch.randn(batch.shape, generator=state.generator)
            return sgd_step(lambda x: (model(x + noise).square().mean(), {}), optimizer, batch)

        run = Run(directory, torch.device("cpu"), {}, seed=0, progress=False)
        fit(state, lambda n: torch.full((4, 3), float(n)), step, steps=8, run=run, log_every=3)
        assert state.ema is not None
        return state.ema.model

    assert (result := resume(train)).passed, result


def test_resume_passes_on_what_the_subject_raises() -> None:
    def broken(directory: Path) -> dict[str, Tensor]:
        raise UserError("no data")

    with pytest.raises(UserError, match="no data"):
        resume(broken)


def test_resume_refuses_training_without_updates() -> None:
    with pytest.raises(ConfigError, match="0 optimiser updates"):
        resume(lambda directory: {"weight": torch.zeros(1)})


def test_repr_tells() -> None:
    text = repr(invariance(mean_of_batch_means, examples()))
    assert text.startswith("FAIL  invariance: ")
    assert "spread" in text
    assert "- with batches of 9 (the last of 1)" in text
