"""What shows on a terminal, and only there, how far something is."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def coloured(stream: TextIO) -> bool:
    """Whether it is a terminal with colours, and nobody has asked for none (NO_COLOR, https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def bold(text: str) -> str:
    """The text as it is printed in bold, where the terminal has that."""
    return f"\033[1m{text}\033[0m" if coloured(sys.stdout) else text


def progress_bar(what: str, total: int | None, unit: str = " batches", shown: bool = True, **options: Any) -> tqdm:
    """A bar with rate and time left, on a terminal only and gone when it is closed.

    Args:
        what: is done, in front of the bar.
        total: how much of it there is, if known.
        unit: it is counted in.
        shown: whether there is a bar at all: in one process only, where there are several.
        options: of tqdm.
    """
    return tqdm(
        desc=what,
        total=total,
        unit=unit,
        leave=False,
        dynamic_ncols=True,
        colour="green" if coloured(sys.stderr) else None,
        disable=None if shown else True,  # None: shown on a terminal only
        **options,
    )


def watched(
    items: Iterable[Item], what: str, unit: str = " batches", *, total: int | None = None, shown: bool = True
) -> Iterator[Item]:
    """The items, with a bar while one goes through them.

    Args:
        items: any.
        what: is done with them.
        unit: they are.
        total: how many there are, unless they say so themselves.
        shown: whether there is a bar at all.
    """
    total = len(items) if total is None and hasattr(items, "__len__") else total
    with progress_bar(what, total, unit, shown) as bar:
        for item in items:
            yield item
            bar.update()
