"""Ctrl-C: commands say what is kept, and exit with the status that shells expect."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from sparsekit.progress import close_all

#: Status of a command that Ctrl-C ended: 128 and the signal's number.
_STOPPED = 130


class Stoppable(TyperGroup):
    """Command group that reports what is kept on Ctrl-C and exits with the status that shells expect."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            close_all()
            if sys.stderr.isatty():
                print(file=sys.stderr)  # after the ^C that the terminal shows
            for note in getattr(stop, "__notes__", ["stopped"]):
                Console(stderr=True).print(note, highlight=False, markup=False, soft_wrap=True)
            raise typer.Exit(_STOPPED) from None


@contextmanager
def noting(note: str) -> Iterator[None]:
    """Context in which Ctrl-C reports what is kept."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(note)
        raise
