"""Archives of each format, written once: every later version must load them to the same values.

`archive_<storage>_1.h5` were saved from `archives.network()` by `archives.saved`, those of format 2 from
`archives.many_centroids()`; `archive_<format>.safetensors` hold the tensors. The files are never written again: a new
format gets new ones beside them.
"""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from requant.archive import STORAGES, Archive, read

HERE = Path(__file__).parent


def loaded(name: str, version: int, storage: str) -> Archive:
    """An archive whose tensors are those that were kept beside it."""
    expected = load_file(HERE / f"archive{name}_{version}.safetensors")
    archive = read(HERE / f"archive{name}_{storage}_{version}.h5")
    found = {tensor: codebook.dense() for tensor, codebook in archive.codebooks.items()} | archive.dense
    assert set(found) == set(expected)
    for tensor, values in expected.items():
        assert found[tensor].dtype == values.dtype
        assert np.array_equal(found[tensor], values), tensor
    return archive


def centroids(archive: Archive) -> dict[str, int]:
    return {name: codebook.k for name, codebook in archive.codebooks.items()}


def forms(archive: Archive) -> dict[str, str]:
    return {name: type(codebook).__name__ for name, codebook in archive.codebooks.items()}


@pytest.mark.parametrize("storage", STORAGES)
def test_archives_of_format_1_load_for_ever(storage: str) -> None:
    archive = loaded("", 1, storage)
    assert centroids(archive) == {"0.weight": 16, "0.bias": 1, "1.running_var": 2, "3.weight": 5}
    assert archive.provenance == {"seed": 0, "über": [1.5, None]}


@pytest.mark.parametrize("storage", STORAGES)
def test_archives_of_format_2_load_for_ever(storage: str) -> None:
    archive = loaded("", 2, storage)
    assert centroids(archive) == {"0.weight": 12, "1.weight": 300}
    assert archive.provenance == {"format": 2}


@pytest.mark.parametrize("storage", STORAGES)
def test_archives_of_every_form_of_codebook_load_for_ever(storage: str) -> None:
    """Written from `archives.saved_forms`."""
    assert forms(loaded("_forms", 2, storage)) == {
        "channel.weight": "GroupedCodebook",
        "channel_scale.weight": "GroupedCodebook",
        "group.weight": "GroupedCodebook",
        "product.weight": "VectorCodebook",
        "split.weight": "SplitCodebook",
        "short.weight": "Codebook",
        "many.weight": "Codebook",
    }


@pytest.mark.parametrize("storage", ["packed", "entropy"])
def test_archives_of_format_4_load_for_ever(storage: str) -> None:
    """Equal steps; written from `test_archive_steps.grids`."""
    archive = loaded("_steps", 4, storage)
    assert centroids(archive) == {"0.weight": 7, "1.weight": 63, "2.weight": 63, "3.weight": 509, "4.weight": 63}


@pytest.mark.parametrize("storage", STORAGES)
def test_archives_of_format_3_load_for_ever(storage: str) -> None:
    """Trellises; written from `test_trellis.two`."""
    names = ("conv.weight", "fc.weight", "fc.bias")
    assert forms(loaded("_trellis", 3, storage)) == dict.fromkeys(names, "TrellisCodebook")


@pytest.mark.parametrize("coder", ["sequential", "lanes"])
def test_archives_of_format_5_load_for_ever(coder: str) -> None:
    """Written from `test_trellis.two`, with no lanes and with three."""
    names = ("conv.weight", "fc.weight", "fc.bias")
    archive = loaded("", 5, f"entropy_{coder}")
    assert forms(archive) == dict.fromkeys(names, "TrellisCodebook")
    assert archive.format == 5


@pytest.mark.parametrize("coder", ["sequential", "lanes"])
def test_archives_of_format_6_load_for_ever(coder: str) -> None:
    """The same, low bits first."""
    archive = loaded("", 6, f"entropy_{coder}")
    assert forms(archive) == dict.fromkeys(("conv.weight", "fc.weight", "fc.bias"), "TrellisCodebook")
    assert archive.format == 6
