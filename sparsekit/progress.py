"""Progress bars, all made here: they fit the terminal, leave nothing behind, and are a line a minute without one."""

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
#: Seconds before a bar is shown: what is over by then needs none.
_DELAY = 1.0
#: Seconds from one drawing to the next.
_INTERVAL = 0.1
#: Seconds from one line to the next where there is no terminal.
_MINUTE = 60.0
#: Widest bar, in columns; a narrower terminal has narrower ones.
_WIDEST = 80
#: Most characters of a line where there is no terminal, which nothing must cut.
_LONGEST = 10_000

_open: WeakSet[Any] = WeakSet()


@cache
def _kinds() -> tuple[Any, Any] | None:
    """Tqdm for terminals, and one that prints whole lines; None where it is not installed."""
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
            """Lines stay."""

        def close(self) -> None:
            self.delay = float("inf")  # as if it had never been shown: there is nothing to clear
            super().close()

    return tqdm, Lines


def _width() -> dict[str, Any]:
    """Follow a narrow terminal; in a wide one a long bar says no more than a short one."""
    import shutil

    return {"ncols": _WIDEST} if shutil.get_terminal_size().columns > _WIDEST else {"dynamic_ncols": True}


def _made(**options: Any) -> Any:
    """A bar of tqdm; None where it is not installed."""
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
    """A bar on standard error, for a `with` statement or to iterate over; silent where tqdm is missing.

    `TQDM_DISABLE=1` in the environment turns all of them off.

    Args:
        iterable: what is gone through, if it is given.
        title: what is done, in a few words.
        unit: of what, in the plural.
        total: how many; the iterable's length if None.
        initial: how many are done already.
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
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def update(self, count: int = 1) -> None:
        """So many more are done."""
        if self._bar is not None:
            self._bar.update(count)

    def say(self, text: str) -> None:
        """Show a few words behind the bar, from its next drawing on."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)


def close_all() -> None:
    """Take all bars away: what was interrupted may still hold some."""
    for bar in list(_open):
        bar.close()


def tell(text: str) -> None:
    """Print a line on standard error, above the bars that are shown."""
    for bar in list(_open):
        if not bar.disable:
            bar.clear()
    print(text, file=sys.stderr, flush=True)
