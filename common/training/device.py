"""Where a model runs, and in which memory layout."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from common.errors import DeviceError, nearest

Module = TypeVar("Module", bound=nn.Module)


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`: "auto", "cpu", "cuda", "cuda:1", "mps".

    "auto" is a CUDA GPU where there is one, else the CPU. It never picks "mps", which has no float64 and therefore
    cannot compute the likelihoods of most projects: ask for it by name.

    Raises `DeviceError` when the device is not there, or the name is unknown.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdecimal()):
        raise DeviceError(
            f"Unknown device '{name}': use auto, cpu, cuda or mps." + nearest(kind, ("auto", "cpu", "cuda", "mps"))
        )
    if kind == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= found:
            have = f"only {found} CUDA GPU(s)" if found else "no CUDA GPU that PyTorch can use"
            raise DeviceError(f"Device '{name}' asked for, but this machine has {have}. Use auto or cpu.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("Device 'mps' asked for, but this machine has none. Use auto or cpu.")
    return torch.device(name)


def place(
    model: Module,
    device: torch.device,
    *,
    channels_last: bool = False,
    compile: bool = False,
) -> Module:
    """Move `model` to `device`, in place; make an EMA and optimisers afterwards.

    Args:
        channels_last: keep convolution weights in the layout that most devices convolve fastest.
        compile: `model.compile()`: `forward` is compiled on its first call; names of parameters stay as they are.
    """
    if channels_last:
        model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    else:
        model.to(device=device)
    if compile:
        model.compile()
    return model
