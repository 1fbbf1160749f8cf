"""Work that runs share: once for all, the same bits, whatever happens to the files."""

import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from requant import shared as module
from requant.clustering import METHODS, cluster
from requant.shared import Shared, SharedClusterer, shared

TENSORS = {"outputs": torch.arange(12.0).reshape(3, 4), "labels": torch.tensor([1, 2])}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REQUANT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def ask(identity: object = 1, tensors: dict[str, torch.Tensor] = TENSORS) -> Shared:
    return shared("outputs", {"of": identity}, lambda: tensors)


def kept(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.safetensors"))


def same(found: Shared) -> bool:
    return found.tensors.keys() == TENSORS.keys() and all(torch.equal(found.tensors[k], TENSORS[k]) for k in TENSORS)


def test_the_second_to_ask_reads_what_the_first_computed_and_what_it_took() -> None:
    first, second = ask(), ask(tensors={})
    assert (first.found, second.found) == (False, True)
    assert same(second)
    assert second.seconds == first.seconds


def test_another_identity_or_number_of_threads_is_computed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    ask()
    assert not ask(identity=2).found
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert not ask().found


@pytest.mark.parametrize("damage", [lambda data: data[:40], lambda data: data[:-1] + b"\x7f", lambda _: b""])
def test_a_damaged_file_is_computed_and_kept_anew(cache: Path, damage: object) -> None:
    ask()
    (path,) = kept(cache)
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    again = ask()
    assert not again.found
    assert same(again)
    assert ask().found


def test_an_error_keeps_nothing(cache: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        shared("outputs", {}, lambda: {"a": torch.tensor(1 / 0)})
    assert not kept(cache)


def test_a_full_disk_is_told_and_the_result_is_there(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.safetensors.torch, "save_file", full)
    with pytest.warns(UserWarning, match="make room"):
        assert same(ask())
    assert not kept(cache)


def test_a_cache_that_cannot_be_written_to_is_left_alone(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.joinpath("file").write_text("no folder")
    monkeypatch.setenv("REQUANT_CACHE", str(cache.parent / "file" / "cache"))
    assert same(ask())
    assert not ask().found


def test_what_was_not_used_for_longest_makes_room(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age, identity in enumerate("abc"):
        ask(identity)
        newest = max(kept(cache), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (1000 + age, 1000 + age))
    assert ask("a").found  # and is used last now
    size = kept(cache)[0].stat().st_size
    monkeypatch.setattr(module, "MOST_BYTES", 7 * size // 2)  # sizes differ by some bytes: seconds are in them
    ask("d")
    assert len(kept(cache)) == 3
    assert [identity for identity in "acd" if ask(identity).found] == ["a", "c", "d"]
    assert not ask("b").found


def test_of_several_that_ask_at_once_one_computes() -> None:
    computed = []

    def compute() -> dict[str, torch.Tensor]:
        computed.append(time.sleep(0.3))
        return TENSORS

    with ThreadPoolExecutor() as threads:  # each holds the lock's file open by itself, as a process would
        found = list(threads.map(lambda _: shared("outputs", {}, compute), range(3)))
    assert sorted(one.found for one in found) == [False, True, True]
    assert len(computed) == 1
    assert all(same(one) for one in found)


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("faiss", "exact")])
def test_clusters_are_those_of_the_clustering_kept_or_not(method: str) -> None:
    values = torch.randn(64, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    values = values.to(memory_format=torch.channels_last)
    options = {"bits": 3.0} if method == "entropy" else {}
    clusterer, expected = SharedClusterer(), cluster(values, 16, method, **options)
    for _ in range(2):
        found = clusterer(values, 16, method, **options)
        assert np.array_equal(found.centroids, expected.centroids)
        assert np.array_equal(found.indices, expected.indices)
    assert clusterer.found == 1


def test_other_values_options_and_k_are_clustered_anew_and_warnings_are_said_again() -> None:
    values = torch.randn(8192, generator=torch.Generator().manual_seed(0))
    clusterer = SharedClusterer()
    clusterer(values, 8, "linear")
    clusterer(values, 16, "linear")
    clusterer(values, 8, "linear", centroid="middle")
    clusterer(-values, 8, "linear")
    assert clusterer.found == 0
    for _ in range(2):
        with pytest.warns(UserWarning, match="w has 2 distinct values, fewer than 8"):
            clusterer(values.sign(), 8, "kmeans", name="w")
    assert clusterer.found == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clusterer(values[:100], 8, "kmeans")  # few values: not worth a file
    assert clusterer.found == 1


def test_clusters_that_are_empty_are_no_lack_of_distinct_values() -> None:
    values = torch.randn(8192, generator=torch.Generator().manual_seed(0)) ** 9
    clusterer = SharedClusterer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, kept = (clusterer(values, 32, "linear") for _ in range(2))
    assert first.k == kept.k < 32
    assert clusterer.found == 1
