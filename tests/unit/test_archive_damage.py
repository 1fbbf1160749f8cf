"""Files that are not what they claim to be: refused before HDF5 parses them or, if their checksum is forged, after."""

import json
import random
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from archives import saved, saved_2, saved_forms

from requant.archive import STORAGES, ans, envelope, frames, read, save
from requant.errors import ArchiveError

each_storage = pytest.mark.parametrize("storage", STORAGES)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    for storage in STORAGES:
        saved(folder / storage, storage)
    return {storage: (folder / storage).read_bytes() for storage in STORAGES}


def refused(path: Path, content: bytes, message: str | None = None) -> None:
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def forged(body: bytes, version: int = 1) -> bytes:
    return envelope.seal(memoryview(body), version) + body


@each_storage
def test_every_flipped_bit_is_refused(storage: str, originals: dict[str, bytes], tmp_path: Path) -> None:
    original, chance = originals[storage], random.Random(0)
    header_bits = range(60 * 8)
    body_bits = chance.sample(range(60 * 8, len(original) * 8), 300)
    for bit in [*header_bits, *body_bits]:
        damaged = bytearray(original)
        damaged[bit // 8] ^= 1 << bit % 8
        refused(tmp_path / "a.h5", bytes(damaged))


@each_storage
def test_truncated_and_lengthened_files_say_how_long_they_are(
    storage: str, originals: dict[str, bytes], tmp_path: Path
) -> None:
    original = originals[storage]
    for length in random.Random(0).sample(range(512, len(original)), 40):
        refused(tmp_path / "a.h5", original[:length], f"truncated: {len(original)} bytes expected, {length} found")
    refused(tmp_path / "a.h5", original + b"\0", f"too long: {len(original)} bytes expected, {len(original) + 1} found")
    refused(tmp_path / "a.h5", original[:100], "truncated: it ends after 100 bytes")
    refused(tmp_path / "a.h5", original[:300] + b"\0" + original[300:], "too long")


@each_storage
def test_forged_checksums_give_an_error_or_a_whole_archive(
    storage: str, originals: dict[str, bytes], tmp_path: Path
) -> None:
    original, chance, refusals = originals[storage], random.Random(0), 0
    for _ in range(300):
        body = bytearray(original[512:])
        for _ in range(chance.choice([1, 1, 4])):
            body[chance.randrange(len(body))] = chance.choice([0, 1, 127, 128, 255])
        (tmp_path / "a.h5").write_bytes(forged(bytes(body), original[8]))
        try:
            archive = read(tmp_path / "a.h5")
        except ArchiveError:
            refusals += 1
        else:
            assert all(np.isfinite(book.dense()).all() for book in archive.codebooks.values())
    assert refusals > 30


def test_a_newer_format_says_so(originals: dict[str, bytes], tmp_path: Path) -> None:
    newer = originals["packed"][:8] + struct.pack("<I", envelope.NEWEST + 1) + originals["packed"][12:]
    message = rf"newer requant \(format {envelope.NEWEST + 1}; this one reads up to {envelope.NEWEST}\): upgrade"
    refused(tmp_path / "a.h5", newer, message)


def test_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "foreign"
    refused(path, b"", "is empty")
    refused(path, b"plain text", "starts with b'plain te'")
    refused(path, b"\x80\x02}", "pickle")
    refused(path, struct.pack("<Q", 2) + b"{}", "safetensors")
    torch.save({}, path)
    refused(path, path.read_bytes(), "zip file, as torch.save writes")
    with h5py.File(path, "w") as file:
        file["x"] = 1
    refused(path, path.read_bytes(), "plain HDF5 file that requant did not write")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    saved(tmp_path / "student.h5")
    with pytest.raises(ArchiveError, match=r"cannot open .*studnet.h5 \(No such file.*did you mean .*student\.h5"):
        read(tmp_path / "studnet.h5")
    with pytest.raises(ArchiveError, match="Is a directory"):
        read(tmp_path)


def rewrite(path: Path, change, version: int = 1) -> None:
    """Apply `change` to the file's HDF5 content, and forge the checksum."""
    with h5py.File(path, "r+") as file:
        change(file)
    path.write_bytes(forged(path.read_bytes()[512:], version))


def replace_manifest(file: h5py.File, **changes: object) -> None:
    manifest = json.loads(zlib.decompress(file["manifest"][()].tobytes())) | changes
    del file["manifest"]
    file["manifest"] = np.frombuffer(zlib.compress(json.dumps(manifest).encode()), np.uint8)


def entry(**changes: object) -> list[object]:
    return [{"name": "x", "shape": [2], "dtype": "float32", "centroids": None} | changes]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"storage": "pickle"}, "unknown storage"),
        ({"storage": 3}, "for storage"),
        ({"tensors": {}}, "for tensors"),
        ({"more": 1}, "manifest should have"),
        ({"tensors": entry(shape=[-1])}, "gives x the shape"),
        ({"tensors": entry(shape=[True])}, "gives x the shape"),
        ({"tensors": entry(shape=[1] * 40)}, "gives x the shape"),
        ({"tensors": entry(shape=[1 << 40])}, "manifest makes it"),
        ({"tensors": entry(dtype="object")}, "unknown type"),
        ({"tensors": entry(centroids=0)}, "0 centroids"),
        ({"tensors": entry(centroids=257)}, "257 centroids"),
        ({"tensors": entry(stored="float16")}, "manifest should have"),
        ({"tensors": entry(centroids=2, dtype="int64")}, "centroids of type int64"),
        ({"tensors": entry(centroids=1, shape=[1 << 40])}, "above the limit"),
        ({"tensors": entry() * 2}, "names a tensor twice"),
        ({"tensors": entry()}, "payload has"),
    ],
)
def test_forged_manifests_are_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    saved(tmp_path / "a.h5")
    rewrite(tmp_path / "a.h5", lambda file: replace_manifest(file, **changes))
    refused(tmp_path / "a.h5", (tmp_path / "a.h5").read_bytes(), message)


def columns(form: object = 0, names: object = ("x",), **changes: object) -> dict[str, object]:
    forms = [{"dtype": "float32", "centroids": None} | changes]
    return {
        "names": list(names) if isinstance(names, tuple) else names,
        "shapes": [[2]],
        "forms": forms,
        "form": [form],
    }


def coded(**changes: object) -> dict[str, object]:
    known = {"kind": "table", "shape": [2], "dtype": "float32", "run": None, "split": False}
    return columns(centroids=2, codes=known | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (columns(centroids=4097), "4097 centroids"),
        (columns(stored="float64"), "type float32 stored as 'float64'"),
        (columns(stored="float16", dtype="int16"), "type int16 stored as 'float16'"),
        (columns(stored=None), "has None for stored"),
        (columns(other=1), "manifest should have"),
        (columns(name="y", shape=[3]), "payload has"),  # a form cannot rename
        (columns(form=1), "a form that is none"),
        (columns(form=-1), "a form that is none"),
        (columns(form=True), "a form that is none"),
        (columns() | {"forms": [3]}, "a form that is none"),
        (columns(names=("x", "y")), "2 names, 1 shapes and 1 forms"),
        (columns(names={"x": {}}), "0 names, 1 shapes and 1 forms"),
        (columns(names={"x": {"y": 0}}), "payload has"),
        (columns(names=(3,)), "has 3 for name"),
        (columns(centroids=2, codes=""), "has .. for codes"),
        (columns(codes={}), "codes and no centroids"),
        (coded(kind="cube"), "codes of no known form"),
        (coded(more=1), "codes of no known form"),
        (coded(dtype="int8"), "codes of no known form"),
        (coded(shape=[-2]), "the shape"),
        (coded(kind="grouped"), "groups of None values"),
        (coded(kind="grouped", run=0), "groups of 0 values"),
        (coded(run=3), "groups of 3 values"),
        (coded(split=True), "split channels, and it has none"),
        (coded(kind="vectors"), "lacks x:vectors"),
        ({"tensors": []}, "manifest should have"),
    ],
)
def test_forged_manifests_of_version_2_are_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    saved_2(tmp_path / "a.h5")
    rewrite(tmp_path / "a.h5", lambda file: replace_manifest_2(file, **changes), version=2)
    refused(tmp_path / "a.h5", (tmp_path / "a.h5").read_bytes(), message)


def replace_manifest_2(file: h5py.File, **changes: object) -> None:
    manifest = json.loads(frames.decompress(file["manifest"][()].tobytes(), 1 << 20, "manifest")) | changes
    del file["manifest"]
    file["manifest"] = np.frombuffer(frames.compress(json.dumps(manifest).encode()), np.uint8)


@each_storage
def test_a_header_of_the_other_version_is_refused(storage: str, tmp_path: Path) -> None:
    for written in (saved, saved_2):
        written(tmp_path / "a.h5", storage)
        data = (tmp_path / "a.h5").read_bytes()
        other = 4 if storage == "entropy" else 3 - data[8]
        refused(tmp_path / "a.h5", forged(data[512:], other), "damaged inside")


HALF = np.dtype(np.float16)


@pytest.mark.parametrize("version", [1, 2])
def test_bytes_behind_a_manifest_are_refused(version: int, tmp_path: Path) -> None:
    def longer(file: h5py.File) -> None:
        data = file["manifest"][()]
        del file["manifest"]
        file["manifest"] = np.append(data, np.uint8(0))

    (saved if version == 1 else saved_2)(tmp_path / "a.h5")
    rewrite(tmp_path / "a.h5", longer, version)
    refused(tmp_path / "a.h5", (tmp_path / "a.h5").read_bytes(), "manifest is")


def test_gzip_holds_nothing_in_16_bits(tmp_path: Path) -> None:
    saved_forms(tmp_path / "a.h5", "gzip")
    with h5py.File(tmp_path / "a.h5") as file:
        forms = json.loads(frames.decompress(file["manifest"][()].tobytes(), 1 << 20, "manifest"))["forms"]
    first = next(place for place, form in enumerate(forms) if form["dtype"] == "float32")
    forms[first]["stored"] = "float16"
    rewrite(tmp_path / "a.h5", lambda file: replace_manifest_2(file, forms=forms), version=2)
    refused(tmp_path / "a.h5", (tmp_path / "a.h5").read_bytes(), "is stored as float16, which gzip never is")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b + b"\0", "is too long"),
        (lambda b: b[:3], "is cut off"),
        (lambda b: struct.pack("<I", ans.MOST_LANES + 1) + b[4:], "has 4097 lanes"),
        (lambda b: struct.pack("<I", 1) + b[4:], "damaged inside"),
    ],
)
def test_side_blocks_of_another_length_are_refused(change, message: str, tmp_path: Path) -> None:
    def forge(file: h5py.File) -> None:
        payload = file["payload"][()].tobytes()
        size = int.from_bytes(payload[:4], "little")
        side = frames.compress(change(frames.decompress(payload[4 : 4 + size], 1 << 20, "side")))
        del file["payload"]
        made = len(side).to_bytes(4, "little") + side + payload[4 + size :]
        file["payload"] = np.frombuffer(made, np.uint8)

    saved_2(tmp_path / "a.h5", "entropy")
    rewrite(tmp_path / "a.h5", forge, version=5)
    refused(tmp_path / "a.h5", (tmp_path / "a.h5").read_bytes(), message)


def test_few_bytes_do_not_stand_for_more_values_than_memory_has(tmp_path: Path) -> None:
    saved_2(tmp_path / "a.h5", "entropy")
    with h5py.File(tmp_path / "a.h5") as file:
        shapes = json.loads(frames.decompress(file["manifest"][()].tobytes(), 1 << 20, "manifest"))["shapes"]
    shapes[0] = [1 << 40]
    rewrite(tmp_path / "a.h5", lambda file: replace_manifest_2(file, shapes=shapes), version=2)
    refused(tmp_path / "a.h5", (tmp_path / "a.h5").read_bytes(), "values, which is above the limit")


def test_too_little_memory_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_left(*_: object) -> None:
        raise MemoryError

    saved_2(tmp_path / "a.h5")
    monkeypatch.setattr("requant.archive.loading.decode", nothing_left)
    with pytest.raises(ArchiveError, match="needs more memory than there is: free some"):
        read(tmp_path / "a.h5")


def replace(name: str, value: object, **settings: object):
    def change(file: h5py.File) -> None:
        del file[name]
        if value is not None:
            file.create_dataset(name, **({"data": value} | settings)) if not callable(value) else value(file)

    return change


def external(file: h5py.File) -> None:
    file.create_dataset("manifest", (8,), np.uint8, external=[("secret", 0, 8)])


def soft_link(file: h5py.File) -> None:
    file["manifest"] = h5py.SoftLink("/payload")


def external_link(file: h5py.File) -> None:
    file["manifest"] = h5py.ExternalLink("other.h5", "/x")


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((8,), np.uint8)
    layout[:] = h5py.VirtualSource("other.h5", "x", (8,))
    file.create_virtual_dataset("manifest", layout)


def unstored(file: h5py.File) -> None:
    file.create_dataset("manifest", (1 << 40,), np.uint8, chunks=(1 << 20,), compression="gzip")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replace("manifest", None), "manifest is missing"),
        (replace("manifest", np.zeros(3, np.float32)), "has type float32"),
        (replace("manifest", np.zeros((3, 3), np.uint8)), "2 dimensions"),
        (replace("manifest", np.zeros(3, np.uint8)), "damaged inside"),
        (replace("manifest", np.frombuffer(zlib.compress(b"[" * 100_000), np.uint8)), "damaged inside"),
        (replace("manifest", np.frombuffer(zlib.compress(b"{}")[:-2], np.uint8)), "cut off"),
        (replace("manifest", np.zeros(300, np.uint8), chunks=(100,), fletcher32=True), "other than gzip"),
        (replace("manifest", lambda file: file.create_group("manifest")), "is no data set"),
        (replace("manifest", external), "other files"),
        (replace("manifest", soft_link), "link to elsewhere"),
        (replace("manifest", external_link), "link to elsewhere"),
        (replace("manifest", virtual), "other files"),
        (replace("manifest", unstored), "larger than what is stored"),
        (replace("payload", ["text"]), "has type object"),
    ],
)
def test_forged_hdf5_is_refused(change, message: str, tmp_path: Path) -> None:
    saved(tmp_path / "a.h5")
    rewrite(tmp_path / "a.h5", change)
    refused(tmp_path / "a.h5", (tmp_path / "a.h5").read_bytes(), message)


def test_links_within_a_tensors_name_are_refused(tmp_path: Path) -> None:
    model = torch.nn.ParameterDict({"a/b/c": torch.nn.Parameter(torch.arange(20.0))})
    save(tmp_path / "a.h5", model, {}, storage="gzip")
    assert np.array_equal(read(tmp_path / "a.h5").dense["a/b/c"], np.arange(20))

    def link(file: h5py.File) -> None:
        file.move("tensors/a", "elsewhere")
        file["tensors/a"] = h5py.SoftLink("/elsewhere")

    rewrite(tmp_path / "a.h5", link)
    refused(tmp_path / "a.h5", (tmp_path / "a.h5").read_bytes(), "link to elsewhere")


def test_forged_indices_and_values_are_refused(tmp_path: Path) -> None:
    def index_beyond_five(file: h5py.File) -> None:
        end = 2 * 4 + 1 + 16 * 4 + 54 + 4 + 5 * 4  # before it: 0.weight, 0.bias, 1.running_var, the five centroids
        file["payload"][end : end + 3] = 255

    def unsorted(file: h5py.File) -> None:
        file["payload"][:64] = np.frombuffer(np.arange(16, 0, -1, dtype="<f4").tobytes(), np.uint8)

    for change, message in ((index_beyond_five, "beyond the 5 centroids"), (unsorted, "sorted")):
        saved(tmp_path / "a.h5")
        rewrite(tmp_path / "a.h5", change)
        refused(tmp_path / "a.h5", (tmp_path / "a.h5").read_bytes(), message)

    def off_centroid(file: h5py.File) -> None:
        file["tensors/3.weight"][0] = 77

    def infinite(file: h5py.File) -> None:
        file["tensors/3.bias"][0] = np.inf

    for change, message in ((off_centroid, r"3\.weight has values"), (infinite, r"3\.bias has values that are NaN")):
        saved(tmp_path / "a.h5", "gzip")
        rewrite(tmp_path / "a.h5", change)
        refused(tmp_path / "a.h5", (tmp_path / "a.h5").read_bytes(), message)
