"""Weights that a network has and never computes with: they take no bytes, and the outputs stay."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_reconstruction import images
from torch import Tensor, nn

import requant
from requant import auto
from requant.auto import grids
from requant.reconstruction.graph import idle, trace
from requant.retraining.trainable import freeze_idle

SIZE = 4_000


class WithHead(nn.Module):
    """Has a head that only training uses; `checks`: as torch.fx cannot follow."""

    def __init__(self, checks: bool = False) -> None:
        super().__init__()
        self.checks = checks
        self.first, self.norm, self.second = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3)
        self.fc = nn.Linear(16, 10)
        self.same = self.fc  # under another name
        self.head = nn.Sequential(nn.Conv2d(16, 64, 3), nn.BatchNorm2d(64), nn.Conv2d(64, 64, 3))
        self.scale = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, images: Tensor, **_: Any) -> Tensor:
        if self.checks and images.shape[1] != 3:
            raise ValueError("other channels")
        features = self.second(self.norm(self.first(images * self.scale)).relu()).relu()
        if self.training:
            features = self.head(features)
        return self.same(features.mean((2, 3)))


def network(checks: bool = False) -> nn.Module:
    torch.manual_seed(0)
    model = WithHead(checks).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1 and parameter.shape != model.scale.shape:
            nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    return model


@pytest.mark.parametrize("checks", [False, True])
def test_what_no_step_uses_is_found(checks: bool) -> None:
    model = network(checks)
    assert {name.partition(".")[0] for name in idle(model, trace(model, images(1, 16)))} == {"head"}


def test_it_takes_no_bytes_and_the_outputs_stay(tmp_path: Path) -> None:
    model, batch = network(), images(64, 16)
    with pytest.warns(UserWarning, match="never computes with head.0.weight, head.0.bias, .* and 3 more, 46,"):
        found = requant.compress_to(model, batch, size=SIZE)
    path = tmp_path / "small.h5"
    report = requant.save(path, found.model, found.codebooks, storage="entropy")
    assert report.bytes <= SIZE < sum(parameter.numel() for parameter in model.head.parameters()) / 8
    again = requant.load(path, network())
    assert not any(parameter.any() for parameter in again.head.parameters())
    with torch.no_grad():
        wanted, got = model(batch), again(batch)
    assert float((wanted - got).norm()) < 0.05 * float((wanted - wanted.mean(0)).norm())
    assert model.head[0].weight.any()


@pytest.mark.filterwarnings("ignore:training moved")  # there is nothing left to win
def test_its_codebooks_are_trained_beside_it() -> None:
    recipe = requant.Recipe(epochs=1, batch_size=32, optimizer="adam", learning_rate=1e-3)
    with pytest.warns(UserWarning, match="never computes"):
        found = requant.compress_to(network(), images(64, 16), size=SIZE, recipe=recipe)
    assert found.codebooks["head.0.weight"].k == 1


def test_a_network_of_which_all_is_used_says_nothing(recwarn: pytest.WarningsRecorder) -> None:
    model = network()
    del model.head
    assert grids(model, images(1, 16), list(images(8, 16).split(1))).idle == []
    assert not [warning for warning in recwarn if "never computes" in str(warning.message)]


def test_what_is_needed_after_all_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    monkeypatch.setattr(auto, "idle", lambda *_: ["second.weight"])  # as if a step hid it
    found = grids(model, images(1, 16), list(images(8, 16).split(1)))
    assert found.idle == []
    assert torch.equal(found.base.get_parameter("second.weight"), model.get_parameter("second.weight"))


def test_what_a_loss_does_not_depend_on_gets_no_gradient() -> None:
    model = network().train()
    model.norm.bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    idle_names = freeze_idle(model, lambda: model(images(2, 16)).square().sum())
    assert idle_names == [name for name, _ in model.named_parameters() if name.startswith("head.")]
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["norm.bias", *idle_names]
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
