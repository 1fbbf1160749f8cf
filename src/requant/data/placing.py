"""Where a public data set's one file is: in the folder the user names, or in the cache, downloaded once."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from requant.data.cache import cache_folder
from requant.data.download import download, unpack
from requant.errors import DataError


def placed(root: str | None, relative: str, fetch: Callable[[Path], object]) -> Path:
    """The file `relative` (folder/name), under `root` with or without that folder, or fetched into the cache.

    Raises:
        DataError: it is not under `root`, or cannot be downloaded.
    """
    if root is None:
        path = cache_folder() / relative
        if not path.exists():
            fetch(path)
        return path
    named = Path(root).expanduser()
    places = [named, named / relative, named / Path(relative).name]
    for place in places:
        if place.is_file():
            return place
    raise DataError(f"{root} holds no {relative}; place it there, or leave the root out to download it")


def download_member(url: str, md5: str, path: Path) -> None:
    """Download an archive and keep the one file of `path`'s name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unfinished-") as folder:
        try:
            archive = download(url, md5, Path(folder) / Path(url).name)
        except DataError as error:
            raise DataError(f"{error}; then unpack it, and place its {path.name} at {path}") from error
        unpack(archive, {path.name}, path.parent)
