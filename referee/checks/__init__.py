"""Checks: what the machine looks at before a person does. Each has a permanent id, a reason and a remedy.

A check is one function in one of this package's modules, which are all found by themselves:

    @check("DOC-001", "The README can be read", why="…", fix="…", severity={"v1": "error", "v2": "error"})
    def readme_can_be_read(submission: Submission) -> Iterable[Found]:
        ...
        yield submission.at("README.md"), 1, "is missing; write it."

`referee.checks.base` holds what they share; `referee.checks.command` is `referee check`.
"""

from referee.checks.base import (
    STAGES,
    Check,
    Finding,
    Found,
    Outcome,
    Severity,
    Skip,
    Submission,
    check,
    every_check,
    run,
)

__all__ = [
    "STAGES",
    "Check",
    "Finding",
    "Found",
    "Outcome",
    "Severity",
    "Skip",
    "Submission",
    "check",
    "every_check",
    "run",
]
