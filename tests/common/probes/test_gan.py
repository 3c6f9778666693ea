"""The probe of adversarial training finds each mistake it is for, and nothing in what is right."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.probes import ProbeResult, gan
from common.training import sgd_step

Norm = Callable[[Tensor], Tensor]
Mix = Callable[[Tensor, torch.Generator], Tensor]


def over_all(gradient: Tensor) -> Tensor:
    return torch.linalg.vector_norm(gradient.flatten(1), dim=1)


def one_each(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(len(x), 1, 1, 1, generator=generator, dtype=x.dtype)


def penalty(
    norm: Norm = over_all, mix: Mix = one_each, *, of: Norm = lambda n: (n - 1) ** 2, graph: bool = True
) -> Callable[..., Tensor]:
    """A gradient penalty whose parts can be replaced by mistaken ones."""

    def value(critic: Callable[[Tensor], Tensor], x: Tensor, x_fake: Tensor, generator: torch.Generator) -> Tensor:
        eps = mix(x, generator)
        x_hat = (eps * x + (1 - eps) * x_fake).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(x_hat).sum(), x_hat, create_graph=graph)
        return of(norm(gradient)).mean()

    return value


class Players:
    """Two linear networks, and steps that can go wrong."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.g, self.d = nn.Linear(3, 2), nn.Linear(2, 1)
        self.adam_g = torch.optim.Adam(self.g.parameters())
        self.adam_d = torch.optim.Adam(self.d.parameters())
        self.z = torch.randn(5, 3)

    def critic_step(self) -> None:
        sgd_step(lambda z: (self.d(self.g(z)).mean() - self.d(torch.ones(5, 2)).mean(), {}), self.adam_d, self.z)

    def generator_step(self) -> None:
        sgd_step(lambda z: (-self.d(self.g(z)).mean(), {}), self.adam_g, self.z)

    def careless_generator_step(self) -> None:
        self.adam_g.zero_grad()
        (-self.d(self.g(self.z)).mean()).backward()  # type: ignore[no-untyped-call]
        self.adam_g.step()

    def careless_critic_step(self) -> None:
        self.adam_d.zero_grad()
        self.d(self.g(self.z)).mean().backward()  # the samples were not detached
        self.adam_d.step()


def probe(**parts: object) -> ProbeResult:
    players = Players()
    steps = {"critic_step": players.critic_step, "generator_step": players.generator_step} | parts
    return gan(players.d, players.g, **steps)  # type: ignore[arg-type]


def assert_caught(result: ProbeResult, words: str) -> None:
    assert not result.passed, result
    assert words in result.detail, result


def test_what_is_right_passes() -> None:
    result = probe(penalty=penalty())
    assert result.passed, result
    assert result.numbers["penalty_3"] == pytest.approx(4)
    assert "penalty_3" not in probe().numbers  # a GAN without a penalty


def test_gradients_of_the_other_player() -> None:
    players = Players()
    careless = gan(players.d, players.g, players.careless_critic_step, players.generator_step)
    assert_caught(careless, "the critic's step gives 2 parameters of the generator a gradient")
    players = Players()
    careless = gan(players.d, players.g, players.critic_step, players.careless_generator_step)
    assert_caught(careless, "the generator's step gives 2 parameters of the critic a gradient")


def test_parameters_of_the_other_player() -> None:
    players = Players()

    def both() -> None:
        players.critic_step()
        with torch.no_grad():
            players.g.weight.add_(1)

    assert_caught(gan(players.d, players.g, both, players.generator_step), "changes 1 parameters of the generator")


def test_a_step_that_does_nothing_shows_nothing() -> None:
    assert_caught(probe(critic_step=lambda: None), "inconclusive: the critic's step changes nothing")


def test_players_must_be_two() -> None:
    players = Players()
    with pytest.raises(ConfigError, match="share parameters"):
        gan(players.d, players.d, players.critic_step, players.generator_step)
    with pytest.raises(ConfigError, match="no parameters"):
        gan(players.d, nn.ReLU(), players.critic_step, players.generator_step)


MISTAKES = {
    "eps shared by the batch": (
        penalty(mix=lambda x, g: torch.rand(1, 1, 1, 1, generator=g, dtype=x.dtype)),
        "one uniform eps an example",
    ),
    "eps of every pixel": (
        penalty(mix=lambda x, g: torch.rand(x.shape, generator=g, dtype=x.dtype)),
        "one uniform eps an example",
    ),
    "eps always one half": (penalty(mix=lambda x, g: torch.full((1,), 0.5).to(x)), "one uniform eps an example"),
    "eps normal": (
        penalty(mix=lambda x, g: torch.randn(len(x), 1, 1, 1, generator=g, dtype=x.dtype)),
        "one uniform eps an example",
    ),
    "norm by row": (penalty(norm=lambda g: g.norm(dim=-1)), "a linear critic with ||w|| = 3 has a penalty of"),
    "norm of the batch": (penalty(norm=lambda g: g.norm()[None]), "a linear critic with ||w|| = 3 has a penalty of"),
    "mean for the sum": (
        penalty(norm=lambda g: g.flatten(1).square().mean(1).sqrt()),
        "a linear critic with ||w|| = 3 has a penalty of",
    ),
    "squared norm": (
        penalty(norm=lambda g: g.flatten(1).square().sum(1)),
        "a linear critic with ||w|| = 3 has a penalty of",
    ),
    "one-sided": (penalty(of=lambda n: (n - 1).clamp(min=0) ** 2), "with ||w|| = 0.5 has a penalty of 0, not 0.25"),
    "root of a sum of squares": (
        penalty(norm=lambda g: g.flatten(1).square().sum(1).sqrt()),
        "not finite at a slope of zero",
    ),
    "no graph": (penalty(graph=False), "no derivative"),
    "a value an example": (lambda critic, x, x_fake, generator: x.flatten(1).sum(1), "a tensor of shape ()"),
    "sum over the batch": (
        lambda critic, x, x_fake, generator: penalty()(critic, x, x_fake, generator) * len(x),
        "has a penalty of 24, not 4",
    ),
    "gradients normalised over the batch": (
        penalty(norm=lambda g: over_all(g) / over_all(g).mean().detach().clamp(min=1)),
        "has a penalty of 0, not 4",
    ),
    "norms of the batch averaged": (
        penalty(norm=lambda g: over_all(g).mean()[None]),
        "from the mean over its examples",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistaken_penalties(name: str) -> None:
    mistaken, words = MISTAKES[name]
    assert_caught(probe(penalty=mistaken), words)


def test_the_probe_leaves_no_gradient_recording_to_chance() -> None:
    with torch.no_grad():
        assert probe(penalty=penalty()).passed
