"""Peers as they are imported here."""

import importlib
import importlib.util
from functools import cache
from types import ModuleType
from typing import Any


@cache
def _torchvision() -> Any:
    """Names that torchvision expects of its compiled part, which is made for another torch and cannot be loaded.

    What the rows use of peers has nothing to do with them.
    """
    if importlib.util.find_spec("torchvision") is None:
        return None
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library  # kept, since it is taken back when forgotten


def load(name: str) -> ModuleType:
    """Import a module of a peer that may need torchvision."""
    _torchvision()
    return importlib.import_module(name)
