"""What a peer needs before it can be imported here."""

import importlib.util
from pathlib import Path

import torch

OPERATORS = ("nms", "qnms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")
_defined: list[torch.library.Library] = []  # a library takes its operators with it


def allow_torchvision() -> None:
    """Let torchvision be imported beside a torch of another build, which its compiled operators do not load into.

    On import it says what its operators do to tensors without content, and for that they have to exist. Nothing that
    is measured here calls one: torch-fidelity and clean-fid import torchvision for pictures, and are given features.
    """
    found = importlib.util.find_spec("torchvision")
    if _defined or found is None or found.origin is None:
        return
    for compiled in Path(found.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(compiled)
            return
        except OSError:
            pass
    library = torch.library.Library("torchvision", "DEF")
    for name in OPERATORS:
        library.define(f"{name}(Tensor x) -> Tensor")
    _defined.append(library)
