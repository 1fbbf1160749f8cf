"""Pruning and low rank before clustering: what they leave, what a file holds of it, and what cannot be done."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from requant import archive
from requant.clustering import cluster, cluster_tensor
from requant.clustering.factoring import factors, rank_of
from requant.codebook import Codebook
from requant.codebook_factors import FactoredCodebook
from requant.compression import check_placed, compress
from requant.errors import ArchiveError, PlanError, UserError
from requant.plan import Rule

WEIGHT = np.random.default_rng(0).laplace(size=(40, 24)).astype(np.float32)
values = st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=60).map(np.float32)


@given(values, st.floats(0, 0.95), st.integers(2, 5))
@pytest.mark.filterwarnings("ignore:.*distinct values:UserWarning")
def test_the_smallest_magnitudes_become_zero_and_no_more_than_the_share(array: Any, share: float, k: int) -> None:
    codebook: Any = cluster_tensor(array, k, "kmeans", name="w", prune=share or 0.5)
    share = share or 0.5
    assert 0.0 in codebook.centroids or not (array == 0).any()
    assert codebook.k <= k
    zero = np.flatnonzero(codebook.centroids == 0)
    pruned = np.isin(codebook.indices, zero) & (np.abs(array) <= np.quantile(np.abs(array), share, method="lower"))
    assert (codebook.dense()[pruned] == 0).all()
    assert np.count_nonzero(pruned & (array != 0)) <= share * array.size
    kept = array[~pruned]
    assert not kept.size or not pruned.any() or np.abs(kept).min() >= np.abs(array[pruned]).max()


def test_a_pruned_share_is_met_where_values_differ() -> None:
    codebook: Any = cluster_tensor(WEIGHT, 5, "kmeans", name="w", prune=0.7)
    assert np.count_nonzero(codebook.dense() == 0) == int(0.7 * WEIGHT.size)
    kept = codebook.dense() != 0
    assert codebook.k == 5
    assert (codebook.dense()[kept] == cluster(WEIGHT[kept], 4).dense()).all()
    assert codebook.entropy_bits < 0.8 * cluster(WEIGHT, 5).entropy_bits


def test_of_equal_magnitudes_all_or_none_are_pruned() -> None:
    array = np.float32([1, -1, 1, -1, 2, 3])
    codebook: Any = cluster_tensor(array, 4, "kmeans", name="w", prune=0.5)
    assert (codebook.dense() != 0).all()
    codebook = cluster_tensor(array, 3, "kmeans", name="w", prune=0.7)
    assert codebook.dense().tolist() == [0, 0, 0, 0, 2, 3]


def test_factors_of_full_rank_make_the_weight_and_share_their_size() -> None:
    low = WEIGHT[:, :6] @ np.random.default_rng(1).normal(size=(6, 24)).astype(np.float32)
    found = factors(low, 6, "w")
    assert found.shape == (64, 6)
    np.testing.assert_allclose(found[:40] @ found[40:].T, low, atol=1e-4)
    assert np.square(found[:40]).mean() == pytest.approx(np.square(found[40:]).mean(), rel=1e-5)
    assert factors(low, 0.999999, "w").shape[1] == 6


def test_factors_that_are_not_smaller_than_the_weight_are_refused() -> None:
    square = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    assert factors(square, 1, "w").shape == (8, 1)
    for rank in (2, 9):
        with pytest.raises(UserError, match=r"as many values as the \(4, 4\) weight: set a rank below 2"):
            factors(square, rank, "w")


@given(st.floats(0.01, 0.99))
def test_a_share_keeps_the_fewest_that_hold_it(share: float) -> None:
    singular = np.linalg.svd(WEIGHT.astype(np.float64), compute_uv=False)
    r = rank_of(singular, share)
    energy = np.square(singular)
    assert energy[:r].sum() >= share * energy.sum() * (1 - 1e-12)
    assert energy[: r - 1].sum() < share * energy.sum()


@pytest.mark.parametrize("settings", [{}, {"prune": 0.5}, {"granularity": "channel_scale"}, {"method": "product"}])
@pytest.mark.parametrize("storage", ["packed", "gzip", "entropy"])
def test_factors_come_back_from_their_file(storage: str, settings: dict[str, Any], tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(24, 40))
    rule = {"kind": "weight", "centroids": 8, "rank": 4, **settings}
    student = compress(model, [rule], torch.zeros(1, 24))
    book: Any = student.codebooks["0.weight"]
    assert (type(book), book.inner.shape, book.shape) == (FactoredCodebook, (64, 4), (40, 24))
    report = archive.save(tmp_path / "small.h5", student.model, student.codebooks, storage=storage)
    assert report.parts["indices"] < 24 * 40 / 2
    stored = archive.read(tmp_path / "small.h5")
    assert stored.provenance is None
    restored = archive.load(tmp_path / "small.h5", model=copy.deepcopy(model))
    assert torch.equal(restored[0].weight, student.model[0].weight)
    assert torch.linalg.matrix_rank(restored[0].weight.double(), rtol=1e-5) == 4
    check_placed(restored, stored.codebooks)
    with pytest.raises(ArchiveError, match="not on its centroids"):
        archive.save(tmp_path / "other.h5", model, student.codebooks, storage=storage)


def test_a_factored_codebook_counts_what_it_holds() -> None:
    inner = cluster(factors(WEIGHT, 3, "w"), 4)
    assert isinstance(inner, Codebook)
    book = FactoredCodebook(inner, (40, 24))
    assert book.entropy_bits == pytest.approx(inner.entropy_bits * 64 * 3 / 960)
    assert (book.part(slice(5, 9)) == book.dense().reshape(-1)[5:9]).all()
    assert book.squared_error(book.dense()) == 0
    with pytest.raises(ValueError, match="do not make"):
        FactoredCodebook(inner, (40, 25))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 16}, "below 15"),
        ({"rank": 2, "split": 0.1}, "leave one of them out"),
        ({"prune": 0.5, "granularity": "channel"}, "one table"),
        ({"prune": 0.5, "method": "product"}, "one table"),
        ({"prune": 0.5, "centroids": 1}, "two centroids"),
    ],
)
def test_what_cannot_be_done_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cluster_tensor(WEIGHT, **{"centroids": 4, "method": "kmeans", "name": "w", **settings})
    with pytest.raises(UserError, match="fully connected"):
        cluster_tensor(WEIGHT[None], 4, "kmeans", name="w", rank=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank must be"),
        ({"rank": 1.5}, "rank must be"),
        ({"rank": True}, "rank must be"),
        ({"prune": 1}, "below 1"),
        ({"prune": "half"}, "below 1"),
        ({"prune": 0.5, "split": 0.1}, "leave one of them out"),
    ],
)
def test_rules_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Rule.from_mapping({"kind": "weight", "centroids": 4, **settings}, 1)


def test_what_modules_keep_beside_their_tensors_is_left_alone() -> None:
    class Extra(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return self.fc(values)

        def get_extra_state(self) -> dict[str, int]:
            return {"calls": 3}

        def set_extra_state(self, _: dict[str, int]) -> None:
            pass

    found = compress(Extra(), [{"kind": "weight", "centroids": 2}], torch.zeros(1, 4))
    assert found.codebooks["fc.weight"].k == 2
