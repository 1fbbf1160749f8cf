from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from archives import CENTROIDS, network, quantize, saved
from torch import nn

from requant.archive import STORAGES, load, read, save
from requant.codebook import Codebook
from requant.errors import ArchiveError

each_storage = pytest.mark.parametrize("storage", STORAGES)


@each_storage
def test_a_network_comes_back_bit_for_bit(storage: str, tmp_path: Path) -> None:
    model, _, _ = saved(tmp_path / "a.h5", storage)
    loaded = load(tmp_path / "a.h5", network(seed=1).train())
    assert not any(module.training for module in loaded.modules())
    for name, tensor in model.state_dict().items():
        assert loaded.state_dict()[name].dtype == tensor.dtype
        assert torch.equal(loaded.state_dict()[name], tensor), name


@each_storage
def test_codebooks_and_provenance_come_back(storage: str, tmp_path: Path) -> None:
    model, codebooks, report = saved(tmp_path / "a.h5", storage)
    archive = read(tmp_path / "a.h5")
    assert (archive.storage, archive.provenance, archive.architecture) == (
        storage,
        {"seed": 0, "über": [1.5, None]},
        None,
    )
    assert archive.report == report
    assert {*archive.codebooks, *archive.dense} == set(model.state_dict())
    assert set(archive.codebooks) == set(CENTROIDS)
    for name, codebook in codebooks.items():
        assert np.array_equal(archive.codebooks[name].indices, codebook.indices)
        assert np.array_equal(archive.codebooks[name].centroids, codebook.centroids)


@each_storage
def test_what_was_read_can_be_saved_again(storage: str, tmp_path: Path) -> None:
    saved(tmp_path / "a.h5", storage)
    archive = read(tmp_path / "a.h5")
    save(
        tmp_path / "b.h5",
        load(tmp_path / "a.h5", network(1)),
        archive.codebooks,
        storage=storage,
        provenance=archive.provenance,
    )
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@each_storage
def test_the_same_network_gives_the_same_bytes(storage: str, tmp_path: Path) -> None:
    saved(tmp_path / "a.h5", storage)
    saved(tmp_path / "b.h5", storage)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@each_storage
def test_the_report_accounts_for_every_byte(storage: str, tmp_path: Path) -> None:
    model, _, report = saved(tmp_path / "a.h5", storage)
    assert report.bytes == (tmp_path / "a.h5").stat().st_size == sum(report.parts.values())
    assert list(report.parts) == ["indices", "codebooks", "dense", "overhead"]
    assert list(report.tensors) == list(model.state_dict())
    assert sum(report.tensors.values()) == report.bytes - report.parts["overhead"]
    assert report.parts["codebooks"] == 4 * sum(CENTROIDS.values())
    assert all(size >= 0 for size in report.parts.values())


def test_packed_sizes_are_the_documented_ones(tmp_path: Path) -> None:
    _, _, report = saved(tmp_path / "a.h5")
    assert report.tensors["0.weight"] == 16 * 4 + 108 * 4 // 8
    assert report.tensors["0.bias"] == 4
    assert report.tensors["3.weight"] == 5 * 4 + 112 * 3 // 8
    assert report.tensors["3.bias"] == 7 * 4
    assert report.parts["overhead"] < 2048


@each_storage
def test_other_tools_open_the_file(storage: str, tmp_path: Path) -> None:
    model, _, _ = saved(tmp_path / "a.h5", storage)
    with h5py.File(tmp_path / "a.h5", "r") as file:
        assert file.userblock_size == 512
        if storage == "gzip":
            assert np.array_equal(file["tensors/0.weight"][()], model.state_dict()["0.weight"].numpy())
            assert file["tensors/0.weight"].compression == "gzip"
        else:
            assert set(file) == {"manifest", "payload"}


@pytest.mark.parametrize("shape", [(5000, 300), (3, 400_000), (1_000_003,)])
def test_gzip_stores_tensors_of_many_chunks(shape: tuple[int, ...], tmp_path: Path) -> None:
    model = nn.ParameterDict({"clustered": nn.Parameter(torch.randn(shape)), "dense": nn.Parameter(torch.randn(shape))})
    codebooks = quantize(model, {"clustered": 8})
    save(tmp_path / "a.h5", model, codebooks, storage="gzip")
    archive = read(tmp_path / "a.h5")
    assert np.array_equal(archive.codebooks["clustered"].indices, codebooks["clustered"].indices)
    assert np.array_equal(archive.dense["dense"], model["dense"].detach().numpy())


def test_the_network_is_built_from_its_architecture(tmp_path: Path) -> None:
    from requant.models import Architecture, build

    architecture = Architecture("vgg_small", classes=10, channels=1, image_size=16, width=0.25)
    model = build(architecture)
    save(tmp_path / "a.h5", model, {}, architecture=architecture.to_dict())
    loaded = load(tmp_path / "a.h5")
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_an_architecture_that_cannot_be_built_is_an_archive_error(tmp_path: Path) -> None:
    save(tmp_path / "a.h5", network(), {}, architecture={"name": "vgg61"})
    with pytest.raises(ArchiveError, match="cannot be built"):
        load(tmp_path / "a.h5")
    saved(tmp_path / "b.h5")
    with pytest.raises(ArchiveError, match="does not say what network it is"):
        load(tmp_path / "b.h5")


def test_a_network_that_does_not_fit_is_left_as_it_was(tmp_path: Path) -> None:
    saved(tmp_path / "a.h5")
    wider = network(1)
    wider[3] = nn.Linear(16, 8)
    before = {name: tensor.clone() for name, tensor in wider.state_dict().items()}
    with pytest.raises(ArchiveError, match=r"3\.weight is \(\(7, 16\), 'float32'\) in it and \(\(8, 16\)"):
        load(tmp_path / "a.h5", wider)
    assert all(torch.equal(before[name], tensor) for name, tensor in wider.state_dict().items())
    with pytest.raises(ArchiveError, match=r"lacks 3\.0\.bias, 3\.0\.weight; it has 3\.bias, 3\.weight beyond"):
        load(tmp_path / "a.h5", nn.Sequential(*network(1)[:3], nn.Sequential(nn.Linear(16, 7)), network(1)[4]))
    with pytest.raises(ArchiveError, match="float16"):
        load(tmp_path / "a.h5", network(1).half())


def off_its_centroids(model: nn.Module, codebooks: dict[str, Codebook]) -> None:
    model.state_dict()["3.weight"][2, 3] += 1e-6


def not_finite(model: nn.Module, codebooks: dict[str, Codebook]) -> None:
    model.state_dict()["3.bias"][2] = torch.nan


def of_unknown_name(model: nn.Module, codebooks: dict[str, Codebook]) -> None:
    codebooks["3.wieght"] = codebooks["3.weight"]


def of_other_shape(model: nn.Module, codebooks: dict[str, Codebook]) -> None:
    book = codebooks["3.weight"]
    codebooks["3.weight"] = Codebook(book.centroids, book.indices.T)


def of_too_many_centroids(model: nn.Module, codebooks: dict[str, Codebook]) -> None:
    codebooks["3.weight"] = Codebook(np.arange(4097, dtype=np.float32), np.zeros((7, 16), np.uint16))


def of_another_precision(model: nn.Module, codebooks: dict[str, Codebook]) -> None:
    book = codebooks["3.weight"]
    codebooks["3.weight"] = Codebook(book.centroids, book.indices, np.dtype(np.float64))


def of_unknown_type(model: nn.Module, codebooks: dict[str, Codebook]) -> None:
    model.register_buffer("complex", torch.zeros(2, dtype=torch.complex64))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (off_its_centroids, r"3\.weight is not on its centroids"),
        (not_finite, r"3\.bias has values that are NaN"),
        (of_unknown_name, r"no tensor '3\.wieght'; did you mean '3\.weight'"),
        (of_other_shape, r"3\.weight has shape \(7, 16\), and its codebook \(16, 7\)"),
        (of_too_many_centroids, "4097 centroids"),
        (of_another_precision, r"3\.weight is torch\.float32, and its codebook of float64: cluster it again"),
        (of_unknown_type, "complex is torch.complex64"),
    ],
)
def test_what_cannot_be_saved_leaves_the_old_file(spoil, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_text("old")
    model = network()
    codebooks = quantize(model, CENTROIDS)
    spoil(model, codebooks)
    with pytest.raises(ArchiveError, match=message):
        save(path, model, codebooks)
    assert path.read_text() == "old"


def test_settings_that_cannot_be_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArchiveError, match="no storage 'zip'; did you mean 'gzip'"):
        save(tmp_path / "a.h5", network(), {}, storage="zip")
    for provenance in ({"path": Path()}, {"loss": float("nan")}):
        with pytest.raises(ArchiveError, match="plain values"):
            save(tmp_path / "a.h5", network(), {}, provenance=provenance)
    monkeypatch.setattr("requant.archive.manifest.MAX_TEXT", 1000)
    with pytest.raises(ArchiveError, match=r"take .* bytes, above the limit of 1000"):
        save(tmp_path / "a.h5", network(), {}, provenance={"log": "x" * 1000})
    assert not list(tmp_path.iterdir())


def test_a_network_without_tensors_comes_back(tmp_path: Path) -> None:
    for storage in STORAGES:
        save(tmp_path / "a.h5", nn.Flatten(), {}, storage=storage)
        assert read(tmp_path / "a.h5").dense == {}


def test_networks_are_built_without_drawing_weights(tmp_path: Path) -> None:
    from requant.models import Architecture, build

    architecture = Architecture("vgg_small", classes=10, channels=1, image_size=16, width=0.25)
    model = build(architecture)
    save(tmp_path / "a.h5", model, {}, architecture=architecture.to_dict())
    before = torch.get_rng_state()
    loaded = load(tmp_path / "a.h5")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_a_network_without_values_is_not_said_to_be_loaded(tmp_path: Path) -> None:
    save(tmp_path / "a.h5", nn.Sequential(nn.Flatten(), nn.Linear(16, 5)), {})
    with torch.device("meta"):
        nowhere = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    with pytest.raises(ArchiveError, match=r"on the meta device.*to_empty"):
        load(tmp_path / "a.h5", nowhere)
    with pytest.raises(ArchiveError, match="no shape yet: call it once"):
        load(tmp_path / "a.h5", nn.Sequential(nn.Flatten(), nn.LazyLinear(5)))
