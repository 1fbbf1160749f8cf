"""Work on the parts of a large array, some at a time: numpy lets go of the interpreter's lock inside each step."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from requant.machine import worker_threads

T = TypeVar("T")
WIDE = 1 << 20  # values of a part whose result is itself large
CHUNK = 1 << 18  # values whose intermediate results stay in a core's cache


def map_parts(function: Callable[[slice], T], size: int, chunk: int | None = None) -> Iterator[T]:
    """What `function` makes of each part of so many values, in order, whatever the number of threads.

    Each thread takes its parts one after the other: a task for each part costs as much as the work in it.
    """
    chunk = chunk or CHUNK
    parts = [slice(start, min(start + chunk, size)) for start in range(0, size, chunk)]
    threads = min(len(parts), worker_threads())
    if threads <= 1:
        yield from map(function, parts)
        return
    with ThreadPoolExecutor(threads) as pool:
        made = list(pool.map(lambda first: [function(part) for part in parts[first::threads]], range(threads)))
    for number in range(len(parts)):
        yield made[number % threads][number // threads]


def ends(values: NDArray[np.float32]) -> tuple[np.float32, np.float32]:
    """The least and the greatest of the values (n,), n > 0; NaN both where one is NaN."""
    parts = list(map_parts(lambda part: (values[part].min(), values[part].max()), values.size))
    lows, highs = zip(*parts, strict=True)
    return np.min(lows), np.max(highs)
