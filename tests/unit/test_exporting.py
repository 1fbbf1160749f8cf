"""Export: the same outputs in another runtime, from a file about as small as the archive."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from requant import archive
from requant.codebook import Codebook, index_dtype
from requant.codebook_factors import FactoredCodebook
from requant.codebook_forms import AnyCodebook, GroupedCodebook, SplitCodebook, VectorCodebook, group_count
from requant.codebook_trellis import TrellisCodebook
from requant.compression import compress
from requant.data import labelled, loader, unlabeled
from requant.errors import UserError
from requant.exporting import export_onnx, export_safetensors
from requant.models import Architecture, build, example_input, load_weights, preprocessing
from requant.onnx_codebooks import Unpacking, share_initializers
from requant.trellis import CODES


def archived(path: Path, architecture: Architecture, centroids: int, weights: str = "none") -> None:
    torch.manual_seed(0)
    model = build(architecture)
    load_weights(model, weights, architecture)
    rules = [{"kind": "weight", "centroids": centroids}]
    found = compress(model, rules, example_input(architecture))
    archive.save(path, found.model, found.codebooks, architecture=architecture.to_dict(), provenance={"hash": "abc"})


def run(path: Path, images: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images.numpy()})[0]


def unpacked(book: AnyCodebook) -> tuple[np.ndarray, int]:
    """What onnxruntime makes of a graph that gives back a codebook's tensor, and the bytes of the graph."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(book.dtype)
    size = onnx.helper.make_tensor_value_info("size", kind, [])
    w = onnx.helper.make_tensor_value_info("w", kind, book.shape)
    node = onnx.helper.make_node("Add", ["q0", "size"], ["w"])  # the graph's own names are left alone
    initial = onnx.numpy_helper.from_array(book.dense(), "q0")
    graph = onnx.helper.make_graph([node], "g", [size], [w], [initial])
    assert Unpacking(onnx, graph).store("q0", book)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"size": np.zeros((), book.dtype)})[0], model.ByteSize()


@given(
    st.sampled_from([1, 2, 3, 4, 8, 9, 16, 17, 32, 33, 64, 127, 128, 256, 257, 2049, 4096]),
    st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    st.integers(0, 2**31),
)
@settings(deadline=None)
def test_a_codebook_is_unpacked_by_standard_operators(k: int, shape: tuple[int, ...], seed: int) -> None:
    draws = np.random.default_rng(seed)
    book = Codebook(np.arange(k, dtype=np.float32) - 1, draws.integers(0, k, shape).astype(index_dtype(k)))
    found, _ = unpacked(book)
    assert found.shape == shape
    assert np.array_equal(found, book.dense())


@given(
    st.sampled_from([3, 4, 16, 31, 65, 128, 129, 256, 257, 1000]),
    st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    st.sampled_from(list(CODES)),
    st.integers(0, 2**31),
)
@settings(deadline=None)
def test_a_trellis_is_followed_by_standard_operators(k: int, shape: tuple[int, ...], states: int, seed: int) -> None:
    indices = np.random.default_rng(seed).integers(0, k - 1, shape).astype(index_dtype(k))  # the last may be above
    book = TrellisCodebook(np.linspace(-1, 2, k, dtype=np.float32), indices, states=states)
    found, _ = unpacked(book)
    assert np.array_equal(found, book.dense())


@given(
    st.sampled_from([1, 2, 5, 16, 300]),
    st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    st.integers(1, 50),
    st.booleans(),
    st.integers(0, 2**31),
)
@settings(deadline=None)
def test_groups_have_their_tables_or_scales(k: int, shape: tuple[int, ...], run: int, scaled: bool, seed: int) -> None:
    draws = np.random.default_rng(seed)
    groups = group_count(shape, run)
    tables = draws.normal(size=(1 if scaled else groups, k)).astype(np.float32)
    scales = draws.normal(size=groups).astype(np.float32) if scaled else None
    indices = draws.integers(0, k, shape).astype(index_dtype(k))
    book = GroupedCodebook(tables, indices, run, scales)
    assert np.array_equal(unpacked(book)[0], book.dense())


@given(
    st.sampled_from([1, 2, 7, 256, 300]),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(1, 9),
    st.integers(0, 2**31),
)
@settings(deadline=None)
def test_blocks_are_vectors(k: int, block: int, blocks: int, rows: int, seed: int) -> None:
    draws = np.random.default_rng(seed)
    indices = draws.integers(0, k, (rows, blocks)).astype(index_dtype(k))
    book = VectorCodebook(draws.normal(size=(k, block)).astype(np.float32), indices, (rows, blocks * block))
    assert np.array_equal(unpacked(book)[0], book.dense())


@given(
    st.lists(st.integers(1, 5), min_size=2, max_size=4).map(tuple),
    st.integers(1, 9),
    st.sampled_from([np.float16, np.float32]),
    st.integers(0, 2**31),
)
@settings(deadline=None)
def test_split_channels_are_added_up(shape: tuple[int, ...], extra: int, dtype: type, seed: int) -> None:
    draws = np.random.default_rng(seed)
    centroids = np.sort(draws.normal(size=11)).astype(np.float32)
    indices = draws.integers(0, 11, (shape[0], shape[1] + extra, *shape[2:])).astype(np.uint8)
    inner = Codebook(centroids, indices, np.dtype(dtype))
    book = SplitCodebook(inner, draws.integers(0, shape[1], extra).astype(np.uint32))
    found, _ = unpacked(book)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, book.dense(), rtol=0, atol=0 if dtype == np.float32 else 0.02)


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 4),
    st.sampled_from([np.float16, np.float32]),
    st.integers(0, 2**31),
)
@settings(deadline=None)
def test_factors_are_multiplied(outputs: int, inputs: int, rank: int, dtype: type, seed: int) -> None:
    draws = np.random.default_rng(seed)
    tables = draws.normal(size=(outputs + inputs, 5)).astype(np.float32)
    indices = draws.integers(0, 5, (outputs + inputs, rank)).astype(np.uint8)
    book = FactoredCodebook(GroupedCodebook(tables, indices, rank, None, np.dtype(dtype)), (outputs, inputs))
    found, _ = unpacked(book)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, book.dense(), rtol=1e-6, atol=1e-6 if dtype == np.float32 else 0.02)


def test_split_channels_and_factors_make_a_file_smaller() -> None:
    draws = np.random.default_rng(0)
    indices = draws.integers(0, 16, (64, 66, 3, 3)).astype(np.uint8)
    split = SplitCodebook(Codebook(np.arange(16, dtype=np.float32), indices), np.uint32([3, 3]))
    factors = Codebook(np.arange(16, dtype=np.float32), draws.integers(0, 16, (300, 20)).astype(np.uint8))
    for book in (split, FactoredCodebook(factors, (200, 100))):
        _, size = unpacked(book)
        assert size < book.indices.size / 2 + 2500


def test_half_precision_stays() -> None:
    indices = np.random.default_rng(0).integers(0, 4, (5, 7)).astype(np.uint8)
    book = Codebook(np.array([-1, 0, 0.1, 3], np.float32), indices, np.dtype(np.float16))
    found, _ = unpacked(book)
    assert found.dtype == np.float16
    assert np.array_equal(found, book.dense())


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 6, 7, 8, 9, 11])
def test_indices_take_the_bits_that_they_need(bits: int) -> None:
    indices = np.random.default_rng(0).integers(0, 1 << bits, (100, 1000)).astype(index_dtype(1 << bits))
    book = Codebook(np.arange(1 << bits, dtype=np.float32), indices)
    assert unpacked(book)[1] < 100_000 * bits / 8 + 4 * (1 << bits) + 2000


def test_what_is_the_same_is_there_once() -> None:
    values = {"a": np.zeros(3, np.float32), "b": np.zeros(3, np.float32), "c": np.zeros((3, 1), np.float32)}
    values["d"] = np.array([0, 0, 1], np.float32)
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Sum", list(values), ["y"])], "g", [], [], tensors)
    share_initializers(onnx, graph)
    assert [tensor.name for tensor in graph.initializer] == ["a", "c", "d"]
    assert list(graph.node[0].input) == ["a", "a", "c", "d"]


def test_a_tensor_that_the_graph_does_not_have_is_left_out() -> None:
    graph = onnx.helper.make_graph([], "g", [], [], [])
    assert not Unpacking(onnx, graph).store("w", Codebook(np.zeros(1, np.float32), np.zeros((3, 3), np.uint8)))
    assert not graph.initializer


@pytest.mark.parametrize(
    ("architecture", "centroids"),
    [
        (Architecture("vgg_small", classes=10, channels=1, image_size=28, width=0.5), 4),
        pytest.param(Architecture("vgg_small", classes=10, channels=1, image_size=28), 2, marks=pytest.mark.slow),
        pytest.param(Architecture("vgg_small", classes=10, channels=1, image_size=28), 200, marks=pytest.mark.slow),
        pytest.param(
            Architecture("resnet50_cifar", classes=10, channels=1, image_size=28, width=0.125),
            16,
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*fewer than 200 centroids")
def test_onnxruntime_computes_what_torch_does(architecture: Architecture, centroids: int, tmp_path: Path) -> None:
    archived(tmp_path / "a.h5", architecture, centroids)
    written = export_onnx(tmp_path / "a.h5", tmp_path / "a.onnx")
    dense = export_onnx(tmp_path / "a.h5", tmp_path / "dense.onnx", dense=True)
    test = labelled("mnist5k", "test", preprocessing(architecture), limit=30)
    images = next(iter(loader(test, 30, shuffle=False)))[0]
    with torch.no_grad():
        expected = archive.load(tmp_path / "a.h5")(images).numpy()
    for path in (written.path, dense.path):
        np.testing.assert_allclose(run(path, images), expected, atol=1e-4)
        np.testing.assert_allclose(run(path, images[:1]), expected[:1], atol=1e-4)
    assert written.bytes == written.path.stat().st_size < dense.bytes
    assert written.bytes < (tmp_path / "a.h5").stat().st_size + 1500 * written.codebooks + 40_000
    facts = {entry.key: json.loads(entry.value) for entry in onnx.load(written.path).metadata_props}
    assert facts["requant.architecture"]["name"] == architecture.name
    assert facts["requant.preprocessing"]["size"] == 28
    assert facts["requant.provenance"] == {"hash": "abc"}


def test_split_channels_and_factors_run_too(tmp_path: Path) -> None:
    architecture = Architecture("vgg_small", classes=10, channels=1, image_size=28, width=0.5)
    torch.manual_seed(0)
    example = example_input(architecture)
    rules = [
        {"kind": "weight", "layers": "2-6", "centroids": 16, "split": 0.1},
        {"kind": "weight", "layers": "7-8", "centroids": 16, "rank": 4},
    ]
    found = compress(build(architecture), rules, example, "kmeans")
    assert {type(book) for book in found.codebooks.values()} == {SplitCodebook, FactoredCodebook}
    archive.save(tmp_path / "a.h5", found.model, found.codebooks, architecture=architecture.to_dict())
    written = export_onnx(tmp_path / "a.h5", tmp_path / "a.onnx")
    assert written.codebooks == len(found.codebooks)
    images = torch.randn(5, *example.shape[1:])
    with torch.no_grad():
        expected = found.model(images).numpy()
    np.testing.assert_allclose(run(written.path, images), expected, atol=1e-4)
    assert written.bytes < export_onnx(tmp_path / "a.h5", tmp_path / "dense.onnx", dense=True).bytes / 1.5


TEACHERS = Path(__file__).parents[2] / "experiments" / "teachers"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "weights"),
    [
        (
            Architecture("vgg16_cifar", classes=10, image_size=32, width=0.25),
            str(TEACHERS / "vgg16_cifar10.safetensors"),
        ),
        (
            Architecture("resnet50_cifar_s2", classes=10, image_size=32, width=0.25),
            str(TEACHERS / "resnet50_cifar10.safetensors"),
        ),
        (Architecture("efficientnet_lite0"), "imagenet"),
    ],
    ids=["vgg", "resnet", "efficientnet"],
)
@pytest.mark.parametrize("centroids", [16, 300])
@pytest.mark.filterwarnings("ignore:.*distinct values, fewer than")
def test_trained_networks_on_photographs(
    architecture: Architecture, weights: str, centroids: int, tmp_path: Path
) -> None:
    archived(tmp_path / "a.h5", architecture, centroids, weights)
    written = export_onnx(tmp_path / "a.h5", tmp_path / "a.onnx")
    crops = unlabeled("photos", preprocessing(architecture), crops=13, seed=0)
    images = next(iter(loader(crops, 13, shuffle=False)))
    images = images[0] if isinstance(images, list | tuple) else images
    with torch.no_grad():
        expected = archive.load(tmp_path / "a.h5")(images).numpy()
    assert expected.std() > 0.1
    np.testing.assert_allclose(run(written.path, images), expected, atol=1e-4)


def test_a_plain_state_dict(tmp_path: Path) -> None:
    architecture = Architecture("vgg_small", classes=10, channels=1, image_size=16, width=0.25)
    archived(tmp_path / "a.h5", architecture, 4)
    written = export_safetensors(tmp_path / "a.h5", tmp_path / "a.safetensors")
    model = build(architecture)
    load_weights(model, str(written.path), architecture)
    expected = archive.load(tmp_path / "a.h5").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_mistakes_are_named_and_write_nothing(tmp_path: Path) -> None:
    architecture = Architecture("vgg_small", classes=10, channels=1, image_size=16, width=0.25)
    archived(tmp_path / "a.h5", architecture, 4)
    with pytest.raises(UserError, match=r"must end in \.onnx"):
        export_onnx(tmp_path / "a.h5", tmp_path / "a.pb")
    with pytest.raises(UserError, match="opset 12"):
        export_onnx(tmp_path / "a.h5", tmp_path / "a.onnx", opset=12)
    model = build(architecture)
    archive.save(tmp_path / "unnamed.h5", model, {})
    with pytest.raises(UserError, match="does not say what network"):
        export_onnx(tmp_path / "unnamed.h5", tmp_path / "a.onnx")
    (tmp_path / "a.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:-9])
    with pytest.raises(UserError, match="truncated"):
        export_onnx(tmp_path / "a.h5", tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()
