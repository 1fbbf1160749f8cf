"""Archives of each format, written once: every later version must load them to the same values.

`archive_<storage>_1.h5` were saved from `archives.network()` by `archives.saved`, those of format 2 from
`archives.many_centroids()`; `archive_<format>.safetensors` hold the tensors. The files are never written again: a new
format gets new ones beside them.
"""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from requant.archive import STORAGES, read

HERE = Path(__file__).parent


@pytest.mark.parametrize("storage", STORAGES)
def test_archives_of_format_1_load_for_ever(storage: str) -> None:
    expected = load_file(HERE / "archive_1.safetensors")
    archive = read(HERE / f"archive_{storage}_1.h5")
    found = {name: codebook.dense() for name, codebook in archive.codebooks.items()} | archive.dense
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert np.array_equal(found[name], values), name
    assert {name: codebook.k for name, codebook in archive.codebooks.items()} == {
        "0.weight": 16,
        "0.bias": 1,
        "1.running_var": 2,
        "3.weight": 5,
    }
    assert archive.provenance == {"seed": 0, "über": [1.5, None]}


@pytest.mark.parametrize("storage", STORAGES)
def test_archives_of_format_2_load_for_ever(storage: str) -> None:
    expected = load_file(HERE / "archive_2.safetensors")
    archive = read(HERE / f"archive_{storage}_2.h5")
    found = {name: codebook.dense() for name, codebook in archive.codebooks.items()} | archive.dense
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert np.array_equal(found[name], values), name
    assert {name: codebook.k for name, codebook in archive.codebooks.items()} == {"0.weight": 12, "1.weight": 300}
    assert archive.provenance == {"format": 2}


@pytest.mark.parametrize("storage", STORAGES)
def test_archives_of_every_form_of_codebook_load_for_ever(storage: str) -> None:
    """Written from `archives.saved_forms`."""
    expected = load_file(HERE / "archive_forms_2.safetensors")
    archive = read(HERE / f"archive_forms_{storage}_2.h5")
    found = {name: codebook.dense() for name, codebook in archive.codebooks.items()} | archive.dense
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert np.array_equal(found[name], values), name
    kinds = {name: type(codebook).__name__ for name, codebook in archive.codebooks.items()}
    assert kinds == {
        "channel.weight": "GroupedCodebook",
        "channel_scale.weight": "GroupedCodebook",
        "group.weight": "GroupedCodebook",
        "product.weight": "VectorCodebook",
        "split.weight": "SplitCodebook",
        "short.weight": "Codebook",
        "many.weight": "Codebook",
    }


@pytest.mark.parametrize("storage", STORAGES)
def test_archives_of_format_3_load_for_ever(storage: str) -> None:
    """Trellises; written from `test_trellis.two`."""
    expected = load_file(HERE / "archive_trellis_3.safetensors")
    archive = read(HERE / f"archive_trellis_{storage}_3.h5")
    found = {name: codebook.dense() for name, codebook in archive.codebooks.items()} | archive.dense
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert np.array_equal(found[name], values), name
    kinds = {name: type(codebook).__name__ for name, codebook in archive.codebooks.items()}
    assert kinds == dict.fromkeys(["conv.weight", "fc.weight", "fc.bias"], "TrellisCodebook")
