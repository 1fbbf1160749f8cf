import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from archives import CENTROIDS, network, quantize, saved
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

from requant import inspection
from requant.archive import STORAGES, save
from requant.codebook import Codebook
from requant.inspection import Difference, Inspection, TensorDifference, diff, inspect
from requant.layers import describe
from requant.listing import difference_tables, inspection_tables
from requant.models import Architecture, build, example_input

SMALL = Architecture("vgg_small", classes=3, channels=1, image_size=16, width=0.25)
GOLDEN = Path(__file__).parents[1] / "golden"


def shown(found: Inspection | Difference, width: int = 80) -> str:
    tables = inspection_tables if isinstance(found, Inspection) else difference_tables
    console = Console(width=width, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(*tables(found, width), sep="\n")
    return capture.get()


def small(path: Path, architecture: dict[str, Any] | None, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    model = build(SMALL)
    codebooks = quantize(model, {"features.2.weight": 8, "features.2.bias": 1})
    save(path, model, codebooks, architecture=architecture, **more)
    return model


def changed(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> dict[str, TensorDifference]:
    """The differences between two archives that `saved` made, after `change` to the second's tensors."""
    saved(path / "a.h5")
    model = network()
    codebooks = quantize(model, CENTROIDS)
    with torch.no_grad():
        change(model.state_dict())
    save(path / "b.h5", model, codebooks)
    return {tensor.name: tensor for tensor in diff(path / "a.h5", path / "b.h5").tensors}


@pytest.mark.parametrize("storage", STORAGES)
def test_every_byte_of_the_file_is_in_one_place(tmp_path: Path, storage: str) -> None:
    model, codebooks, report = saved(tmp_path / "a.h5", storage)
    found = inspect(tmp_path / "a.h5")
    assert [tensor.name for tensor in found.tensors] == list(model.state_dict())
    assert sum(tensor.bytes for tensor in found.tensors) + found.parts["overhead"] == found.bytes == report.bytes
    assert sum(tensor.share for tensor in found.tensors) == pytest.approx(1 - found.parts["overhead"] / found.bytes)
    for tensor in found.tensors:
        codebook = codebooks.get(tensor.name)
        assert tensor.shape == tuple(model.state_dict()[tensor.name].shape)
        assert (tensor.centroids, tensor.entropy_bits) == (codebook and codebook.k, codebook and codebook.entropy_bits)
        assert (tensor.bits_per_weight or 0) * tensor.values == pytest.approx(8 * tensor.bytes)


def test_layers_and_kinds_come_from_the_architecture_in_the_file(tmp_path: Path) -> None:
    model = small(tmp_path / "a.h5", SMALL.to_dict())
    found = {tensor.name: (tensor.layer, tensor.kind) for tensor in inspect(tmp_path / "a.h5").tensors}
    assert found == {info.name: (info.layer, info.kind) for info in describe(model, example_input(SMALL))}


@pytest.mark.parametrize("architecture", [None, {"name": "of_the_future"}])
def test_without_a_network_to_build_there_are_no_layers_and_the_rest_is_there(
    tmp_path: Path, architecture: dict[str, Any] | None
) -> None:
    small(tmp_path / "a.h5", architecture)
    found = inspect(tmp_path / "a.h5")
    assert {(tensor.layer, tensor.kind) for tensor in found.tensors} == {(None, None)}
    assert found.layers_unknown
    text = shown(found)
    assert "weight" in text
    assert "layer " not in text
    assert ("of_the_future" in text) == (architecture is not None)


def test_methods_are_shown_where_provenance_has_them(tmp_path: Path) -> None:
    small(tmp_path / "a.h5", None)
    assert " method " not in shown(inspect(tmp_path / "a.h5"))
    small(tmp_path / "a.h5", None, provenance={"methods": {"features.2.weight": "kmeans"}})
    found = inspect(tmp_path / "a.h5")
    assert [tensor.name for tensor in found.tensors if tensor.method == "kmeans"] == ["features.2.weight"]
    assert " method " in shown(found)
    assert shown(found).count("kmeans") == 1


def test_the_format_is_the_files() -> None:
    assert inspect(GOLDEN / "archive_packed_1.h5").format == 1


def test_an_inspection_is_plain_json(tmp_path: Path) -> None:
    saved(tmp_path / "a.h5")
    data = json.loads(json.dumps(asdict(inspect(tmp_path / "a.h5")), allow_nan=False))
    assert data["provenance"] == {"seed": 0, "über": [1.5, None]}
    assert {tensor["name"]: tensor["centroids"] for tensor in data["tensors"] if tensor["centroids"]} == CENTROIDS


def test_a_file_cannot_command_the_terminal(tmp_path: Path) -> None:
    model = nn.Module()
    model.register_buffer("[red]a\x1b[2J", torch.zeros(2))
    save(tmp_path / "a.h5", model, {}, provenance={"by\x9b31m": "\x1b]0;title\x07\r[blink]me\nsize 0 bytes"})
    inspected, compared = shown(inspect(tmp_path / "a.h5")), shown(diff(tmp_path / "a.h5", tmp_path / "a.h5"))
    for text in (inspected, compared):
        assert all(letter.isprintable() or letter == "\n" for letter in text)
        assert r"[red]a\x1b[2J" in text
    assert r"\r[blink]me\nsize 0 bytes" in inspected


def test_one_method_may_stand_for_all(tmp_path: Path) -> None:
    small(tmp_path / "a.h5", None, provenance={"methods": "kmeans"})
    found = inspect(tmp_path / "a.h5")
    assert {t.method for t in found.tensors if t.centroids} == {"kmeans"}
    assert {t.method for t in found.tensors if not t.centroids} == {None}


def test_what_is_shown_fits_80_columns_with_every_number_whole(tmp_path: Path) -> None:
    model = nn.Sequential()
    for name in ("a" * 60, "b" * 90):
        model.register_buffer(name, torch.full((64, 17, 3, 3), 0.1))
    save(tmp_path / "a.h5", model, {}, provenance={"methods": {"a" * 60: "equal_population"}})
    found = inspect(tmp_path / "a.h5")
    text = shown(found)
    assert max(map(len, text.splitlines())) <= 80
    assert max(map(len, shown(diff(tmp_path / "a.h5", tmp_path / "a.h5")).splitlines())) <= 80
    assert text.count("39,168") == text.count("64x17x3x3") == 2
    assert "a" * 60 in shown(found, width=1000)


@pytest.mark.parametrize("storage", STORAGES)
def test_storage_and_provenance_make_no_difference(tmp_path: Path, storage: str) -> None:
    saved(tmp_path / "a.h5", storage)
    found = diff(tmp_path / "a.h5", GOLDEN / "archive_packed_1.h5")
    assert found.equal
    assert "Equal" in shown(found)


@settings(deadline=None, max_examples=15)
@given(name=st.sampled_from(["1.weight", "3.bias", "4.of_64_bits"]), position=st.integers(0, 99), step=st.floats(1, 9))
def test_a_changed_value_is_the_one_difference(
    tmp_path_factory: pytest.TempPathFactory, name: str, position: int, step: float
) -> None:
    sizes = []

    def change(state: dict[str, torch.Tensor]) -> None:
        flat = state[name].view(-1)
        before = flat[position % flat.numel()].item()
        flat[position % flat.numel()] += step
        sizes.append(abs(flat[position % flat.numel()].item() - before))

    found = changed(tmp_path_factory.mktemp("diff"), change)
    assert [tensor.name for tensor in found.values() if not tensor.equal] == [name]
    assert found[name].largest == sizes[0]


def test_integers_and_truth_values_are_compared_too(tmp_path: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        state["1.num_batches_tracked"] += 1
        state["4.mask"][1] = True

    found = changed(tmp_path, change)
    assert {name: tensor.largest for name, tensor in found.items() if not tensor.equal} == {
        "1.num_batches_tracked": 1.0,
        "4.mask": 1.0,
    }


@settings(deadline=None, max_examples=15)
@given(data=st.data(), k=st.integers(1, 9))
def test_the_share_of_changed_indices_and_the_largest_difference_are_numpys(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, k: int
) -> None:
    rows = st.lists(st.integers(0, k - 1), min_size=12, max_size=12)
    folder = tmp_path_factory.mktemp("indices")
    books = [
        Codebook(np.arange(k, dtype=np.float32) + shift, np.array(data.draw(rows), np.uint8).reshape(3, 4))
        for shift in (0, data.draw(st.integers(0, 2)))
    ]
    for name, codebook in zip("ab", books, strict=True):
        model = nn.Module()
        model.register_buffer("tensor", torch.from_numpy(codebook.dense()))
        save(folder / name, model, {"tensor": codebook})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspection, "CHUNK", 5)
        (found,) = diff(folder / "a", folder / "b").tensors
    assert found.indices_changed == np.mean(books[0].indices != books[1].indices)
    assert found.largest == np.abs(books[0].dense() - books[1].dense()).max()
    assert found.equal == (found.largest == 0)


def test_the_same_values_stored_otherwise_differ(tmp_path: Path) -> None:
    model, codebooks, _ = saved(tmp_path / "a.h5")
    save(tmp_path / "b.h5", model, {name: book for name, book in codebooks.items() if name != "3.weight"})
    found = diff(tmp_path / "a.h5", tmp_path / "b.h5")
    (tensor,) = [tensor for tensor in found.tensors if not tensor.equal]
    assert (tensor.name, tensor.largest, tensor.indices_changed) == ("3.weight", 0.0, None)
    assert (tensor.before and tensor.before.centroids, tensor.after and tensor.after.centroids) == (5, None)
    assert "1 of 14 tensors differ" in shown(found)


def test_tensors_of_other_shapes_and_tensors_of_one_side_are_told_apart(tmp_path: Path) -> None:
    for name, tensors in {"a": {"same": 2, "wider": 3, "gone": 4}, "b": {"same": 2, "wider": 5, "new": 6}}.items():
        model = nn.Module()
        for key, size in tensors.items():
            model.register_buffer(key, torch.zeros(size))
        save(tmp_path / name, model, {})
    found = diff(tmp_path / "a", tmp_path / "b")
    assert {tensor.name: tensor.equal for tensor in found.tensors} == {
        "same": True,
        "wider": False,
        "gone": False,
        "new": False,
    }
    assert all(tensor.largest is None for tensor in found.tensors if not tensor.equal)
    text = shown(found)
    assert text.count("not there") == 2
    assert "dense, 3 float32" in text
    assert "dense, 5 float32" in text


def test_another_description_of_the_network_is_a_difference(tmp_path: Path) -> None:
    small(tmp_path / "a.h5", SMALL.to_dict())
    small(tmp_path / "b.h5", SMALL.to_dict() | {"image_size": 17})
    found = diff(tmp_path / "a.h5", tmp_path / "b.h5")
    assert all(tensor.equal for tensor in found.tensors)
    assert not found.equal
    assert "described differently" in shown(found)
