"""Format 4: of centroids that are equal steps about 0 the step alone is held."""

import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from archives import network
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from requant.archive import load, read, save
from requant.archive.steps import step_of, table_of
from requant.codebook import Codebook
from requant.codebook_trellis import TrellisCodebook
from requant.compression import place
from requant.errors import ArchiveError

STEPS = st.floats(2.0**-120, 2.0**100, width=32)
each = pytest.mark.parametrize("storage", ["packed", "entropy"])


def grids() -> tuple[nn.Module, dict[str, Codebook | TrellisCodebook]]:
    """Two tables of one step and different lengths, one of another step, one on a trellis, one that is no grid."""
    random = np.random.default_rng(0)
    model = nn.Sequential(*(nn.Linear(24, 16) for _ in range(5)))
    tables = [table_of(np.float32(step), k) for step, k in ((0.01, 7), (0.01, 63), (0.3, 63), (0.01, 255))]
    books: dict[str, Codebook | TrellisCodebook] = {}
    for number, table in enumerate(tables):
        indices = random.integers(0, table.size - 1, (16, 24)).astype(np.uint8)
        books[f"{number}.weight"] = (Codebook if number < 3 else TrellisCodebook)(table, indices)
    crooked = tables[1] + np.float32(1e-3)
    books["4.weight"] = Codebook(crooked, random.integers(0, 63, (16, 24)).astype(np.uint8))
    place(model, books)
    return model, books


@given(step=STEPS, half=st.integers(1, 2047))
def test_a_table_is_that_of_its_step(step: float, half: int) -> None:
    table = table_of(np.float32(step), 2 * half + 1)
    found = step_of(table)
    assert found is not None
    assert found == np.float32(step)
    assert np.array_equal(table_of(found, table.size), table)
    assert table[half] == 0
    assert np.array_equal(table, -table[::-1])


@given(
    step=st.floats(2.0**-20, 2.0**20, width=32), half=st.integers(1, 200), place_=st.integers(0, 400), data=st.data()
)
def test_what_is_no_such_table_is_not_taken_for_one(step: float, half: int, place_: int, data: st.DataObject) -> None:
    table = table_of(np.float32(step), 2 * half + 1)
    assert step_of(table[:-1]) is None
    assert step_of(table[:1]) is None
    assert step_of(np.zeros(5, np.float32)) is None
    at = place_ % table.size
    other = np.nextafter(table[at], np.float32(np.inf) if data.draw(st.booleans()) else np.float32(-np.inf))
    changed = table.copy()
    changed[at] = other
    assert step_of(changed) is None


@each
def test_the_step_is_what_is_held(storage: str, tmp_path: Path) -> None:
    model, books = grids()
    report = save(tmp_path / "a.h5", model, books, storage=storage)
    assert struct.unpack_from("<I", (tmp_path / "a.h5").read_bytes(), 8)[0] == (6 if storage == "entropy" else 4)
    assert report.parts["codebooks"] == 4 * 4 + 4 * 63
    back = load(tmp_path / "a.h5", nn.Sequential(*(nn.Linear(24, 16) for _ in range(5))))
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in model.state_dict().items())
    found = read(tmp_path / "a.h5").codebooks
    assert isinstance(found["3.weight"], TrellisCodebook)
    assert np.array_equal(found["1.weight"].indices, books["1.weight"].indices)


def test_gzip_and_networks_without_grids_stay_of_older_formats(tmp_path: Path) -> None:
    model, books = grids()
    save(tmp_path / "a.h5", model, books, storage="gzip")
    assert (tmp_path / "a.h5").read_bytes()[8] == 3
    save(tmp_path / "a.h5", model, {"4.weight": books["4.weight"]})
    assert (tmp_path / "a.h5").read_bytes()[8] == 1
    save(tmp_path / "b.h5", network(), {})
    assert (tmp_path / "b.h5").read_bytes()[8] == 1


@pytest.mark.parametrize(("k", "expected"), [(5, 1), (7, 4)])
def test_a_step_is_held_where_it_saves_more_than_it_takes_to_say_so(k: int, expected: int, tmp_path: Path) -> None:
    layer, book = nn.Linear(8, 3, bias=False), Codebook(table_of(np.float32(0.01), k), np.zeros((3, 8), np.uint8))
    place(layer, {"weight": book})
    save(tmp_path / "a.h5", layer, {"weight": book})
    assert (tmp_path / "a.h5").read_bytes()[8] == expected


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"centroids": 8, "stored": "steps"}, "stored as 'steps'"),
        ({"centroids": 1, "stored": "steps"}, "stored as 'steps'"),
        ({"centroids": None, "stored": "steps"}, "stored as 'steps'"),
        ({"centroids": 7, "stored": "step"}, "stored as 'step'"),
    ],
)
def test_steps_of_what_has_none_are_refused(form: dict[str, object], message: str, tmp_path: Path) -> None:
    from test_archive_damage import replace_manifest_2, rewrite

    model, books = grids()
    save(tmp_path / "a.h5", model, books)
    with h5py.File(tmp_path / "a.h5") as file:
        from test_archive_damage import frames, json

        forms = json.loads(frames.decompress(file["manifest"][()].tobytes(), 1 << 20, "manifest"))["forms"]
    first = next(i for i, found in enumerate(forms) if found.get("stored") == "steps")
    forms[first] = forms[first] | form
    rewrite(tmp_path / "a.h5", lambda file: replace_manifest_2(file, forms=forms), version=4)
    with pytest.raises(ArchiveError, match=message):
        read(tmp_path / "a.h5")


@each
@pytest.mark.parametrize("step", [np.nan, np.inf, -1.0, 3e38])
def test_steps_that_give_no_table_are_refused(
    storage: str, step: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, books = grids()
    monkeypatch.setattr("requant.archive.manifest.step_of", lambda _: np.float32(step))
    save(tmp_path / "a.h5", model, books, storage=storage)
    with pytest.raises(ArchiveError):
        read(tmp_path / "a.h5")
