"""Files from public servers: with a time limit, a check sum, and an error that says what to do by hand."""

import hashlib
import http.client
import shutil
import tarfile
import urllib.request
from pathlib import Path

from requant.errors import DataError
from requant.files import replacing
from requant.progress import bar

_SECONDS_WITHOUT_ANSWER = 15
_CHUNK = 1 << 20


def download(url: str, md5: str, path: Path) -> Path:
    """Fetch a file to `path`, unless it is there already.

    Raises:
        DataError: the server does not answer, or sends something else.
    """
    if path.exists():
        return path
    by_hand = f"get {url} by other means and place it at {path}"
    try:
        with replacing(path) as unfinished:
            if _fetch(url, unfinished) != md5:
                raise DataError(f"what {url} sent has not the MD5 {md5}; {by_hand}")
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"cannot download {url} ({error}); {by_hand}") from error
    return path


def unpack(archive: Path, names: set[str], folder: Path) -> None:
    """Write those files of a gzipped tar archive, whatever folders they lie in there, straight into `folder`.

    Raises:
        DataError: the archive is damaged or lacks a file.
    """
    missing = set(names)
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                name = Path(member.name).name
                if member.isfile() and name in missing:
                    _write_member(tar, member, folder / name)
                    missing.remove(name)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{archive} cannot be unpacked ({error}); delete it and download it again") from error
    if missing:
        raise DataError(f"{archive} lacks {', '.join(sorted(missing))}; delete it and download it again")


def _fetch(url: str, path: Path) -> str:
    """Copy what the server sends to `path`; the MD5 of it."""
    digest = hashlib.md5(usedforsecurity=False)
    with (
        urllib.request.urlopen(url, timeout=_SECONDS_WITHOUT_ANSWER) as answer,
        path.open("wb") as file,
        bar() as progress,
    ):
        task = progress.add_task(Path(url).name, total=float(answer.headers.get("Content-Length", 0)) or None)
        while chunk := answer.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
            progress.advance(task, len(chunk))
    return digest.hexdigest()


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    content = tar.extractfile(member)
    assert content is not None, "only called with files"
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        shutil.copyfileobj(content, file, _CHUNK)
