"""The one exception that a user's input may raise, and how a command line shows it."""

from __future__ import annotations

import sys
from types import TracebackType

__all__ = ["InputError", "NotFiniteError", "input_error_in", "report_plainly"]


class InputError(ValueError):
    """Bad input. The message is one sentence: what was found, what was expected, what to do."""


class NotFiniteError(InputError, FloatingPointError):
    """A training ran into values that are not finite: settings or data are at fault."""


def input_error_in(error: BaseException) -> InputError | None:
    """The InputError that ``error`` is or comes from, or None."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__cause__ or cause.__context__
    return cause


def report_plainly() -> None:
    """Make this process end with the sentence of an :class:`InputError`, or of Ctrl-C, instead of a stack trace.

    Bundles call it in ``initialize``, because ``python -m monai.bundle`` owns their command line. Any other
    exception keeps its trace: that is a defect of ours, not of the input.
    """
    previous = sys.excepthook

    def hook(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        cause = input_error_in(value)
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted: a training goes on from its last checkpoint with --resume True", file=sys.stderr)
        elif cause is None:
            previous(kind, value, trace)
        else:
            print(f"error: {cause}", file=sys.stderr)

    sys.excepthook = hook
