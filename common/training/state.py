"""Everything that changes while a model trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from common.errors import CheckpointError
from common.training.ema import EMA


@runtime_checkable
class Stateful(Protocol):
    """Anything with a state of its own that must survive a kill: a schedule, a replay buffer, a curriculum.

    The state may hold tensors, numbers, strings, None, and dicts, lists and tuples of them. Anything else would need
    code to be run when a checkpoint is read, and is refused when the first one is written.
    """

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


@dataclass
class State:
    """What `fit` carries from update to update, and from session to session.

    model: trained in place.
    optimizers: by name, since some projects have several.
    generator: source of every random number the step draws; on the model's device where it draws there.
    ema: updated by `fit` after every step.
    step: updates done so far. While update n (n = 1, 2, ...) runs, it is n - 1.
    extra: more state of the project's own, saved and restored with the rest.
    wall_s: seconds of training so far, over all sessions.
    """

    model: nn.Module
    optimizers: dict[str, Optimizer]
    generator: torch.Generator
    ema: EMA | None = None
    step: int = 0
    extra: dict[str, Stateful] = field(default_factory=dict)
    wall_s: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "wall_s": self.wall_s,
            "model": self.model.state_dict(),
            "optimizers": {name: each.state_dict() for name, each in self.optimizers.items()},
            "ema": None if self.ema is None else self.ema.state_dict(),
            "extra": {name: each.state_dict() for name, each in self.extra.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore, in place. Raises `CheckpointError` when the state is of other parts than these."""
        for part, own in (("optimizers", self.optimizers), ("extra", self.extra)):
            if set(own) != set(state[part]):
                raise CheckpointError(f"the checkpoint has {part} {sorted(state[part])}, this code has {sorted(own)}")
        if (self.ema is None) != (state["ema"] is None):
            raise CheckpointError("only one of checkpoint and code has an EMA")
        self.model.load_state_dict(state["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        for name, each in self.extra.items():
            each.load_state_dict(state["extra"][name])
        self.step = state["step"]
        self.wall_s = state["wall_s"]

    def non_finite(self) -> str | None:
        """The first tensor that holds a NaN or infinity, in words; None when all is well.

        Buffers may hold infinities: masks do.
        """
        names, flags = [], []
        for name, tensor in self._tensors():
            if tensor.is_floating_point() or tensor.is_complex():
                bad = tensor.isnan() if name.startswith("buffer") else ~tensor.isfinite()
                names.append(name)
                flags.append(bad.any())
        return next((name for name, bad in zip(names, _read(flags), strict=True) if bad), None)

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        of_parameter: dict[Tensor, str] = {}
        for name, own in self.model.named_parameters():
            of_parameter[own] = name
            yield f"parameter '{name}'", own.detach()
        for parameter, name in of_parameter.items():
            if parameter.grad is not None:
                yield f"gradient of '{name}'", parameter.grad
        for name, buffer in self.model.named_buffers():
            yield f"buffer '{name}'", buffer
        for owner, optimizer in self.optimizers.items():
            for updated, held in optimizer.state.items():
                for key, value in held.items():
                    if isinstance(value, Tensor):
                        name = of_parameter.get(updated, "a parameter outside the model")
                        yield f"'{key}' of optimizer '{owner}' for '{name}'", value
        if self.ema is not None:
            for name, average in self.ema.model.named_parameters():
                yield f"averaged parameter '{name}'", average


def _read(flags: list[Tensor]) -> list[bool]:
    """The values of many 0-dim tensors, with one wait for the device."""
    if not flags:
        return []
    return [bool(flag) for flag in torch.stack([flag.to(flags[0].device) for flag in flags]).tolist()]
