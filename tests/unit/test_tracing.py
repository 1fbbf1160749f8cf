"""Networks as lists of steps: those whose path depends on sizes, and modules that do more than PyTorch's."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from test_reconstruction import images
from torch import Tensor, nn
from torchvision.models import SwinTransformer, VisionTransformer
from torchvision.models.swin_transformer import SwinTransformerBlockV2

from requant.auto import grids, in_units, measured, step_of
from requant.clustering import cluster
from requant.compression import check_placed, place
from requant.errors import UserError
from requant.reconstruction import reconstruct
from requant.reconstruction.graph import Walk, layers, norm_of, trace
from requant.sensitivity.chain import as_chain


class Sizes(nn.Module):
    """Pads what is odd, as TensorFlow does, and goes from an image to its windows and back."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 2, stride=2)
        self.fc = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] % 2:
            images = F.pad(images, (0, 1, 0, 1))
        features = self.conv(images)
        n, channels, height, width = features.shape
        assert height % 2 == 0
        windows = features.view(n, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 3, 5, 1)
        tokens = windows.reshape(n * (height // 2) * (width // 2), 4, channels)
        assert len(tokens.size()) == tokens.dim() == 3
        return self.fc(tokens.to(images.dtype)).reshape(n, -1, 5).mean(1)


def test_a_path_may_depend_on_the_size_of_the_images() -> None:
    model = Sizes().eval()
    with pytest.raises(UserError, match="cannot be listed"):
        trace(model)
    graph = trace(model, torch.zeros(1, 3, 15, 15))
    assert [layer.weight for layer in layers(model, graph).values()] == ["conv.weight", "fc.weight"]
    batches = [torch.randn(count, 3, 15, 15) for count in (1, 2, 7)]
    assert all(map(torch.equal, walked(model, batches), map(model, batches)))
    found = batches[2]
    for piece in as_chain(model, {"conv", "fc"}, batches[0]):
        found = piece(found)
    assert torch.equal(found, model(batches[2]))


@pytest.mark.parametrize("move", [lambda model: model.to("meta"), lambda model: model.double()])
def test_the_example_is_taken_to_the_networks_device_and_precision(move: Callable[[nn.Module], nn.Module]) -> None:
    model = move(Sizes().eval())
    graph = trace(model, torch.zeros(1, 3, 15, 15))
    assert [layer.weight for layer in layers(model, graph).values()] == ["conv.weight", "fc.weight"]


@pytest.mark.parametrize("example", [None, torch.ones(1, 3, 4, 4)])
def test_a_path_that_depends_on_values_is_refused(example: Tensor | None) -> None:
    class Branches(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images if images.sum() > 0 else -images

    with pytest.raises(UserError, match="retrain=proposed takes any network"):
        trace(Branches(), example)


def test_inputs_beside_the_images_keep_their_defaults() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, values: Tensor, mask: Tensor | None = None, flip: bool = False, *, by: float = 2.0) -> Tensor:
            found = self.fc(values) * by
            if mask is not None:
                found = found * mask
            return -found if flip else found

    model, batch = Masked().eval(), torch.randn(3, 4)
    graph = trace(model)
    walk = Walk(model, graph, [batch])
    for node in graph.nodes:
        walk.compute(node)
    assert torch.equal(walk.values[list(graph.nodes)[-1]][0], model(batch))
    assert [node.op for node in graph.nodes].count("placeholder") == 1


def test_layers_may_be_given_their_inputs_by_name() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)

        def forward(self, images: Tensor) -> Tensor:
            hidden = F.conv2d(images, weight=self.conv.weight, bias=self.conv.bias, stride=2).relu().mean((2, 3))
            return F.linear(weight=self.fc.weight, input=hidden, bias=self.fc.bias)

    torch.manual_seed(0)
    model, batches = Named().eval(), [images(16, 16, seed=seed) for seed in range(2)]
    assert torch.equal(walked(model, batches)[0], model(batches[0]))
    found = grids(model, batches[0][:1], list(batches[0].split(1)))
    assert [layer.weight for layer in found.layers] == ["conv.weight", "fc.weight"]
    plain = measured(found, 0.01, batches).at(step_of(found, 100))
    student, books = reconstruct(model, plain.codebooks, batches, 0.1)
    check_placed(student, books)


def test_tensors_that_a_network_makes_are_there_for_its_student() -> None:
    class Makes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 10)

        def forward(self, values: Tensor) -> Tensor:
            return self.fc(values * torch.linspace(1, 2, 6)) + torch.arange(10)

    torch.manual_seed(0)
    model, batch = Makes().eval(), torch.randn(32, 6)
    books = {"fc.weight": cluster(model.fc.weight.detach().numpy(), 4, "kmeans")}
    student, books = reconstruct(model, books, [batch], 0.1)
    check_placed(student, books)


TRANSFORMERS = {
    "vit": lambda: VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=10),
    "swin": lambda: SwinTransformer([2, 2], 16, [2], [2], [4, 4], num_classes=10),
    "swin_v2": lambda: SwinTransformer([2, 2], 16, [2], [2], [4, 4], num_classes=10, block=SwinTransformerBlockV2),
}
"""Attention is one step to torch.fx in both: PyTorch's module, and a function that torchvision keeps whole."""


def transformer(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = TRANSFORMERS[name]()
    for parameter in model.parameters():
        spread = 0.3 if parameter.ndim > 1 else 0.1
        nn.init.normal_(parameter, float(parameter.detach().mean()), spread)
    return model.eval()


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_attention_is_followed(name: str) -> None:
    model, batches = transformer(name), [images(count, 32) for count in (1, 4)]
    names = {layer.weight for layer in layers(model, trace(model, batches[0])).values()}
    modules = {key for key, found in model.named_modules() if isinstance(found, nn.Linear | nn.Conv2d)}
    of_places = {key for key in modules if "cpb_mlp" in key}  # sees no images
    assert modules - of_places == {key.removesuffix(".weight") for key in names if key.endswith(".weight")}
    assert sum(key.endswith("in_proj_weight") for key in names) == (2 if name == "vit" else 0)
    for found, batch in zip(walked(model, batches), batches, strict=True):
        wanted = model(batch).detach()
        assert torch.allclose(found, wanted, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_are_reconstructed_attention_and_all(name: str) -> None:
    model, batches = transformer(name), [images(16, 32, seed=seed) for seed in range(2)]
    names = [layer.weight for layer in layers(model, trace(model, batches[0])).values()]
    books = {name: cluster(model.get_parameter(name).detach().numpy(), 8, "kmeans") for name in names}
    rounded = copy.deepcopy(model)
    place(rounded, books)
    student, books = reconstruct(model, books, batches, 0.1)
    check_placed(student, books)
    with torch.no_grad():
        wanted, before, after = (network(torch.cat(batches)) for network in (model, rounded, student))
    assert float((after - wanted).norm()) < 0.7 * float((before - wanted).norm())


class Attends(nn.Module):
    def __init__(self, given: dict[str, Any], **settings: Any) -> None:
        super().__init__()
        self.attention, self.given = nn.MultiheadAttention(8, 2, **settings), given

    def forward(self, tokens: Tensor) -> Tensor:
        found, weights = self.attention(tokens, tokens, tokens, **self.given)
        return found + weights.sum() if self.given.get("need_weights", True) else found


@pytest.mark.parametrize(
    ("settings", "given"),
    [
        ({"batch_first": True}, {}),  # its weights are wanted
        ({"batch_first": True}, {"need_weights": False, "attn_mask": torch.eye(5, dtype=torch.bool)}),
        ({}, {"need_weights": False}),
        ({"batch_first": True, "add_bias_kv": True}, {"need_weights": False}),
        ({"batch_first": True, "add_zero_attn": True}, {"need_weights": False}),
    ],
)
def test_other_attention_stays_one_step(settings: dict[str, Any], given: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model, batches = Attends(given, **settings).eval(), [torch.randn(4, 5, 8)]
    assert not layers(model, trace(model, batches[0]))
    assert torch.allclose(walked(model, batches)[0], model(batches[0]), atol=1e-6)


def test_a_bias_that_is_computed_counts_as_one() -> None:
    class Doubled(nn.Module):
        def __init__(self, of_images: bool) -> None:
            super().__init__()
            self.fc, self.of_images = nn.Linear(6, 4), of_images

        def forward(self, values: Tensor) -> Tensor:
            bias = self.fc.bias * 2 + (values.mean() if self.of_images else 0)
            return F.linear(values, self.fc.weight, bias)

    assert not layers(Doubled(True), trace(Doubled(True)))
    torch.manual_seed(0)
    model, batches = Doubled(False), [torch.rand(64, 6)]
    nn.init.constant_(model.fc.bias, 3.0)
    books = {"fc.weight": cluster(model.fc.weight.detach().numpy(), 4, "kmeans")}
    rounded = copy.deepcopy(model)
    place(rounded, books)
    student, _ = reconstruct(model, books, batches, 0.1)
    wanted, before, after = (network(batches[0]).detach() for network in (model, rounded, student))
    assert float((after - wanted).norm()) < float((before - wanted).norm())


def walked(model: nn.Module, batches: list[Tensor]) -> list[Tensor]:
    walk = Walk(model, trace(model, batches[0]), batches)
    for node in walk.graph.nodes:
        walk.compute(node)
        walk.forget(node)
    (outputs,) = walk.values.values()
    return list(outputs)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilevit_xxs", "regnety_002", "vit_tiny_patch16_224"])
def test_networks_of_timm_are_followed(name: str) -> None:
    torch.manual_seed(0)
    size = {"img_size": 64} if name.startswith("vit") else {}
    model = timm.create_model(name, pretrained=False, num_classes=10, **size).eval()
    batches = [torch.randn(count, 3, 64, 64) for count in (1, 4)]
    graph = trace(model, batches[0])
    weights = sum(model.get_parameter(layer.weight).numel() for layer in layers(model, graph).values())
    assert weights > 0.97 * sum(parameter.numel() for parameter in model.parameters())
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert {norm_of(model, node) for node in graph.nodes} - {None} == norms
    for found, batch in zip(walked(model, batches), batches, strict=True):
        wanted = model(batch).detach()
        assert torch.allclose(found, wanted, atol=1e-5 * float(wanted.abs().max()))


def test_norms_with_an_activation_behind_are_corrected_and_take_their_layers_units() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 3, bias=False)
            self.norm = timm.layers.BatchNormAct2d(16)
            self.fc = nn.Linear(16, 10)

        def forward(self, images: Tensor) -> Tensor:
            return self.fc(self.norm(self.conv(images)).mean((2, 3)))

    torch.manual_seed(0)
    model = Network().eval()
    batches = [torch.randn(64, 3, 12, 12) for _ in range(2)]
    found = grids(model, batches[0][:1], list(batches[0].split(1)))
    assert [layer.norm for layer in found.layers] == ["norm", None]
    plain = found.at(step_of(found, 180))
    student, books = reconstruct(found.base, plain.codebooks, batches, 0.1)
    assert not torch.equal(student.norm.weight, found.base.norm.weight)
    with torch.no_grad():
        before, after = (float((network(batches[0]) - model(batches[0])).norm()) for network in (plain.model, student))
    assert after < before
    _, books = in_units(found, student, books)
    assert books["conv.weight"].centroids[-1] == books["conv.weight"].k // 2
