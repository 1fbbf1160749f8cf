"""Networks of Hugging Face: from a folder, to an archive, and back without the folder."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from test_tracing import walked
from torch import nn

from requant import hugging_face as names
from requant import load, read, save
from requant.data.pixels import evaluation_view, normalised
from requant.errors import ArchiveError, ConfigError, WeightsError
from requant.models import Architecture, build, described, hugging_face, load_weights, preprocessing
from requant.network_names import name_by_content, name_in_file
from requant.reconstruction.graph import layers, norm_of, trace

SIZE = 32
CLASSES = 10


def resnet() -> Any:
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16], depths=[1, 1, 1], layer_type="basic", num_labels=CLASSES
    )
    return transformers.ResNetForImageClassification(config)


def vit(classes: int = CLASSES) -> Any:
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=SIZE,
        patch_size=8,
        num_labels=classes,
    )
    return transformers.ViTForImageClassification(config)


def mobilenet() -> Any:
    return transformers.MobileNetV2ForImageClassification(
        transformers.MobileNetV2Config(depth_multiplier=0.35, image_size=SIZE, num_labels=CLASSES)
    )


def swin() -> Any:
    config = transformers.SwinConfig(
        image_size=SIZE, patch_size=2, embed_dim=12, depths=[2, 2], num_heads=[2, 4], window_size=4, num_labels=CLASSES
    )
    return transformers.SwinForImageClassification(config)


def convnext() -> Any:
    config = transformers.ConvNextConfig(hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 2, 1], num_labels=CLASSES)
    return transformers.ConvNextForImageClassification(config)


def segformer() -> Any:
    config = transformers.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        num_attention_heads=[1, 2],
        patch_sizes=[3, 3],
        strides=[2, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        num_labels=CLASSES,
    )
    return transformers.SegformerForSemanticSegmentation(config)


PROCESSOR = {
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.25, 0.25, 0.2],
    "size": {"height": SIZE, "width": SIZE},
    "resample": 3,
}


def written(path: Path, model: Any, processor: dict[str, Any] | None = None) -> str:
    """The network in a folder; gives the name."""
    model.save_pretrained(path)
    (path / names.PREPROCESSOR).write_text(json.dumps(PROCESSOR if processor is None else processor))
    return f"huggingface:{path}"


def architecture(name: str, **settings: Any) -> Architecture:
    return Architecture(name, CLASSES, 3, SIZE, **settings)


@pytest.fixture
def net(tmp_path: Path) -> str:
    torch.manual_seed(0)
    return written(tmp_path / "net", resnet())


@pytest.mark.parametrize("make", [resnet, vit, mobilenet, swin, convnext, segformer])
def test_its_networks_are_followed(make: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    model = make().eval()
    batches = [torch.randn(count, 3, SIZE, SIZE) for count in (1, 3)]
    graph = trace(model, batches[0])
    weights = sum(model.get_parameter(layer.weight).numel() for layer in layers(model, graph).values())
    assert weights > 0.9 * sum(parameter.numel() for parameter in model.parameters())
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert {norm_of(model, node) for node in graph.nodes} - {None} == norms
    for found, batch in zip(walked(model, batches), batches, strict=True):
        wanted = model(batch).logits.detach()
        assert torch.allclose(found, wanted, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("make", [resnet, vit, segformer])
def test_it_goes_to_an_archive_and_back_without_its_folder(
    make: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = make().eval()
    found = described(architecture(written(tmp_path / "net", model)))
    path = tmp_path / "net.h5"
    save(path, model, {}, architecture=found.to_dict())
    assert str(tmp_path) not in json.dumps(read(path).architecture)
    shutil.rmtree(tmp_path / "net")
    monkeypatch.chdir(tmp_path)
    images = torch.randn(2, 3, SIZE, SIZE)
    again = load(path)
    with torch.no_grad():
        assert torch.equal(again(images).logits, model(images).logits)


def test_its_weights_are_those_of_the_folder(net: str, tmp_path: Path) -> None:
    found = described(architecture(net))
    model = build(found)
    load_weights(model, "published", found)
    wanted = transformers.ResNetForImageClassification.from_pretrained(tmp_path / "net").state_dict()
    assert model.state_dict().keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())


def test_half_precision_in_the_folder_is_single_in_the_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    found = described(architecture(written(tmp_path / "net", resnet().half())))
    model = build(found)
    load_weights(model, "published", found)
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}


def test_weights_without_its_head_are_refused(tmp_path: Path) -> None:
    whole = vit()
    name = written(tmp_path / "net", whole)
    whole.vit.save_pretrained(tmp_path / "body")
    shutil.copy(tmp_path / "body" / names.WEIGHTS, tmp_path / "net" / names.WEIGHTS)
    found = described(architecture(name))
    with pytest.raises(WeightsError, match=r"lacks weights of ViTForImageClassification: classifier"):
        load_weights(build(found), "published", found)


def test_pickled_weights_are_refused(net: str, tmp_path: Path) -> None:
    (tmp_path / "net" / names.WEIGHTS).unlink()
    torch.save(resnet().state_dict(), tmp_path / "net" / "pytorch_model.bin")
    found = described(architecture(net))
    with pytest.raises(WeightsError, match="write them with save_pretrained, which makes safetensors"):
        load_weights(build(found), "published", found)


def test_settings_that_are_not_its_own_are_said_all_at_once(tmp_path: Path) -> None:
    name = written(tmp_path / "net", vit(classes=7))
    with pytest.raises(ConfigError, match=r"set model.classes=7 model.image_size=32$"):
        described(Architecture(name, 10, 3, 64))
    cropping = {"size": {"shortest_edge": 64}, "do_center_crop": True, "crop_size": {"height": 48, "width": 48}}
    name = written(tmp_path / "cropping", resnet(), PROCESSOR | cropping)
    with pytest.raises(ConfigError, match=r"set model.image_size=48$"):
        described(architecture(name))
    (tmp_path / "net" / names.PREPROCESSOR).unlink()
    with pytest.raises(ConfigError, match=r"set model.image_size=32$"):
        described(Architecture(f"huggingface:{tmp_path / 'net'}", 7, 3, 64))


@pytest.mark.parametrize(
    ("processor", "resize", "whole"),
    [
        ({}, 32, True),
        ({"size": {"shortest_edge": 32}}, 32, False),
        ({"size": {"shortest_edge": 32}, "crop_pct": 0.875}, 36, False),
        ({"size": {"shortest_edge": 37}, "do_center_crop": True, "crop_size": 32}, 37, False),
        ({"size": 37, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}}, 37, False),
        ({"size": {"height": 37, "width": 37}, "do_center_crop": True}, 32, False),
    ],
)
def test_images_are_resized_as_its_processor_says(
    processor: dict[str, Any], resize: int, whole: bool, tmp_path: Path
) -> None:
    found = preprocessing(described(architecture(written(tmp_path / "net", resnet(), PROCESSOR | processor))))
    assert (found.size, found.resize, found.whole, found.interpolation) == (SIZE, resize, whole, "bicubic")
    assert (found.mean, found.std) == ((0.5, 0.4, 0.3), (0.25, 0.25, 0.2))


def test_images_that_are_not_normalised_are_left_from_0_to_1(tmp_path: Path) -> None:
    name = written(tmp_path / "net", resnet(), PROCESSOR | {"do_normalize": False})
    found = preprocessing(described(architecture(name)))
    assert (found.mean, found.std) == ((0.0,) * 3, (1.0,) * 3)


def test_its_processor_makes_the_same_of_an_image(tmp_path: Path) -> None:
    processor = transformers.ViTImageProcessor(
        image_mean=[0.5, 0.4, 0.3], image_std=[0.25, 0.25, 0.2], size={"height": SIZE, "width": SIZE}
    )
    name = written(tmp_path / "net", vit())
    processor.save_pretrained(tmp_path / "net")
    image = torch.randint(256, (3, 40, 70), dtype=torch.uint8)
    wanted = processor(image, return_tensors="pt")["pixel_values"][0]
    found = preprocessing(described(architecture(name)))
    ours = normalised(evaluation_view(image, found), found)
    assert torch.allclose(wanted, ours, atol=0.02)  # it rounds to bytes in between, or does not


@pytest.mark.parametrize(
    ("processor", "said"),
    [
        ({"do_flip_channel_order": True}, "wants blue first"),
        ({"rescale_factor": 1 / 127.5}, "say how its training images were normalised"),
        ({"image_mean": None}, "lacks image_mean"),
    ],
)
def test_images_that_cannot_be_made_are_refused(processor: dict[str, Any], said: str, tmp_path: Path) -> None:
    name = written(tmp_path / "net", resnet(), PROCESSOR | processor)
    with pytest.raises(ConfigError, match=said):
        described(architecture(name))
    by_hand = described(architecture(name, mean=(0.5,) * 3, std=(0.5,) * 3))
    assert preprocessing(by_hand).mean == (0.5,) * 3


def test_without_a_processor_the_user_is_asked(net: str, tmp_path: Path) -> None:
    (tmp_path / "net" / names.PREPROCESSOR).unlink()
    with pytest.raises(ConfigError, match=r"has no preprocessor_config.json: say how .* model.mean"):
        described(architecture(net))


def test_places_without_a_network_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"has no config.json: name a folder that save_pretrained has written"):
        described(architecture(f"huggingface:{tmp_path / 'empty'}"))
    asked = []

    def nothing(place: str, **_: Any) -> str:
        asked.append(place)
        raise OSError("no way there\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", nothing)
    with pytest.raises(ConfigError, match=r"hub does not give it \(no way there\): name a folder"):
        described(architecture("huggingface:owner/missing"))
    assert asked == ["owner/missing"]


def test_a_name_on_the_hub_is_fetched_once(net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetched(place: str, allow_patterns: list[str]) -> str:
        assert "model.safetensors" in allow_patterns
        assert not any("bin" in pattern for pattern in allow_patterns)
        asked.append(place)
        return str(tmp_path / "net")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    found = described(architecture("huggingface:owner/fetched"))
    load_weights(build(found), "published", found)
    assert name_in_file(found.name) == "huggingface:fetched"
    assert name_by_content(found.name) == name_by_content(net)
    assert asked == ["owner/fetched"]


def test_its_name_by_content_follows_weights_and_configuration(net: str, tmp_path: Path) -> None:
    found = {name_by_content(net)}
    for file in (names.CONFIG, names.PREPROCESSOR, names.WEIGHTS):
        other = shutil.copytree(tmp_path / "net", tmp_path / file)
        with (other / file).open("ab") as content:
            content.write(b" ")
        found.add(name_by_content(f"huggingface:{other}"))
    assert len(found) == 4
    assert name_in_file(net) == "huggingface:net"
    assert name_in_file(name_in_file(net)) == "huggingface:net"


def test_networks_of_other_kinds_are_refused(tmp_path: Path) -> None:
    config = transformers.ViTMAEConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=SIZE)
    model = transformers.ViTMAEForPreTraining(config)
    found = described(architecture(written(tmp_path / "net", model)))
    with pytest.raises(ConfigError, match=r"names ViTMAEForPreTraining, where one of .*ForImageClassification"):
        build(found)


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_damaged_configuration_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / names.CONFIG).write_text(text)
    with pytest.raises(ConfigError, match=r"transformers cannot read .*config.json"):
        described(architecture(f"huggingface:{tmp_path / 'net'}"))


def test_code_of_its_own_is_not_run(net: str, tmp_path: Path) -> None:
    config = json.loads((tmp_path / "net" / names.CONFIG).read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (tmp_path / "net" / names.CONFIG).write_text(json.dumps(config))
    (tmp_path / "net" / "mine.py").write_text("raise SystemExit('run')")
    with pytest.raises(ConfigError, match="a network of code of its own goes by model=own"):
        described(architecture(net))


def forged(name: str, **changes: Any) -> Architecture:
    """As a file from elsewhere may have it."""
    found = described(architecture(name))
    assert found.config is not None
    stored = json.loads(found.config)
    stored["network"] |= changes
    return replace(found, name="huggingface:net", config=json.dumps(stored))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_sizes": [10**9]}, "hidden_sizes=1e"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers"),
        ({"depths": [5000, 1, 1]}, "depths=5000"),
        ({"hidden_sizes": [8] * 5000}, "5,000 of hidden_sizes"),
        ({"hidden_sizes": "many"}, "cannot be made of its configuration"),
        ({"architectures": ["os"]}, "names os"),
        ({"architectures": []}, "names none"),
        ({"architectures": ["AutoModel"]}, "names AutoModel"),
        ({"architectures": "NoForImageClassification"}, "names NoForImageClassification"),
        ({"num_labels": 3}, "puts out"),
    ],
)
def test_a_forged_configuration_is_refused(changes: dict[str, Any], said: str, net: str, tmp_path: Path) -> None:
    found = forged(net, **changes)
    with pytest.raises(ConfigError, match=said):
        build(found)
    save(tmp_path / "net.h5", resnet(), {}, architecture=found.to_dict())
    with pytest.raises(ArchiveError, match="cannot be built"):
        load(tmp_path / "net.h5")


def test_what_would_fetch_code_is_left_out(net: str) -> None:
    model = build(forged(net, _attn_implementation="owner/kernel", attn_implementation="owner/kernel", auto_map={}))
    assert "owner" not in json.dumps(model.config.to_dict(), default=str)


@pytest.mark.parametrize(
    "text", [None, "", "[]", "{}", '{"network": 1, "resize": 2, "interpolation": "bilinear", "whole": true}']
)
def test_a_network_without_a_configuration_is_refused(text: str | None) -> None:
    with pytest.raises(ConfigError, match=r"describe it by requant.models.described"):
        build(architecture("huggingface:net", config=text))


def test_a_configuration_has_a_bound() -> None:
    with pytest.raises(ConfigError, match="at most 100,000 characters"):
        architecture("huggingface:net", config=" " * 100_001)


def test_without_transformers_the_user_is_told(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(hugging_face.importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"pip install 'requant\[huggingface\]'"):
        described(architecture(net))
