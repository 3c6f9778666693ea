"""Errors that a person reads: one message that says what is wrong, where, and what to do.

The command line prints the message of a `UserError` without a traceback and exits with a status other than 0.
Any other exception is a mistake of ours and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something that the person who called can put right."""


class ConfigError(UserError):
    """A setting that cannot be: unknown, of the wrong type, or out of range."""


class DataError(UserError):
    """A data set that is unknown, cannot be reached, or is not what it should be."""


class DeviceError(UserError):
    """A device that was asked for and is not there."""


class CheckpointError(UserError):
    """A checkpoint that cannot be written, cannot be read, or belongs to another run."""


class NonFiniteError(UserError):
    """A NaN or an infinity appeared in training; names the step and the quantity."""


class ProcessError(UserError):
    """A process that this one shares a run with has ended; the run cannot go on without it."""


class RecordError(UserError):
    """A record, or a file beside it, that is missing or cannot be read."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """' Did you mean 'x'?' for the choice closest to a mistyped name, or '' when none is close.

    >>> nearest("fasion_mnist", ["mnist", "fashion_mnist"])
    " Did you mean 'fashion_mnist'?"
    """
    match = difflib.get_close_matches(name, list(choices), n=1)
    return f" Did you mean '{match[0]}'?" if match else ""
