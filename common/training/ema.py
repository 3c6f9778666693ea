"""Exponential moving average of a model's weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from common.errors import ConfigError

Module = TypeVar("Module", bound=nn.Module)


class EMA:
    """A second copy of a model whose parameters follow the model's slowly.

    After update number t = 0, 1, 2, ... the average is d_t * average + (1 - d_t) * model with

        d_t = min(decay, (1 + t) / (10 + t))    with warm-up,      d_t = decay    without.

    Without warm-up a decay of 0.9999 still holds 37 % of the *initial* weights after 10,000 updates; with it the share
    after n updates is 1 / binomial(n + 9, 9) as long as the minimum is the second term. Buffers (batch statistics,
    counters) are copied, not averaged.

    Args:
        model: the model to follow; place it on its device first.
        decay: between 0 and 1; or
        halflife_steps: updates after which a weight's share has halved, decay = 0.5 ** (1 / halflife_steps).
        warmup: start with a short memory.

    Raises `ConfigError` unless exactly one of `decay` and `halflife_steps` is given, in its range.
    """

    def __init__(
        self,
        model: nn.Module,
        decay: float | None = None,
        *,
        halflife_steps: float | None = None,
        warmup: bool = True,
    ) -> None:
        if (decay is None) == (halflife_steps is None):
            raise ConfigError("EMA: give either decay or halflife_steps.")
        if halflife_steps is not None:
            if not halflife_steps > 0:
                raise ConfigError(f"EMA: halflife_steps must be above 0, not {halflife_steps}.")
            decay = 0.5 ** (1.0 / halflife_steps)
        assert decay is not None
        if not 0.0 <= decay < 1.0:
            raise ConfigError(f"EMA: decay must be at least 0 and below 1, not {decay}.")
        self.decay = decay
        self.warmup = warmup
        self.updates = 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._average: list[Tensor] = list(self.model.parameters())
        self._current: list[Tensor] = list(model.parameters())
        # Modules, not buffers: a module may replace a buffer's tensor at any time.
        self._buffered = [
            (theirs, ours)
            for theirs, ours in zip(model.modules(), self.model.modules(), strict=True)
            if theirs._buffers
        ]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's present weights; call it once after every step of the optimiser."""
        t = self.updates
        decay = min(self.decay, (1 + t) / (10 + t)) if self.warmup else self.decay
        if self._average:
            torch._foreach_lerp_(self._average, self._current, 1.0 - decay)
        for theirs, ours in self._buffered:
            _copy_buffers(theirs, ours)
        self.updates += 1

    @contextmanager
    def averaged(self, model: Module) -> Iterator[Module]:
        """Inside the block `model` has the averaged weights; afterwards its own again, to the bit."""
        with torch.no_grad():
            kept = [tensor.clone() for tensor in _tensors(model)]
            for tensor, average in zip(_tensors(model), _tensors(self.model), strict=True):
                tensor.copy_(average)
        try:
            yield model
        finally:
            with torch.no_grad():
                for tensor, own in zip(_tensors(model), kept, strict=True):
                    tensor.copy_(own)

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]

    def __repr__(self) -> str:
        return f"EMA(decay={self.decay:g}, warmup={self.warmup}, updates={self.updates})"


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _copy_buffers(source: nn.Module, target: nn.Module) -> None:
    for name, buffer in source._buffers.items():
        if buffer is None:
            continue
        held = target._buffers.get(name)
        if held is not None and held.shape == buffer.shape and held.dtype == buffer.dtype:
            held.copy_(buffer)
        else:  # a buffer that appears or grows during training
            target._buffers[name] = buffer.clone()
