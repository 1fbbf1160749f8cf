"""Layer numbers and kinds: the paper's for its two networks, sensible ones for any other."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from requant.kinds import KINDS
from requant.layers import TensorInfo, describe
from requant.models import Architecture, build, example_input


def described(name: str, **settings: int | float) -> list[TensorInfo]:
    """Of a network on the meta device: no memory, no arithmetic."""
    architecture = Architecture(name, **settings)  # type: ignore[arg-type]
    with torch.device("meta"):
        return describe(build(architecture), example_input(architecture))


def numbers(infos: list[TensorInfo], kind: str) -> dict[str, int]:
    return {info.name: info.layer for info in infos if info.kind == kind}


CIFAR = {"classes": 10, "image_size": 32, "width": 0.125}


@pytest.mark.parametrize(("name", "settings"), [("vgg16", {}), ("vgg16_cifar", CIFAR)])
def test_vgg16_has_the_papers_numbers(name: str, settings: dict[str, int | float]) -> None:
    convolutions = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    expected = [f"features.{i}" for i in convolutions] + [f"classifier.{i}" for i in (0, 3, 6)]
    infos = described(name, **settings)
    for kind in ("weight", "bias"):
        assert numbers(infos, kind) == {f"{layer}.{kind}": number for number, layer in enumerate(expected, start=1)}
    assert {info.kind for info in infos} == {"weight", "bias"}


def resnet50_layers() -> dict[str, int]:
    """Figure 10: 1 the stem, 2-10, 11-22, 23-40, 41-49 the stages, 50 the classifier."""
    expected = {"conv1": 1, "fc": 50}
    for stage, (first, blocks) in enumerate([(2, 3), (11, 4), (23, 6), (41, 3)], start=1):
        expected[f"layer{stage}.0.downsample.0"] = first
        for block in range(blocks):
            for conv in range(3):
                expected[f"layer{stage}.{block}.conv{conv + 1}"] = first + 3 * block + conv
    return expected


@pytest.mark.parametrize(("name", "settings"), [("resnet50", {}), ("resnet50_cifar", CIFAR)])
def test_resnet50_has_the_papers_numbers(name: str, settings: dict[str, int | float]) -> None:
    expected = resnet50_layers()
    infos = described(name, **settings)
    assert numbers(infos, "weight") == {f"{layer}.weight": number for layer, number in expected.items()}
    assert numbers(infos, "bias") == {"fc.bias": 50}
    norms = {
        layer.replace("downsample.0", "downsample.1").replace("conv", "bn"): number
        for layer, number in expected.items()
        if layer != "fc"
    }
    for kind, key in [
        ("bn_alpha", "weight"),
        ("bn_beta", "bias"),
        ("bn_mean", "running_mean"),
        ("bn_std", "running_var"),
    ]:
        assert numbers(infos, kind) == {f"{norm}.{key}": number for norm, number in norms.items()}


def test_tensors_of_a_layer_come_in_the_order_of_the_forward_pass() -> None:
    infos = [
        info.name for info in described("resnet50_cifar", **CIFAR) if info.layer == 2 and "running" not in info.name
    ]
    assert infos == [
        "layer1.0.conv1.weight",
        "layer1.0.bn1.weight",
        "layer1.0.bn1.bias",
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.weight",
        "layer1.0.downsample.1.bias",
    ]


def test_small_network_has_nine_layers() -> None:
    infos = described("vgg_small", classes=10, channels=1, image_size=28)
    assert list(numbers(infos, "weight").values()) == list(range(1, 10))


def test_efficientnet_lite0_counts_every_convolution_of_every_block() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    infos = described("efficientnet_lite0")
    weights = numbers(infos, "weight")
    assert list(weights.values()) == list(range(1, 51))
    assert weights["_conv_stem.weight"] == 1
    assert weights["_blocks.0._depthwise_conv.weight"] == 2
    assert weights["_fc.weight"] == 50
    assert numbers(infos, "bn_std")["_blocks.0._bn2.running_var"] == weights["_blocks.0._project_conv.weight"] == 3


def test_vision_transformer_leaves_its_token_out_and_keeps_attention_together() -> None:
    infos = {info.name: info for info in described("torchvision:vit_b_16")}
    assert infos["class_token"].layer == infos["encoder.pos_embedding"].layer == 0
    assert infos["conv_proj.weight"].layer == 1
    attention = "encoder.layers.encoder_layer_0.self_attention"
    own = {name: info for name, info in infos.items() if name.startswith(attention)}
    assert {info.layer for info in own.values()} == {2}
    assert {name.removeprefix(attention): info.kind for name, info in own.items()} == {
        ".in_proj_weight": "weight",
        ".in_proj_bias": "bias",
        ".out_proj.weight": "weight",
        ".out_proj.bias": "bias",
    }
    assert infos["encoder.ln.weight"] == TensorInfo("encoder.ln.weight", 37, "bn_alpha", (768,))
    assert infos["heads.head.weight"].layer == 38


def test_attention_with_a_called_submodule_is_still_a_layer() -> None:
    """Swin v2 calls a small network for its position bias, and uses qkv's and proj's tensors without calling them."""
    weights = numbers(described("torchvision:swin_v2_t"), "weight")
    assert weights["features.1.0.attn.qkv.weight"] == weights["features.1.0.attn.proj.weight"] == 2
    assert weights["features.1.0.attn.cpb_mlp.0.weight"] == 3


def test_mobilenet_norms_belong_to_their_convolutions() -> None:
    infos = {info.name: info for info in described("torchvision:mobilenet_v2")}
    assert infos["features.0.1.weight"].kind == "bn_alpha"
    assert infos["features.0.1.running_mean"].layer == infos["features.0.0.weight"].layer == 1
    assert infos["classifier.1.weight"].layer == 53


@pytest.mark.parametrize("name", ["timm:resnetv2_50", "timm:resnet26d"])
def test_timm_shortcuts_carry_the_number_of_their_block(name: str) -> None:
    pytest.importorskip("timm")
    weights = numbers(described(name), "weight")
    shortcuts = {name: number for name, number in weights.items() if "downsample" in name}
    assert len(shortcuts) == 4
    for shortcut, number in shortcuts.items():
        block = shortcut.partition("downsample")[0]
        assert number == min(layer for other, layer in weights.items() if other.startswith(block + "conv1"))


def test_downsampling_between_stages_is_a_layer_of_its_own() -> None:
    pytest.importorskip("timm")
    infos = described("timm:convnext_atto")
    weights = numbers([info for info in infos if info.layer], "weight")
    downsampling = weights["stages.1.downsample.1.weight"]
    assert weights["stages.1.blocks.0.conv_dw.weight"] == downsampling + 1
    assert sorted(set(weights.values())) == list(range(1, len(weights) + 1))


class Oddities(nn.Module):
    """Tied weights, a layer called twice, a head never called, a norm of matrices, a tensor of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.unused = nn.Linear(4, 2)
        self.last = nn.Linear(4, 4, bias=False)
        self.first = nn.Linear(4, 4)
        self.norm = nn.LayerNorm([1, 4])
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(self.first(x * self.scale)).unsqueeze(1)).squeeze(1)
        return self.last(self.tied(x))  # type: ignore[no-any-return]


def test_tied_repeated_and_unused_modules() -> None:
    infos = {info.name: (info.layer, info.kind) for info in describe(Oddities(), torch.zeros(1, 4))}
    assert infos == {
        "scale": (0, "bn_alpha"),
        "unused.weight": (0, "weight"),
        "unused.bias": (0, "bias"),
        "first.weight": (1, "weight"),
        "first.bias": (1, "bias"),
        "norm.weight": (1, "bn_alpha"),
        "norm.bias": (1, "bn_beta"),
        "last.weight": (2, "weight"),
    }


def test_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.LazyLinear(2)).half()
    model(torch.zeros(1, 3, 4, 4, dtype=torch.half))
    model.train()
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    describe(model, torch.zeros(1, 3, 4, 4))
    assert [module.training for module in model] == [True, False, True, True, True]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_hooks_and_modes_are_restored_when_the_forward_pass_fails() -> None:
    model = nn.Sequential(nn.Linear(4, 4)).train()
    with pytest.raises(RuntimeError):
        describe(model, torch.zeros(1, 5))
    assert model[0].training
    assert not model[0]._forward_pre_hooks


@pytest.mark.parametrize(
    "module",
    [lambda: nn.Linear(3, 2), lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)],
    ids=["alone", "fused"],
)
def test_every_parameter_of_a_single_module_is_in_layer_one_or_later(module: Callable[[], nn.Module]) -> None:
    model = module()
    shape = (1, 3) if isinstance(model, nn.Linear) else (1, 5, 4)
    infos = describe(model, torch.zeros(shape))
    assert {info.name for info in infos} == {name for name, _ in model.named_parameters()}
    assert min(info.layer for info in infos if info.kind == "weight") == 1


@pytest.mark.parametrize(
    "name", ["vgg_small", "resnet50_cifar", "torchvision:mobilenet_v3_small", "torchvision:convnext_tiny"]
)
def test_description_is_complete_and_sorted(name: str) -> None:
    settings = {"classes": 10, "image_size": 32}
    architecture = Architecture(name, **settings)  # type: ignore[arg-type]
    with torch.device("meta"):
        model = build(architecture)
    infos = describe(model, example_input(architecture))
    state = model.state_dict()
    expected = {key: tuple(tensor.shape) for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    assert {info.name: info.shape for info in infos} == expected
    assert len(infos) == len(expected)
    assert [info.layer for info in infos] == sorted(info.layer for info in infos)
    assert {info.kind for info in infos} <= set(KINDS)
    assert all(info.values == state[info.name].numel() for info in infos)
