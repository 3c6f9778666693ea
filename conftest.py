"""What holds for all tests."""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _denormals_are_numbers() -> Iterator[None]:
    """A run sets its process to count denormal numbers as zero; the tests after it get them back."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture
def double() -> Iterator[None]:
    """Tensors of no stated type are float64 meanwhile, so that mathematics can be compared to many digits."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def single(double: None) -> None:
    """For a test of a module that has asked for `double`: float32 again, which runs compute in."""
    import torch

    torch.set_default_dtype(torch.float32)
