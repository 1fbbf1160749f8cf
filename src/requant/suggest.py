"""Names in messages: the right one near a wrong one, and the first of many."""

import difflib
from collections.abc import Iterable, Sequence


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The end of a message: the nearest of `known`, or all of them if none is near and they are few."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(names)}" if 0 < len(names) <= 20 else ""


def some(names: Sequence[str], most: int) -> str:
    """The first of these names, and how many there are beside."""
    shown = ", ".join(names[:most]) or "none"
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
