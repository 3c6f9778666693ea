"""A probe of autoregressive models: does each conditional see what comes before it, and nothing else?"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from common.errors import ConfigError
from common.probes.result import Findings, ProbeResult

LISTED = 3  # pairs of dimensions that a complaint names


def causality(
    conditionals: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    order: Tensor | Sequence[int] | None = None,
    blind_spots: bool = False,
    seed: int = 0,
) -> ProbeResult:
    """Output i does not depend on input j unless j comes before i in the order; and it depends on every such j.

    Checked in two ways, for all pairs (i, j) of the D dimensions of an example:
      - by autograd: the derivative of output i (all its parameters, in a random combination) with respect to input j is
        exactly 0 in every example for order(j) >= order(i), and not 0 in some example for order(j) < order(i);
      - by replacing values, which also finds a dependence that has no derivative (a rounded or compared value): when
        all inputs from position t of the order on take the values of another example, the outputs up to position t
        stay as they are, to the bit.
    Exact, no tolerance: a masked weight contributes 0, not little. Cost: D backward and D forward passes.
    Whether an example sees the others of its batch is not asked here but by `invariance`.

    Args:
        conditionals: x (B, D) -> the parameters of p(x_i | what comes before x_i), (B, D) or (B, D, P). A model of
            images is wrapped: flatten them in any way, the same for x and for the output.
        x: (B, D) examples in a floating type, B >= 2, which differ from each other in every dimension.
        order: position of each dimension, (D,), distinct numbers from small to large; by default the dimensions' own.
        blind_spots: the architecture is known to have some: only what must not be seen is checked.
        seed: of the random combinations.

    Raises:
        ConfigError: x is not (B, D) in a floating type, a dimension has the same value in all examples, or the order
            is none of D dimensions.
    """
    if x.dim() != 2 or len(x) < 2 or not x.dtype.is_floating_point:
        raise ConfigError(f"x is {x.dtype} {tuple(x.shape)}: the probe takes two or more examples (B, D) of floats.")
    dims = x.shape[1]
    if constant := [i for i in range(dims) if bool((x[:, i] == x[0, i]).all())]:
        raise ConfigError(f"dimension {constant[0]} of x has one value only: replacing it by another shows nothing.")
    position = torch.arange(dims) if order is None else torch.as_tensor(order).detach().cpu()
    if tuple(position.shape) != (dims,) or len(set(position.tolist())) != dims:
        raise ConfigError(f"the order {position.tolist()} does not give {dims} dimensions {dims} distinct positions.")

    with Findings("causality", "output i depends on the inputs before i in the order, and on no other") as found:
        before = position[None, :] < position[:, None]  # (D outputs, D inputs): what may be seen
        depends = _derivatives(found, conditionals, x.detach().clone(), seed) != 0  # a NaN counts as dependence
        seen = depends.any(0)
        found.numbers |= {"dims": dims, "leaks": int((seen & ~before).sum())}
        found.expect(not bool((seen & ~before).any()), f"leaks: {_pairs(seen & ~before)}")
        if not blind_spots:
            blind = before & ~seen
            found.numbers["blind_spots"] = int(blind.sum())
            found.expect(not bool(blind.any()), f"blind spots: {_pairs(blind, 'does not depend')}")

        moved = _replaced(found, conditionals, x, position).nonzero().flatten().tolist()
        found.numbers["moved"] = len(moved)
        found.expect(not moved, f"outputs {moved[:LISTED]} change with inputs that do not come before them")
    return found.result()


def _outputs(found: Findings, conditionals: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The conditionals' parameters as (B, D, P)."""
    value = conditionals(x)
    if value.dim() not in (2, 3) or value.shape[:2] != x.shape:
        raise found.broken(
            f"the conditionals have shape {tuple(value.shape)}; {tuple(x.shape)} or {(*x.shape, 'P')} is expected"
        )
    return value.reshape(*x.shape, -1)


def _derivatives(found: Findings, conditionals: Callable[[Tensor], Tensor], x: Tensor, seed: int) -> Tensor:
    """d output_i of all examples / d input_j of example b: (B, D outputs, D inputs)."""
    with torch.enable_grad():
        x.requires_grad_()
        y = _outputs(found, conditionals, x.clone())  # who writes to it is reported below
        # Sums of derivatives could cancel; random combinations of numbers that are not all zero do so never.
        generator = torch.Generator().manual_seed(seed)
        weights = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y)
        columns = []
        for i in range(x.shape[1]):
            part = (y[:, i] * weights[:, i]).sum()
            gradient = None
            if part.requires_grad:
                (gradient,) = torch.autograd.grad(part, x, retain_graph=True, allow_unused=True)
            columns.append(torch.zeros_like(x) if gradient is None else gradient)
    return torch.stack(columns, 1).detach().cpu()


def _replaced(found: Findings, conditionals: Callable[[Tensor], Tensor], x: Tensor, position: Tensor) -> Tensor:
    """Whether output i changes when inputs from i's position on, or from a later one on, are replaced: (D,) bool."""
    kept, other = x.clone(), x.clone()
    for shift in range(1, len(x)):  # another example's value, and in every dimension another value
        other = torch.where(other == x, x.roll(shift, 0), other)
    moved = torch.zeros(x.shape[1], dtype=torch.bool)
    with torch.no_grad():
        y = _outputs(found, conditionals, x)
        found.unchanged(kept, x, "the model")
        for t in position.tolist():
            later = (position >= t).to(x.device)
            same = (_outputs(found, conditionals, torch.where(later, other, kept)) == y).all(2).all(0).cpu()
            moved |= (position <= t) & ~same
    return moved


def _pairs(wrong: Tensor, verb: str = "depends") -> str:
    """The first few pairs of a (D outputs, D inputs) table, in words."""
    pairs = wrong.nonzero().tolist()
    words = ", ".join(f"output {i} {verb} on input {j}" for i, j in pairs[:LISTED])
    return words + (f" and {len(pairs) - LISTED} more" if len(pairs) > LISTED else "")
