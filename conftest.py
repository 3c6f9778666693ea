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
