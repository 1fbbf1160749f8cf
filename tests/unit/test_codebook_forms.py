"""Groups, scales, vectors and split channels: what they are, and that every storage holds them."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import requant
from requant.archive import STORAGES, load, read, save
from requant.archive.forms import from_arrays, to_arrays
from requant.clustering import METHODS, cluster, cluster_split
from requant.clustering.splitting import split_channels
from requant.codebook import Codebook
from requant.codebook_factors import FactoredCodebook
from requant.codebook_forms import AnyCodebook, GroupedCodebook, SplitCodebook, VectorCodebook, scalars
from requant.errors import UserError
from requant.inspection import diff, inspect
from requant.reconstruction import reconstruct

SCALAR = tuple(method for method in METHODS if method != "product")
GROUPS = ("channel", "channel_scale", "group:50", "group_scale:50")
each_storage = pytest.mark.parametrize("storage", STORAGES)


def weights(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Channels of different scales, as networks have them."""
    draw = np.random.default_rng(seed)
    scales = draw.uniform(0.2, 3, (shape[0], *(1 for _ in shape[1:])))
    return (draw.laplace(size=shape) * scales).astype(np.float32)


def clustered(values: np.ndarray, k: int, method: str, granularity: str) -> AnyCodebook:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*distinct values, fewer than.*")
        return cluster(values, k, method, granularity=granularity, **({"bits": 1.5} if method == "entropy" else {}))


@pytest.mark.parametrize("method", SCALAR)
def test_a_channel_alone_is_clustered_as_it_would_be_by_itself(method: str) -> None:
    values = weights((5, 3, 4, 4))
    book = clustered(values, 6, method, "channel")
    for channel in range(5):
        alone = clustered(values[channel], 6, method, "tensor")
        assert np.array_equal(book.dense()[channel], alone.dense())


@pytest.mark.parametrize("method", SCALAR)
@pytest.mark.parametrize("granularity", GROUPS)
def test_groups_have_the_form_they_say(method: str, granularity: str) -> None:
    values = weights((6, 5, 7))
    book = clustered(values, 4, method, granularity)
    assert isinstance(book, GroupedCodebook)
    assert book.run == (35 if "channel" in granularity else 50)
    assert book.groups == (6 if "channel" in granularity else 5)
    assert (book.scales is None) == ("scale" not in granularity)
    dense = book.dense().reshape(-1)
    assert book.squared_error(values) == pytest.approx(((values.reshape(-1) - dense.astype(float)) ** 2).sum())
    for start in range(0, 210, book.run):
        assert len(np.unique(dense[start : start + book.run])) <= 4


@given(st.integers(1, 12), st.integers(1, 70), st.integers(0, 99), st.booleans())
@settings(max_examples=60, deadline=None)
def test_finer_groups_are_never_worse_than_one_table(k: int, run: int, seed: int, channels: bool) -> None:
    values = weights((4, 33), seed)
    finer = clustered(values, k, "exact", "channel" if channels else f"group:{run}")
    whole = clustered(values, k, "exact", "tensor")
    assert finer.squared_error(values) <= whole.squared_error(values) * (1 + 1e-6) + 1e-30


def test_scales_pay_where_channels_differ_in_scale() -> None:
    values = weights((64, 200), 3)
    scaled, plain = clustered(values, 16, "kmeans", "channel_scale"), clustered(values, 16, "kmeans", "tensor")
    assert scaled.squared_error(values) < 0.8 * plain.squared_error(values)


@given(st.floats(1e-30, 1e30), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_scaling_the_values_scales_what_replaces_them(factor: float, seed: int) -> None:
    factor = 2.0 ** round(np.log2(factor))
    values = weights((4, 40), seed)
    for granularity in ("channel", "channel_scale"):
        book = clustered(values, 4, "kmeans", granularity)
        scaled = clustered(values * np.float32(factor), 4, "kmeans", granularity)
        assert np.array_equal(scaled.dense(), book.dense() * np.float32(factor))


def test_weights_count_in_every_group() -> None:
    values, counted = weights((3, 60)), np.ones((3, 60))
    counted[:, ::2] = 0
    for granularity in ("channel", "channel_scale"):
        book = cluster(values, 30, "kmeans", weights=counted, granularity=granularity)
        error = np.square(values - book.dense())
        assert (error[:, 1::2].mean(1) < error[:, ::2].mean(1)).all()
        if granularity == "channel":  # thirty values that count, and as many centroids
            assert error[:, 1::2].max() < 1e-4 * error.max()


def test_a_group_in_which_nothing_counts_is_clustered_as_if_all_did() -> None:
    values, counted = weights((2, 40)), np.ones((2, 40))
    counted[0] = 0
    book = cluster(values, 3, "kmeans", weights=counted, granularity="channel")
    assert np.array_equal(book.dense(), cluster(values, 3, "kmeans", granularity="channel").dense())


@pytest.mark.parametrize("seed", range(6))
def test_scales_that_fit_the_table_are_better_than_first_ones(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values, errors = weights((6, 30), seed), []
    for rounds in (1, 2, 4):
        monkeypatch.setattr("requant.clustering.groups.ROUNDS", rounds)
        errors.append(cluster(values, 3, granularity="channel_scale").squared_error(values))
    assert errors[2] <= errors[1] < errors[0]


@pytest.mark.parametrize("values", [np.zeros((3, 8)), np.full((2, 6), 1e-42), np.array([[1e38, -1e38], [1e-38, 0]])])
@pytest.mark.parametrize("granularity", GROUPS)
def test_zeros_denormals_and_huge_values_survive_scales(values: np.ndarray, granularity: str) -> None:
    values = values.astype(np.float32)
    book = clustered(values, 3, "kmeans", granularity)
    assert np.isfinite(book.dense()).all()
    assert np.abs(book.dense() - values).max() <= np.abs(values).max() * 0.01


@pytest.mark.parametrize("granularity", ["chanel", "group", "group:0", "group:-3", "channel:4", "tensor:1", "", "x:1"])
def test_a_granularity_that_means_nothing_is_refused(granularity: str) -> None:
    with pytest.raises(UserError, match="granularity must be tensor, channel"):
        cluster(np.ones((2, 2)), 2, granularity=granularity)


def test_groups_as_large_as_the_tensor_are_one_table() -> None:
    values = weights((4, 9))
    for granularity in ("group:36", "group:99", "group_scale:99"):
        assert isinstance(cluster(values, 3, granularity=granularity), Codebook)
    assert isinstance(cluster(values[0], 3, granularity="channel"), Codebook)


@given(st.integers(0, 30), st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_split_channels_add_up_to_what_they_were(extra: int, seed: int) -> None:
    values = weights((4, 6, 3), seed)
    split, sources = split_channels(values, extra)
    assert split.shape == (4, 6 + extra, 3)
    whole = split[:, :6].astype(np.float64)
    for position, source in enumerate(sources):
        whole[:, source] += split[:, 6 + position]
    assert np.array_equal(whole.astype(np.float32), values)
    assert np.abs(split).max() <= np.abs(values).max()
    if extra:
        assert np.abs(split).max() < np.abs(values).max()


class Duplicated(nn.Module):
    """A layer on inputs some of which are given twice: Zhao et al.'s form of the network."""

    def __init__(self, layer: nn.Module, extra: int) -> None:
        super().__init__()
        split, sources = split_channels(layer.weight.detach().numpy(), extra)
        self.inputs = [*range(layer.weight.shape[1]), *sources.tolist()]
        if isinstance(layer, nn.Linear):
            self.layer = nn.Linear(split.shape[1], split.shape[0])
        else:
            self.layer = nn.Conv2d(split.shape[1], split.shape[0], 3)
        self.layer.weight.data, self.layer.bias.data = torch.from_numpy(split), layer.bias.data

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x[:, self.inputs])


def test_a_split_network_computes_what_it_did() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)
    )
    x = torch.randn(64, 3, 8, 8)
    split = nn.Sequential(*(Duplicated(m, 5) if hasattr(m, "weight") else m for m in network))
    assert torch.allclose(split(x), network(x), atol=1e-6)
    merged = copy.deepcopy(network)
    with (
        warnings.catch_warnings(),
        torch.no_grad(),
    ):  # so many centroids that nothing is lost: only the splitting is left
        warnings.filterwarnings("ignore", message=".*distinct values, fewer than.*")
        for name, parameter in merged.named_parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.from_numpy(cluster_split(parameter, 4096, "kmeans", 0.3, name=name).dense()))
    assert torch.allclose(merged(x), network(x), atol=1e-6)


def test_splitting_is_for_tensors_with_input_channels() -> None:
    for shape in ((8,), (8, 1, 3, 3)):
        assert isinstance(cluster_split(weights(shape), 2, "kmeans", 0.5, name="w"), Codebook)
    with pytest.raises(UserError, match="split must be from 0 to 1"):
        cluster_split(weights((4, 4)), 2, "kmeans", 1.5, name="w")


def test_splitting_halves_what_an_outlier_costs_linear_cells() -> None:
    values = weights((32, 64))
    values[3, 7] = 100
    plain = cluster_split(values, 16, "linear", 0, name="w")
    split = cluster_split(values, 16, "linear", 0.05, name="w")
    assert split.squared_error(values) < 0.5 * plain.squared_error(values)


FORMS = {
    "channel": lambda v: cluster(v, 5, granularity="channel"),
    "channel_scale": lambda v: cluster(v, 16, granularity="channel_scale"),
    "group": lambda v: cluster(v, 3, granularity="group:17"),
    "group_scale": lambda v: cluster(v, 2, granularity="group_scale:100"),
    "vectors": lambda v: cluster(v, 20, "product"),
    "many": lambda v: cluster(v, 600),
    "split": lambda v: cluster_split(v, 7, "kmeans", 0.3, name="w"),
    "split channel": lambda v: cluster_split(v, 7, "kmeans", 0.3, name="w", granularity="channel"),
    "split vectors": lambda v: cluster_split(v, 7, "product", 0.3, name="w"),
    "half": lambda v: cluster(v.astype(np.float16), 7),
    "double scale": lambda v: cluster(v.astype(np.float64), 7, granularity="channel_scale"),
    "one": lambda v: cluster(v, 1, granularity="channel"),
    "one vector": lambda v: cluster(v, 1, "product"),
}


def network_of(values: np.ndarray) -> nn.Module:
    layer = nn.Conv2d(values.shape[1], values.shape[0], 3)
    layer.weight.data = torch.from_numpy(values.copy())
    return nn.Sequential(layer, nn.ReLU())


@each_storage
@pytest.mark.parametrize("form", FORMS)
def test_every_storage_holds_every_form(form: str, storage: str, tmp_path: Path) -> None:
    book = FORMS[form](weights((12, 8, 3, 3)))
    model = network_of(book.dense())
    report = save(tmp_path / "a.h5", model, {"0.weight": book}, storage=storage)
    found = read(tmp_path / "a.h5")
    assert set(found.codebooks) == {"0.weight"}
    assert set(found.dense) == {"0.bias"}
    assert list(report.tensors) == ["0.weight", "0.bias"]
    assert found.report == report
    assert report.bytes == sum(report.parts.values()) == (tmp_path / "a.h5").stat().st_size
    back = found.codebooks["0.weight"]
    assert type(back) is type(book)
    assert (back.k, back.shape, back.dtype) == (book.k, book.shape, book.dtype)
    assert np.array_equal(back.indices, book.indices)
    assert np.array_equal(back.dense(), book.dense())
    assert back.entropy_bits == book.entropy_bits
    assert np.array_equal(from_arrays(to_arrays(book)).dense(), book.dense())
    loaded = load(tmp_path / "a.h5", network_of(np.zeros_like(book.dense())))
    assert torch.equal(loaded[0].weight, model[0].weight)
    save(tmp_path / "b.h5", loaded, found.codebooks, storage=storage)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_what_a_form_adds_is_counted(tmp_path: Path) -> None:
    values = weights((64, 32, 3, 3))
    size = {}
    for name, granularity in {
        "tensor": "tensor",
        "channel": "channel",
        "scale": "channel_scale",
    }.items():
        book = cluster(values, 16, granularity=granularity)
        report = save(tmp_path / "a.h5", network_of(book.dense()), {"0.weight": book})
        size[name] = report.tensors["0.weight"]
    indices = values.size // 2
    assert size["tensor"] == indices + 64
    assert size["channel"] == indices + 2 * 16 + 4 * 64 * 16  # ranks in 16 bits; a table each
    assert size["scale"] == indices + 64 + 2 * 64  # factors in 16 bits
    split = cluster_split(values, 16, "kmeans", 0.1, name="w")
    report = save(tmp_path / "a.h5", network_of(split.dense()), {"0.weight": split})
    assert report.tensors["0.weight"] == 64 * 36 * 9 // 2 + 64 + 4 * 4


def test_entropies_are_those_of_the_indices_a_value_of_the_tensor() -> None:
    indices = np.uint8([[0, 1], [2, 3]])  # two bits each
    vectors = VectorCodebook(np.zeros((4, 4), np.float32), indices, (2, 8))
    assert vectors.entropy_bits == 2 / 4
    plain = Codebook(np.arange(4, dtype=np.float32), np.uint8([[0, 1, 2, 3], [3, 2, 1, 0]]))
    assert SplitCodebook(plain, np.uint32([0])).entropy_bits == 2 * 8 / 6  # eight indices stand for six values
    factors = Codebook(np.arange(4, dtype=np.float32), np.uint8([[0], [1], [2], [3]]))
    assert FactoredCodebook(factors, (2, 2)).entropy_bits == 2 * 4 / 4
    assert FactoredCodebook(factors, (1, 3)).entropy_bits == 2 * 4 / 3
    with pytest.raises(ValueError, match="do not make a weight"):
        FactoredCodebook(factors, (2, 3))


def test_other_parts_say_what_they_need() -> None:
    books: dict[str, AnyCodebook] = {"w": cluster(weights((4, 12)), 3, granularity="channel")}
    with pytest.raises(UserError, match=r"reconstruction needs one table .* w has a table or a scale for each group"):
        scalars(books, "reconstruction")
    with pytest.raises(UserError, match="table of vectors"):
        scalars({"w": cluster(weights((4, 12)), 3, "product")}, "this")
    with pytest.raises(UserError, match="split channels"):
        scalars({"w": cluster_split(weights((4, 12)), 3, "kmeans", 0.5, name="w")}, "this")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dense_has_the_element_type_of_what_was_clustered(dtype: type) -> None:
    values = weights((6, 20)).astype(dtype)
    for book in (cluster(values, 4), cluster(values, 4, granularity="channel"), cluster(values, 4, "product")):
        assert book.dense().dtype == dtype
        assert book.dense().shape == values.shape
        assert book.squared_error(book.dense()) == 0
    book = cluster(torch.from_numpy(values), 4)
    assert torch.equal(
        torch.empty(6, 20, dtype=torch.from_numpy(values).dtype).copy_(torch.from_numpy(book.dense())),
        torch.from_numpy(book.dense()),
    )
    exact = cluster(values, 120)
    assert np.array_equal(exact.dense(), values.astype(np.float32).astype(dtype))


@pytest.mark.parametrize(
    "broken",
    [
        lambda: GroupedCodebook(np.zeros((2, 2), np.float32), np.zeros((3, 2), np.uint8), 2),
        lambda: GroupedCodebook(np.zeros((1, 2), np.float32), np.zeros((3, 2), np.uint8), 2, np.ones(2, np.float32)),
        lambda: GroupedCodebook(np.zeros((1, 2), np.float32), np.zeros((2, 2), np.uint8), 2, np.float32([1, np.inf])),
        lambda: GroupedCodebook(np.full((3, 2), np.nan, np.float32), np.zeros((3, 2), np.uint8), 2),
        lambda: VectorCodebook(np.zeros((2, 4), np.float32), np.zeros((3, 2), np.uint8), (3, 4)),
        lambda: VectorCodebook(np.zeros((2, 3), np.float32), np.zeros((3, 1), np.uint8), (3, 4)),
        lambda: VectorCodebook(np.zeros((2, 4), np.float32), np.full((3, 1), 2, np.uint8), (3, 4)),
        lambda: SplitCodebook(Codebook(np.zeros(1, np.float32), np.zeros((3, 2), np.uint8)), np.uint32([1])),
        lambda: Codebook(np.zeros(1, np.float32), np.zeros((3, 2), np.uint8), np.dtype(np.int32)),
    ],
)
def test_arrays_of_another_form_are_refused(broken) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        broken()


def test_rules_choose_forms_and_the_network_goes_the_whole_way(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1),
        nn.Flatten(), nn.Linear(8 * 16, 10),
    ).eval()  # fmt: skip
    images = torch.randn(32, 3, 8, 8)
    rules = [
        {"layers": 1, "kind": "weight", "centroids": 4, "granularity": "channel"},
        {"layers": 2, "kind": "weight", "centroids": 16, "method": "product"},
        {"layers": 3, "kind": "weight", "centroids": 8, "split": 0.2, "method": "linear"},
        {"kind": "bias", "centroids": 1},
        {"layers": 4, "kind": "weight", "centroids": 300},
    ]
    student = requant.compress(teacher, rules, images[:1], granularity="channel_scale")
    assert [a.described for a in student.assignments] == [
        "kmeans, channel", "kmeans, channel_scale", "product", "kmeans, channel_scale",
        "linear, channel_scale, split 0.2", "kmeans, channel_scale", "kmeans, channel_scale", "kmeans, channel_scale",
    ]  # fmt: skip
    kinds = {name: type(book) for name, book in student.codebooks.items()}
    assert kinds["0.weight"] is kinds["7.weight"] is GroupedCodebook
    assert (kinds["3.weight"], kinds["5.weight"], kinds["0.bias"]) == (VectorCodebook, SplitCodebook, Codebook)
    requant.retrain(student.model, teacher, images, codebooks=student.codebooks, recipe=requant.Recipe(epochs=1))
    for storage in STORAGES:
        requant.save(tmp_path / "a.h5", student.model, student.codebooks, storage=storage)
        restored = requant.load(tmp_path / "a.h5", model=copy.deepcopy(teacher))
        assert torch.equal(restored(images), student.model.eval()(images))
        assert [t.centroids for t in inspect(tmp_path / "a.h5").tensors if t.name == "3.weight"] == [16]
        assert diff(tmp_path / "a.h5", tmp_path / "a.h5").equal
    with pytest.raises(UserError, match="reconstruction needs one table"):
        reconstruct(teacher, student.codebooks, [images])


def test_faiss_uses_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With faiss-cpu's Kmeans in place of the one that faiss-gpu has."""
    library, asked = pytest.importorskip("faiss"), []
    plain = library.Kmeans

    def kmeans(*args: object, gpu: bool, **settings: object) -> object:
        asked.append(gpu)
        return plain(*args, **settings)

    monkeypatch.setattr(library, "Kmeans", kmeans)
    for gpus in (0, 2):
        monkeypatch.setattr(library, "get_num_gpus", lambda gpus=gpus: gpus, raising=False)
        for method in ("faiss", "product"):
            cluster(weights((8, 16)), 4, method)
    assert asked == [False, False, True, True]
