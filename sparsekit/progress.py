"""Progress bars: they fit the terminal and are erased at the end; without a terminal, they print a line a minute."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Generic, TypeVar
from weakref import WeakSet

T = TypeVar("T")

_COUNT = "{n_fmt}/{total_fmt} {unit}, {remaining} left{postfix}"
_ON_TERMINALS = "{desc} {percentage:3.0f}% |{bar}| " + _COUNT
_AS_LINES = "{desc} {percentage:3.0f}%, " + _COUNT
#: Delay in seconds before a bar is shown, so that short operations show none.
_DELAY = 1.0
#: Refresh interval in seconds.
_INTERVAL = 0.1
#: Interval in seconds between lines without a terminal.
_MINUTE = 60.0
#: Largest width in columns; bars shrink on narrower terminals.
_WIDEST = 80
#: Largest length of a line without a terminal, in characters.
_LONGEST = 10_000

_open: WeakSet[Any] = WeakSet()


@cache
def _kinds() -> tuple[Any, Any] | None:
    """Tqdm for terminals, and a variant that prints whole lines; None if it is not installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return None

    class Lines(tqdm):  # type: ignore[misc]
        def display(self, msg: str | None = None, pos: int | None = None) -> None:
            del pos
            if msg is None:
                self.fp.write(f"{self}\n")
                self.fp.flush()

        def clear(self, nolock: bool = False) -> None:
            """Keep lines."""

        def close(self) -> None:
            self.delay = float("inf")  # marks the bar as not shown: there is nothing to clear
            super().close()

    return tqdm, Lines


def _width() -> dict[str, Any]:
    """Width for the terminal, up to the largest."""
    import shutil

    return {"ncols": _WIDEST} if shutil.get_terminal_size().columns > _WIDEST else {"dynamic_ncols": True}


def _made(**options: Any) -> Any:
    """A tqdm bar; None if tqdm is not installed."""
    kinds = _kinds()
    if kinds is None:
        return None
    on_terminals, as_lines = kinds
    options |= {"leave": False, "file": sys.stderr}
    if sys.stderr.isatty():
        often = {"delay": _DELAY, "mininterval": _INTERVAL, "miniters": 1}
        return on_terminals(**options, bar_format=_ON_TERMINALS, **often, **_width())
    rare = {"delay": _MINUTE, "mininterval": _MINUTE, "maxinterval": _MINUTE, "miniters": 1}
    return as_lines(**options, bar_format=_AS_LINES, ncols=_LONGEST, **rare)


class Progress(Generic[T]):
    """Progress bar on standard error, for a `with` statement or to iterate over; silent without tqdm.

    The environment variable `TQDM_DISABLE=1` turns all bars off.

    Args:
        iterable: iterable to wrap.
        title: the operation, in a few words.
        unit: unit of progress, in the plural.
        total: total number of units; None for the iterable's length.
        initial: number of units already done.
        hidden: show nothing, as in all processes but the first.

    >>> list(Progress([1, 2], title="count", unit="numbers"))
    [1, 2]
    """

    def __init__(
        self,
        iterable: Iterable[T] | None = None,
        *,
        title: str,
        unit: str,
        total: int | None = None,
        initial: int = 0,
        hidden: bool = False,
    ) -> None:
        self._iterable = iterable
        made = {"iterable": iterable, "desc": title, "unit": unit, "total": total, "initial": initial}
        self._bar = None if hidden else _made(**made)
        if self._bar is not None:
            _open.add(self._bar)

    def __iter__(self) -> Iterator[T]:
        with self:
            for one in self._iterable or ():
                yield one
                self.update()

    def __enter__(self) -> Progress[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Erase the bar."""
        if self._bar is not None:
            self._bar.close()

    def update(self, count: int = 1) -> None:
        """Advance the bar."""
        if self._bar is not None:
            self._bar.update(count)

    def say(self, text: str) -> None:
        """Set the text after the bar, from the next refresh on."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)


def close_all() -> None:
    """Erase all bars, including those of interrupted operations."""
    for bar in list(_open):
        bar.close()


def tell(text: str) -> None:
    """Print a line on standard error, above visible bars."""
    for bar in list(_open):
        if not bar.disable:
            bar.clear()
    print(text, file=sys.stderr, flush=True)
