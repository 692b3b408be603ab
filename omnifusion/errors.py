"""What ends work early, by the user's doing or wish; light, so that a typing error costs no waiting."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar


class InputError(ValueError):
    """What the user gave cannot be used; the message is one sentence that says why and what to do."""


class CalledOff(Exception):
    """Nobody wants the work any more."""


called_off: ContextVar[Callable[[], bool]] = ContextVar("called_off", default=lambda: False)
"""Whether the work of this context is called off: a question that whoever starts it may set."""


def go_on() -> None:
    """Asked by long work between its parts, seconds apart at most.

    Raises:
        CalledOff: the work is called off.
    """
    if called_off.get()():
        raise CalledOff
