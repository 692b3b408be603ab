"""What all visitors share, and how mistakes are told."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from omnifusion.stages import Stages
from omnifusion.state import InputError
from omnifusion.ui import given
from omnifusion.ui.archive import Archive
from omnifusion.ui.estimate import Rates
from omnifusion.ui.limits import Limits
from omnifusion.ui.visit import Turns

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """What all visitors share."""

    limits: Limits
    archive: Archive
    rates: Rates
    turns: Turns
    stages: Callable[[], Stages]

    @property
    def visits(self) -> Path:
        """The visitors' folders."""
        return self.archive.folder / "visits"


def toast(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Turn what goes wrong into a short message on the page; the traceback goes to the log, never to the visitor."""

    def explain(error: Exception) -> gr.Error:
        if isinstance(error, InputError):
            return gr.Error(given.for_page(str(error)), duration=12, print_exception=False)
        log.exception("%s failed", handler.__name__, exc_info=error)
        return gr.Error("Something went wrong on this side, not yours; try again.", duration=12, print_exception=False)

    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def steps(*args: Any, **kw: Any) -> Iterator[Any]:
            try:
                yield from handler(*args, **kw)
            except gr.Error:
                raise
            except Exception as error:
                raise explain(error) from None

        return steps

    @functools.wraps(handler)
    def call(*args: Any, **kw: Any) -> Any:
        try:
            return handler(*args, **kw)
        except gr.Error:
            raise
        except Exception as error:
            raise explain(error) from None

    return call
