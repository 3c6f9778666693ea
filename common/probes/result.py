"""What a probe returns, and how it gathers it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType

import torch
from torch import Tensor

Z = 6.0
"""Standard errors that a Monte Carlo mean may be away from where it should be.

Means here are over 40 or more independent repeats, so their error is close to Student's t with at least 39 degrees of
freedom, which exceeds 6 with probability 3e-7: a probe with a dozen such comparisons raises fewer than one false alarm
in 10^5 runs. What a probe is made to find is tens of standard errors away on a tiny instance.
"""


@dataclass(frozen=True, repr=False)
class ProbeResult:
    """The verdict of one probe, with the numbers a review can cite."""

    name: str
    statement: str  # what was checked, as a sentence that is true of a right subject
    passed: bool
    numbers: Mapping[str, float | str] = field(default_factory=dict)  # what was measured
    detail: str = ""  # what was found wrong, one line per finding; empty if nothing was

    def __repr__(self) -> str:
        numbers = ", ".join(
            f"{name} {value if isinstance(value, str) else format(value, '.6g')}"
            for name, value in self.numbers.items()
        )
        lines = [f"{'pass' if self.passed else 'FAIL'}  {self.name}: {self.statement}"]
        if numbers:
            lines.append(f"      {numbers}")
        lines += [f"      - {line}" for line in self.detail.splitlines()]
        return "\n".join(lines)


class _Broken(Exception):
    """The subject breaks the contract in a way that leaves nothing further to measure."""


class Findings:
    """Collects numbers and complaints; as a context manager it ends the probe early at `broken`.

    >>> with Findings("sum", "two and two make four") as found:
    ...     found.numbers["sum"] = 5.0
    ...     found.expect(found.numbers["sum"] == 4, "the sum is not 4")
    >>> found.result()
    FAIL  sum: two and two make four
          sum 5
          - the sum is not 4
    """

    def __init__(self, name: str, statement: str) -> None:
        self.name = name
        self.statement = statement
        self.numbers: dict[str, float | str] = {}
        self.complaints: list[str] = []

    def expect(self, condition: bool, complaint: str) -> None:
        """Note a complaint unless the condition holds.

        Write conditions so that a NaN makes them false (`error <= tolerance`, never `not error > tolerance`).
        """
        if not condition:
            self.complaints.append(complaint)

    def broken(self, complaint: str) -> _Broken:
        """To be raised: `raise found.broken(...)` notes the complaint and ends the probe."""
        return _Broken(complaint)

    def per_example(self, value: object, n: int, what: str) -> Tensor:
        """`value` as a detached (n,) tensor of float64 on the CPU, or the end of the probe."""
        if not isinstance(value, Tensor):
            raise self.broken(f"{what} returns {type(value).__name__}, not a tensor of shape ({n},)")
        if tuple(value.shape) != (n,):
            raise self.broken(
                f"{what} has shape {tuple(value.shape)} for {n} examples; one value per example, ({n},), is expected"
            )
        return value.detach().double().cpu()

    def unchanged(self, before: Tensor, after: Tensor, what: str) -> None:
        """Complain if a tensor that belongs to the caller was written to."""
        same = before.shape == after.shape and bool(torch.equal(before, after))
        self.expect(same, f"{what} modifies the tensor it is given")

    def result(self) -> ProbeResult:
        """The verdict: passed if there are no complaints."""
        return ProbeResult(
            self.name,
            self.statement,
            not self.complaints,
            dict(self.numbers),
            "\n".join(self.complaints),
        )

    def __enter__(self) -> "Findings":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if isinstance(error, _Broken):
            self.complaints.append(str(error))
            return True
        return False


def rounding(dtype: torch.dtype, size: float) -> float:
    """Allowance for rounding in a value of about `size`: 100 units in the last place of `dtype`.

    Sums of D terms lose about sqrt(D) units, so this covers the tiny instances that probes run on; anything a probe is
    made to find is many orders larger.
    """
    eps = torch.finfo(dtype).eps if dtype.is_floating_point else torch.finfo(torch.float32).eps
    return 100 * eps * max(1.0, abs(size))
