"""A full disk or a kill leaves the file that was there."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from archives import CENTROIDS, network, quantize, saved

from requant import files
from requant.archive import read, save
from requant.errors import ArchiveError

ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}


def test_a_full_disk_leaves_the_old_file_and_says_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "a.h5")
    before = (tmp_path / "a.h5").read_bytes()

    needed = saved(tmp_path / "other" / "a.h5", seed=1)[2].bytes
    (tmp_path / "other" / "a.h5").unlink()
    (tmp_path / "other").rmdir()

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(ArchiveError, match=rf"No space left on device\): {needed} bytes are needed"):
        saved(tmp_path / "a.h5", seed=1)
    assert (tmp_path / "a.h5").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_an_interrupt_removes_the_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        saved(tmp_path / "a.h5")
    assert [path.name for path in tmp_path.iterdir()] == []


LIMITED = """
import resource, sys
from pathlib import Path
from archives import saved
from requant.errors import ArchiveError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    saved(Path(sys.argv[1]), seed=1)
except ArchiveError as error:
    assert "File too large" in str(error), error
    sys.exit(3)
"""


def test_a_limit_on_file_size_leaves_the_old_file(tmp_path: Path) -> None:
    saved(tmp_path / "a.h5")
    before = (tmp_path / "a.h5").read_bytes()
    run = subprocess.run([sys.executable, "-c", LIMITED, tmp_path / "a.h5"], env=ENVIRONMENT, check=False)
    assert run.returncode == 3
    assert (tmp_path / "a.h5").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


KILLED = """
import os, signal, sys
from pathlib import Path
from archives import saved
from requant import files
files.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
saved(Path(sys.argv[1]), seed=1)
"""


def test_a_kill_before_the_rename_leaves_the_old_file(tmp_path: Path) -> None:
    saved(tmp_path / "a.h5")
    before = (tmp_path / "a.h5").read_bytes()
    run = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "a.h5"], env=ENVIRONMENT, check=False)
    assert run.returncode == -signal.SIGKILL
    assert (tmp_path / "a.h5").read_bytes() == before


def test_the_folder_is_made_and_a_missing_right_is_told(tmp_path: Path) -> None:
    model = network()
    codebooks = quantize(model, CENTROIDS)
    save(tmp_path / "new" / "folder" / "a.h5", model, codebooks)
    assert read(tmp_path / "new" / "folder" / "a.h5").codebooks
    with pytest.raises(ArchiveError, match="cannot write"):
        save(tmp_path / "new" / "folder" / "a.h5" / "b.h5", model, codebooks)
    with pytest.raises(ArchiveError, match="cannot write"):
        save(tmp_path / "new", model, codebooks)
