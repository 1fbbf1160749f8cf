import hashlib
import io
import tarfile
import urllib.request
from pathlib import Path

import pytest

from requant.data.download import download, unpack
from requant.data.placing import download_member, placed
from requant.errors import DataError


def served(folder: Path, content: bytes, name: str = "file.bin") -> tuple[str, str]:
    """The address of a file, through the same machinery as a server's, and its MD5."""
    (folder / name).write_bytes(content)
    return (folder / name).as_uri(), hashlib.md5(content).hexdigest()


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_a_file_is_fetched_once(tmp_path: Path) -> None:
    url, md5 = served(tmp_path, b"content" * 1000)
    path = download(url, md5, tmp_path / "cache" / "here")
    assert path.read_bytes() == b"content" * 1000
    assert download("none://at.all", "", path) == path


def test_another_content_is_refused_and_not_kept(tmp_path: Path) -> None:
    url, _ = served(tmp_path, b"content")
    with pytest.raises(DataError, match=r"has not the MD5 0123.*place it at"):
        download(url, "0123", tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_a_server_that_is_not_there_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot download .*place it at .*here"):
        download((tmp_path / "none").as_uri(), "", tmp_path / "here")


def test_a_download_has_a_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(url: str, timeout: float) -> None:
        assert 0 < timeout < 60
        raise TimeoutError("timed out")

    monkeypatch.setattr(urllib.request, "urlopen", silent)
    with pytest.raises(DataError, match="timed out"):
        download("https://example.org/file", "", tmp_path / "here")


def test_a_link_of_the_wanted_name_is_no_file(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tgz", mode="w:gz") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.DIRTYPE):
            member = tarfile.TarInfo("a/wanted")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
    with pytest.raises(DataError, match="lacks wanted"):
        unpack(tmp_path / "x.tgz", {"wanted"}, tmp_path / "out")
    assert not (tmp_path / "out" / "wanted").exists()


def test_only_the_wanted_files_are_unpacked_and_none_outside_the_folder(tmp_path: Path) -> None:
    members = {"a/b/wanted": b"1", "other": b"2", "../../escaping": b"3"}
    (tmp_path / "x.tgz").write_bytes(archive(members))
    folder = tmp_path / "out" / "in"
    unpack(tmp_path / "x.tgz", {"wanted", "escaping"}, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"wanted": b"1", "escaping": b"3"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.tgz"]


def test_a_damaged_or_partial_archive_is_an_error(tmp_path: Path) -> None:
    content = archive({"wanted": bytes(10_000)})
    (tmp_path / "x.tgz").write_bytes(content)
    with pytest.raises(DataError, match="lacks more"):
        unpack(tmp_path / "x.tgz", {"wanted", "more"}, tmp_path)
    (tmp_path / "x.tgz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(tmp_path / "x.tgz", {"wanted"}, tmp_path)
    (tmp_path / "x.tgz").write_text("text")
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(tmp_path / "x.tgz", {"wanted"}, tmp_path)


def test_one_file_of_an_archive_is_kept(tmp_path: Path) -> None:
    url, md5 = served(tmp_path, archive({"folder/a": b"1", "folder/b": b"2"}), "x.tgz")
    download_member(url, md5, tmp_path / "cache" / "b")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["b"]
    with pytest.raises(DataError, match=r"then unpack it, and place its c at .*c"):
        download_member((tmp_path / "none").as_uri(), md5, tmp_path / "cache" / "c")


def refuse(path: Path) -> None:
    raise AssertionError("there was no need to fetch it")


def test_a_file_is_looked_for_in_the_named_folder(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "x.bin").write_text("")
    for root in (tmp_path, tmp_path / "set", tmp_path / "set" / "x.bin"):
        assert placed(str(root), "set/x.bin", refuse) == tmp_path / "set" / "x.bin"
    with pytest.raises(DataError, match=r"holds no set/y\.bin; place it there"):
        placed(str(tmp_path), "set/y.bin", refuse)


def test_without_a_folder_the_cache_is_filled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUANT_CACHE", str(tmp_path))
    path = placed(None, "x.bin", lambda path: path.write_text("1"))
    assert path == tmp_path / "x.bin"
    assert placed(None, "x.bin", refuse) == path
