"""Export: the same outputs in another runtime, from a file about as small as the archive."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from requant import archive
from requant.codebook import Codebook, index_dtype
from requant.compression import compress
from requant.data import labelled, loader, unlabeled
from requant.errors import UserError
from requant.exporting import export_onnx, export_safetensors, packed_indices
from requant.models import Architecture, build, example_input, load_weights, preprocessing


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


@given(st.data(), st.sampled_from([1, 2, 3, 4, 9, 16, 17, 256, 300]), st.integers(1, 20))
def test_packed_indices_unpack_by_shift_and_mask(data: st.DataObject, k: int, n: int) -> None:
    values = np.array(data.draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n)), index_dtype(k))
    packed, bits = packed_indices(Codebook(np.arange(k, dtype=np.float32), values))
    if bits < 8:
        packed = (packed >> np.arange(0, 8, bits, dtype=np.uint8) & ((1 << bits) - 1)).reshape(-1)[:n]
    assert np.array_equal(packed, values)


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
    content, state = archive.read(tmp_path / "a.h5"), archive.load(tmp_path / "a.h5").state_dict()
    indices = sum(packed_indices(book)[0].nbytes for book in content.codebooks.values())
    dense_bytes = sum(value.nbytes for name, value in state.items() if name not in content.codebooks)
    assert written.bytes < indices + dense_bytes + 1000 * written.codebooks + 40_000
    facts = {entry.key: json.loads(entry.value) for entry in onnx.load(written.path).metadata_props}
    assert facts["requant.architecture"]["name"] == architecture.name
    assert facts["requant.preprocessing"]["size"] == 28
    assert facts["requant.provenance"] == {"hash": "abc"}


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
