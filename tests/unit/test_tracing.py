"""Networks as lists of steps: those whose path depends on sizes, and modules that do more than PyTorch's."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from requant.auto import grids, in_units, step_of
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
    chain = as_chain(model, {"fc"}, batches[0])
    assert len(chain) == 1 or torch.equal(chain[1](chain[0](batches[2])), model(batches[2]))


def test_a_path_that_depends_on_values_is_refused_all_the_same() -> None:
    class Branches(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images if images.sum() > 0 else -images

    with pytest.raises(UserError, match="retrain=proposed takes any network"):
        trace(Branches(), torch.ones(1, 3, 4, 4))


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
