"""A probe of adversarial training: does each player learn by itself, and is the gradient penalty what it is called?"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.probes.result import Findings, ProbeResult, rounding

Critic = Callable[[Tensor], Tensor]
Penalty = Callable[[Critic, Tensor, Tensor, torch.Generator], Tensor]
"""(critic, data (B, ...), samples (B, ...), generator) -> E[(||gradient|| - 1)^2], (), without its weight lambda."""

SHAPE = (2, 3, 5)  # of an example: several channels, and not square
MANY = 4096  # examples of a Monte Carlo mean


def gan(
    critic: nn.Module,
    generator: nn.Module,
    critic_step: Callable[[], object],
    generator_step: Callable[[], object],
    *,
    penalty: Penalty | None = None,
) -> ProbeResult:
    """A step of one player leaves the other alone; the gradient penalty is that of the paper, an example at a time.

    Steps. All gradients are taken away (None), then one player makes its step: the other's gradients stay None and its
    parameters stay as they are, to the bit, while the player's own change (else there was nothing to see). Buffers may
    change: the critic's step draws samples, and a generator with batch normalisation counts them.

    Penalty, if there is one (Gulrajani et al. 2017, eq. 3, two-sided), on critics whose gradient is known:
      - D(x) = <w, x> has the penalty (||w|| - 1)^2, for ||w|| = 3, 1 and 1/2, on examples of several channels: a norm
        by row or channel, a mean for the sum, or a one-sided penalty give something else;
      - with w = 0 the penalty is 1 and its derivative finite: the square root's at zero is not;
      - D(x) = ||x||^2 / 2 has the gradient x^. Between data e, ||e|| = s, and samples 0 that is eps e, so that for eps
        uniform in [0, 1] the mean of (s eps - 1)^2 is s^2 / 3 - s + 1. With one eps an example the mean over 4,096 of
        them is that, within 6 standard errors, for each of 8 seeds; with one for the whole batch it is not, nor with
        one for each pixel, nor with eps from another distribution;
      - of equal data and samples nothing is left to chance: the penalty of a batch is the mean over its examples,
        whatever batch they come in.

    Args:
        critic, generator: the two players; each must hold a parameter.
        critic_step, generator_step: make one update of that player.
        penalty: the project's own.

    Raises:
        ConfigError: a player without parameters, or parameters that belong to both.
    """
    players = {"critic": list(critic.parameters()), "generator": list(generator.parameters())}
    for name, parameters in players.items():
        if not parameters:
            raise ConfigError(f"the {name} has no parameters: there is no step of its to look at.")
    if {id(p) for p in players["critic"]} & {id(p) for p in players["generator"]}:
        raise ConfigError("critic and generator share parameters: no step could leave the other alone.")
    statement = "a step of one player leaves the other's gradients None"
    with Findings("gan", statement + ("; the penalty of a linear critic is (||w|| - 1)^2" if penalty else "")) as found:
        for name, step in (("critic", critic_step), ("generator", generator_step)):
            _one_player(found, players, name, step)
        if penalty is not None:
            _linear(found, penalty)
            _mixing(found, penalty)
            _batches(found, penalty)
    return found.result()


def _one_player(found: Findings, players: dict[str, list[nn.Parameter]], name: str, step: Callable[[], object]) -> None:
    """The other player's gradients and parameters after a step of this one."""
    (other,) = set(players) - {name}
    for parameter in (p for parameters in players.values() for p in parameters):
        parameter.grad = None
    before = {who: [p.detach().clone() for p in parameters] for who, parameters in players.items()}
    with torch.enable_grad():
        step()
    touched = sum(p.grad is not None for p in players[other])
    changed = {
        who: sum(not torch.equal(p, b) for p, b in zip(parameters, before[who], strict=True))
        for who, parameters in players.items()
    }
    found.numbers[f"{name}_step"] = f"{touched} gradients of the {other}"
    found.expect(touched == 0, f"the {name}'s step gives {touched} parameters of the {other} a gradient")
    found.expect(changed[other] == 0, f"the {name}'s step changes {changed[other]} parameters of the {other}")
    found.expect(changed[name] > 0, f"inconclusive: the {name}'s step changes nothing of its own")


def _value(found: Findings, penalty: Penalty, critic: Critic, x: Tensor, x_fake: Tensor, seed: int) -> Tensor:
    with torch.enable_grad():
        value = penalty(critic, x, x_fake, torch.Generator().manual_seed(seed))
    if not isinstance(value, Tensor) or value.dim() != 0:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise found.broken(f"the penalty is {shape}; a mean over the batch, a tensor of shape (), is expected")
    return value


def _examples(n: int, seed: int) -> Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _linear(found: Findings, penalty: Penalty) -> None:
    """Critics of one slope everywhere, that of no slope among them."""
    x, x_fake = _examples(6, 0), _examples(6, 1)
    direction = _examples(1, 2)[0]
    direction /= direction.norm()
    for size, wanted in ((3.0, 4.0), (1.0, 0.0), (0.5, 0.25), (0.0, 1.0)):
        w = (size * direction).requires_grad_()
        value = _value(found, penalty, lambda x, w=w: (x * w).flatten(1).sum(1), x, x_fake, 0)  # type: ignore[misc]
        measured = float(value.detach())
        found.numbers[f"penalty_{size:g}"] = measured
        found.expect(
            abs(measured - wanted) <= rounding(torch.float64, 1.0),
            f"a linear critic with ||w|| = {size:g} has a penalty of {measured:.4g}, not {wanted:g}",
        )
        if not value.requires_grad:
            raise found.broken("the penalty has no derivative: the critic cannot learn from it (create_graph=True?)")
        (gradient,) = torch.autograd.grad(value, w, allow_unused=True)
        if gradient is None:
            raise found.broken("the penalty has no derivative by the critic's weights (create_graph=True?)")
        where = "at a slope of zero" if size == 0 else f"at ||w|| = {size:g}"
        found.expect(bool(gradient.isfinite().all()), f"the penalty's derivative is not finite {where}")


def _half_square(x: Tensor) -> Tensor:
    """The gradient is x itself."""
    return x.flatten(1).square().sum(1) / 2


def _mixing(found: Findings, penalty: Penalty) -> None:
    """One uniform eps an example."""
    worst = 0.0
    unit = torch.ones(SHAPE, dtype=torch.float64)
    unit /= unit.norm()
    for seed in range(8):
        s = 1.0 if seed % 2 else 2.0
        # Var (s eps - 1)^2 = E(s eps - 1)^4 - (...)^2: 4/45 for both s = 1 and s = 2, where s eps - 1 is in [-1, 1].
        error = 6 * (4 / 45 / MANY) ** 0.5
        x = (s * unit).expand(MANY, *SHAPE)
        value = float(_value(found, penalty, _half_square, x, torch.zeros_like(x), seed).detach())
        worst = max(worst, abs(value - 1 / 3))
        found.expect(
            abs(value - 1 / 3) <= error,
            f"between ||x|| = {s:g} and 0 the mean of (||x^|| - 1)^2 is {value:.4f}, not {1 / 3:.4f} +- {error:.4f} "
            f"(seed {seed}): not one uniform eps an example, or no norm over all of its values",
        )
    found.numbers["mixing_error"] = worst


def _batches(found: Findings, penalty: Penalty) -> None:
    """Examples of data that equals the samples have a penalty of their own, in any company."""
    x = _examples(7, 3) * torch.linspace(0.1, 0.5, 7, dtype=torch.float64).view(-1, 1, 1, 1)
    wanted = (_half_square(x).mul(2).sqrt() - 1).square()  # (7,)
    worst = 0.0
    for size in (1, 2, 4, 7):
        for rows in torch.split(torch.arange(7), size):
            value = float(_value(found, penalty, _half_square, x[rows], x[rows], 0).detach())
            error = abs(value - float(wanted[rows].mean()))
            worst = max(worst, error)
            found.expect(
                error <= rounding(torch.float64, float(wanted.max())),
                f"in a batch of {len(rows)} the penalty is off by {error:.4g} from the mean over its examples",
            )
    found.numbers["batch_error"] = worst
