"""Trees of files: what is there, and which of it can be read."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from requant.errors import DataError
from requant.machine import worker_threads
from requant.progress import bar
from requant.suggest import some

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
_CHUNK = 1024
_NAMED = 5

Result = TypeVar("Result")


def files_below(root: Path) -> list[Path]:
    """All files under `root`, through symbolic links, sorted; names that begin with a dot are left out."""
    return sorted(_walk(root))


def images_below(root: Path) -> list[Path]:
    """All image files under `root`, sorted.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; check the path")
    images = [path for path in files_below(root) if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise DataError(f"no image file under {root}; looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
    return images


def try_each(
    work: Callable[[Path], Result], paths: Sequence[Path], title: str
) -> tuple[dict[Path, Result], tuple[str, ...]]:
    """Apply `work` to each file on several threads: the results, and the files it failed on.

    Warns once of the files that failed.

    Raises:
        DataError: it failed on all.
    """
    results: dict[Path, Result] = {}
    failures: dict[Path, Exception] = {}
    for path, outcome in _outcomes(work, paths, title):
        if isinstance(outcome, Exception):
            failures[path] = outcome
        else:
            results[path] = outcome
    if failures:
        _report(failures, len(paths))
    return results, tuple(map(str, failures))


def _walk(root: Path) -> Iterator[Path]:
    seen = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above would go round for ever
            subfolders.clear()
            continue
        seen.add(real)
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def _outcomes(
    work: Callable[[Path], Result], paths: Sequence[Path], title: str
) -> Iterator[tuple[Path, Result | Exception]]:
    def attempt(path: Path) -> Result | Exception:
        try:
            return work(path)
        except Exception as error:  # decoders raise many kinds on damaged files; each means unreadable
            return error

    with ThreadPoolExecutor(worker_threads()) as pool, bar() as progress:
        task = progress.add_task(title, total=len(paths))
        for start in range(0, len(paths), _CHUNK):
            chunk = paths[start : start + _CHUNK]
            yield from zip(chunk, pool.map(attempt, chunk), strict=True)
            progress.advance(task, len(chunk))


def _report(failures: dict[Path, Exception], total: int) -> None:
    named = some([f"{path} ({error})" for path, error in failures.items()], _NAMED)
    message = f"{len(failures)} of {total} image files cannot be read: {named}"
    if len(failures) == total:
        raise DataError(f"{message}; supply images that are whole")
    warnings.warn(f"{message}; they are skipped", stacklevel=2)
