"""Forged forms of trellises, groups and split channels are refused."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from archives import saved_forms
from test_archive_damage import HALF, forged, refused, replace_manifest_2, rewrite
from test_trellis import example
from torch import nn

from requant.archive import frames, save
from requant.archive.steps import table_of
from requant.codebook import Codebook
from requant.codebook_trellis import TrellisCodebook
from requant.compression import place


def saved_trellis(path: Path, equal_steps: bool = False) -> None:
    """Of format 3, or 4."""
    layer, book = nn.Linear(15, 6, bias=False), example()
    table = book.table if equal_steps else book.table + np.float32(0.3)
    book = TrellisCodebook(table, book.indices.reshape(6, 15))
    place(layer, {"weight": book})
    save(path, layer, {"weight": book})


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_a_header_of_another_version_than_trellises_and_steps_ask_for_is_refused(version: int, tmp_path: Path) -> None:
    layer = nn.Linear(8, 3, bias=False)
    grid = Codebook(table_of(np.float32(0.1), 7), np.zeros((3, 8), np.uint8))
    place(layer, {"weight": grid})
    save(tmp_path / "grid.h5", layer, {"weight": grid})
    saved_trellis(tmp_path / "trellis.h5")
    saved_trellis(tmp_path / "both.h5", equal_steps=True)
    for name, own in (("grid", 4), ("trellis", 3), ("both", 4)):
        path = tmp_path / f"{name}.h5"
        data = path.read_bytes()
        assert data[8] == own
        if version != own:
            refused(path, forged(data[512:], version), "damaged inside")


def forged_forms(path: Path, version: int, **changes: object) -> None:
    """Change what codes stand for, of all that have any."""
    with h5py.File(path) as file:
        forms = json.loads(frames.decompress(file["manifest"][()].tobytes(), 1 << 20, "manifest"))["forms"]
    forms = [form | {"codes": form["codes"] | changes} if "codes" in form else form for form in forms]
    rewrite(path, lambda file: replace_manifest_2(file, forms=forms), version)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [15, 6]}, r"weight has shape \(6, 15\), and its form \[15, 6\]"),
        ({"split": True}, "a trellis in parts"),
        ({"factored": True}, "a trellis in parts"),
    ],
)
def test_forged_forms_of_a_trellis_are_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    saved_trellis(tmp_path / "a.h5")
    forged_forms(tmp_path / "a.h5", 3, **changes)
    refused(tmp_path / "a.h5", (tmp_path / "a.h5").read_bytes(), message)


def test_forged_shapes_of_other_forms_are_refused(tmp_path: Path) -> None:
    layer, book = nn.Linear(8, 3, bias=False).half(), Codebook(np.float32([0, 1]), np.zeros((3, 8), np.uint8), HALF)
    place(layer, {"weight": book})
    save(tmp_path / "a.h5", layer, {"weight": book})
    forged_forms(tmp_path / "a.h5", 2, shape=[8, 3])
    refused(tmp_path / "a.h5", (tmp_path / "a.h5").read_bytes(), r"shape \(3, 8\), and its form \[8, 3\]")


def test_split_channels_that_are_no_whole_numbers_are_refused(tmp_path: Path) -> None:
    saved_forms(tmp_path / "a.h5", "packed")
    with h5py.File(tmp_path / "a.h5") as file:
        manifest = json.loads(frames.decompress(file["manifest"][()].tobytes(), 1 << 20, "manifest"))
    forms = [form | ({"dtype": "float32"} if form["dtype"] == "int32" else {}) for form in manifest["forms"]]
    assert forms != manifest["forms"]
    rewrite(tmp_path / "a.h5", lambda file: replace_manifest_2(file, forms=forms), version=2)
    refused(
        tmp_path / "a.h5", (tmp_path / "a.h5").read_bytes(), r"split channels of split\.weight are no whole numbers"
    )
