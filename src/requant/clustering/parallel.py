"""Work on the parts of a large array, some at a time: numpy lets go of the interpreter's lock inside each step."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
CHUNK = 1 << 18  # values whose intermediate results stay in a core's cache


def map_parts(function: Callable[[slice], T], size: int) -> Iterator[T]:
    """What `function` makes of each part of so many values, in order, whatever the number of threads."""
    parts = [slice(start, min(start + CHUNK, size)) for start in range(0, size, CHUNK)]
    threads = min(len(parts), _threads())
    if threads <= 1:
        yield from map(function, parts)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(function, parts)


def _threads() -> int:
    """As many as torch and BLAS would take: OMP_NUM_THREADS, which the sweep launcher sets, or the cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) else os.cpu_count() or 1
