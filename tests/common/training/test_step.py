"""One update: the gradient is that of the whole batch, and of nobody else's parameters."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.training import sgd_step
from common.training.step import batch_size


def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    x = torch.randn(11, 3, dtype=torch.float64)
    return model, x


def gradients(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize("micro", [1, 3, 4, 10, 11, 50])
def test_micro_batches_have_the_gradient_and_metrics_of_the_whole(micro):
    model, x = problem()

    def loss(x):
        errors = (model(x).squeeze(1) - x.prod(1)).square()
        return errors.mean(), {"mae": errors.sqrt().mean()}

    expected, _ = loss(x)
    expected.backward()
    whole = gradients(model).clone()
    sgd = torch.optim.SGD(model.parameters(), lr=0.0)
    metrics = sgd_step(loss, sgd, x, micro=micro)
    torch.testing.assert_close(gradients(model), whole, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(metrics["loss"], expected.detach(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(metrics["mae"], loss(x)[1]["mae"].detach(), rtol=1e-12, atol=1e-14)
    assert all(value.dim() == 0 and not value.requires_grad for value in metrics.values())


def test_the_largest_piece_is_micro_and_labels_go_with_their_examples():
    @dataclass(frozen=True)
    class Pair:
        x: Tensor
        y: Tensor | None

    class Named(NamedTuple):
        x: Tensor
        y: Tensor | None

    x = torch.arange(7.0)
    weight = nn.Parameter(torch.zeros(()))
    for batch in (x, (x, x), [x, None], Pair(x, x), Pair(x, None), Named(x, x), {"x": x, "y": x}):
        seen = []

        def loss(part, batch=batch, seen=seen):
            assert type(part) is type(batch)
            if isinstance(part, Tensor):
                values = part
            elif isinstance(part, (tuple, list)):
                values, labels = part
                assert labels is None or torch.equal(values, labels)
            else:
                values = part["x"] if isinstance(part, dict) else part.x
            seen.append(values)
            return weight * values.mean(), {}

        assert batch_size(batch) == 7
        sgd_step(loss, torch.optim.SGD([weight], lr=0.0), batch, micro=3)
        assert [len(part) for part in seen] == [3, 3, 1]
        assert torch.equal(torch.cat(seen), x)
        assert weight.grad.item() == pytest.approx(3.0)


def test_clipping_is_by_the_global_norm_of_the_whole_gradient():
    model, x = problem()

    def loss(x):
        return 50 * model(x).square().mean(), {}

    loss(x)[0].backward()
    norm = gradients(model).norm()
    assert norm > 1
    metrics = sgd_step(loss, torch.optim.SGD(model.parameters(), 0.0), x, micro=4, clip=0.5)
    torch.testing.assert_close(metrics["grad_norm"], norm, rtol=1e-12, atol=0)
    assert gradients(model).norm().item() == pytest.approx(0.5, rel=1e-5)
    sgd_step(loss, torch.optim.SGD(model.parameters(), 0.0), x, clip=1e6)
    torch.testing.assert_close(gradients(model).norm(), norm, rtol=1e-12, atol=0)


def test_one_players_step_leaves_the_others_gradients_none():
    generator, critic = nn.Linear(2, 3), nn.Linear(3, 1)
    of_generator = torch.optim.Adam(generator.parameters())
    of_critic = torch.optim.Adam(critic.parameters())
    z = torch.randn(6, 2)

    sgd_step(lambda z: (critic(generator(z)).mean(), {}), of_critic, z)
    assert all(p.grad is not None for p in critic.parameters())
    assert all(p.grad is None for p in generator.parameters())

    of_critic.zero_grad()
    before = [p.clone() for p in critic.parameters()]
    sgd_step(lambda z: (-critic(generator(z)).mean(), {}), of_generator, z)
    assert all(p.grad is not None for p in generator.parameters())
    assert all(p.grad is None for p in critic.parameters())
    assert all(torch.equal(p, old) for p, old in zip(critic.parameters(), before, strict=True))


def test_frozen_parameters_stay_and_unused_ones_do_no_harm():
    model = nn.ModuleDict({"frozen": nn.Linear(2, 2), "live": nn.Linear(2, 1), "unused": nn.Linear(2, 1)})
    model["frozen"].requires_grad_(False)
    adam = torch.optim.Adam(model.parameters(), lr=0.1)
    before = {name: p.clone() for name, p in model.named_parameters()}
    for _ in range(2):
        sgd_step(lambda x: (model["live"](model["frozen"](x)).mean(), {}), adam, torch.randn(4, 2))
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"live.weight", "live.bias"}
    assert model["frozen"].weight.grad is None
    assert model["unused"].weight.grad is None


def test_gradients_of_an_earlier_step_are_not_added():
    model, x = problem()
    sgd = torch.optim.SGD(model.parameters(), lr=0.0)
    for _ in range(2):
        sgd_step(lambda x: (model(x).mean(), {}), sgd, x)
    twice = gradients(model).clone()
    sgd.zero_grad()
    model(x).mean().backward()
    torch.testing.assert_close(twice, gradients(model))


def test_a_metric_called_loss_is_what_is_reported():
    weight = nn.Parameter(torch.tensor(2.0))
    surrogate = lambda x: (weight * x.mean(), {"loss": torch.tensor(45.5)})  # noqa: E731
    metrics = sgd_step(surrogate, torch.optim.SGD([weight], 0.0), torch.ones(4))
    assert metrics["loss"].item() == 45.5
    assert weight.grad.item() == 1.0


def test_bfloat16_computes_in_bfloat16_and_updates_in_float32():
    model = nn.Linear(4, 3)
    seen = []

    def loss(x):
        y = model(x)
        seen.append(y.dtype)
        return y.float().square().mean(), {"y": y.mean()}

    adam = torch.optim.Adam(model.parameters())
    metrics = sgd_step(loss, adam, torch.randn(8, 4), micro=3, amp="bf16")
    assert set(seen) == {torch.bfloat16}
    assert all(p.dtype == p.grad.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())
    assert all(value.isfinite() for value in metrics.values())
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"micro": 0}, "micro must be at least 1"),
        ({"clip": 0.0}, "clip must be above 0"),
        ({"clip": float("nan")}, "clip must be above 0"),
        ({"amp": "fp16"}, "amp must be 'bf16'"),
        ({"batch": torch.zeros(0, 3)}, "empty batch"),
        ({"batch": (None,)}, "No tensor in a batch"),
    ],
)
def test_bad_arguments(arguments, message):
    weight = nn.Parameter(torch.zeros(3))
    batch = arguments.pop("batch", torch.ones(2, 3))
    with pytest.raises(ConfigError, match=message):
        sgd_step(lambda x: ((x * weight).mean(), {}), torch.optim.SGD([weight], 0.1), batch, **arguments)
