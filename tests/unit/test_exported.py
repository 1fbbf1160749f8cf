"""Networks that torch.fx cannot follow, as torch.export lists them."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from test_reconstruction import images
from test_tracing import walked
from torch import Tensor, nn
from torch.utils import _pytree

import requant
from requant.applying import CONSTANT
from requant.clustering import cluster
from requant.compression import check_placed
from requant.errors import UserError
from requant.exported import exported, module_of
from requant.reconstruction import reconstruct
from requant.reconstruction.graph import layers, norm_of, trace
from requant.sensitivity.chain import as_chain


@dataclass
class Options:
    """What a network looks up while it computes."""

    hidden: bool = False
    scale: float = 2.0


class Checked(nn.Module):
    """Checks what it is given and reads its options, as Hugging Face's networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.options = Options()
        self.conv = nn.Conv2d(3, 8, 3, padding="same")
        self.norm = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.fc = nn.Linear(8, 10)
        self.register_buffer("shift", torch.ones(8, 1, 1), persistent=False)

    def forward(self, pixel_values: Tensor | None = None, **options: Any) -> dict[str, Any]:
        if pixel_values is None:
            raise ValueError("no images")
        if pixel_values.shape[1] != self.conv.weight.shape[1]:
            raise ValueError("other channels")
        hidden = options.pop("hidden", self.options.hidden)
        images = pixel_values.to(self.conv.weight.dtype)
        features = torch.relu_(self.norm(self.conv(images)))
        features = self.up(features * torch.linspace(1, 2, 8).view(8, 1, 1) + self.shift)
        features.add_(features.mean((2, 3), keepdim=True), alpha=self.options.scale)
        count = images.shape[0]
        logits = self.fc(features.mean((2, 3))).reshape(count, -1)
        return {"loss": None, "logits": logits, "hidden": features if hidden else None}


def network() -> Checked:
    torch.manual_seed(0)
    model = Checked().eval()
    nn.init.uniform_(model.norm.running_var, 0.5, 2)
    nn.init.uniform_(model.norm.running_mean, -1, 1)
    return model


def test_a_network_that_checks_what_it_is_given_is_followed() -> None:
    model = network()
    with pytest.raises(UserError, match="cannot be listed"):
        trace(model)  # without images to run it with
    batches = [torch.randn(count, 3, 12, 12) for count in (1, 2, 7)]
    graph = trace(model, batches[0])
    weights = [layer.weight for layer in layers(model, graph).values()]
    assert weights == ["conv.weight", "up.weight", "fc.weight"]
    assert [layer.norm for layer in layers(model, graph).values()] == ["norm", None, None]
    assert {norm_of(model, node) for node in graph.nodes} - {None} == {"norm"}
    wanted = [model(batch)["logits"] for batch in batches]
    assert all(map(torch.equal, walked(model, batches), wanted))


def test_the_network_is_left_in_its_mode_with_its_tensors() -> None:
    model = network().train()
    before = copy.deepcopy(model.state_dict())
    exported(model, torch.randn(1, 3, 12, 12))
    assert model.training
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(found, before[name]) for name, found in model.state_dict().items())


class Makes(nn.Module):
    """Makes tensors on its way; `checks`: as torch.fx cannot follow."""

    def __init__(self, checks: bool) -> None:
        super().__init__()
        self.checks = checks
        self.lifted_tensor_0 = "a name that torch.export gives"
        self.fc = nn.Linear(6, 10)

    def forward(self, values: Tensor, **_: Any) -> Tensor:
        if self.checks and values.shape[1] != 6:
            raise ValueError("other inputs")
        return self.fc(values * torch.tensor([1.0, 2, 3, 4, 5, 6])) + torch.arange(10)


@pytest.mark.parametrize("checks", [False, True])
def test_what_it_makes_on_its_way_is_there_but_not_on_the_network(checks: bool) -> None:
    torch.manual_seed(0)
    model, batch = Makes(checks).eval(), torch.randn(5, 6)
    before = set(vars(model))
    graph = trace(model, batch)
    assert sum(CONSTANT in node.meta for node in graph.nodes) >= 1
    (found,) = walked(copy.deepcopy(model), [batch])
    assert torch.equal(found, model(batch))
    passed = batch
    with torch.no_grad():
        for piece in as_chain(model, {"fc"}, batch):
            passed = piece(passed)
    assert torch.equal(passed, model(batch))
    assert set(vars(model)) == before
    books = {"fc.weight": cluster(model.fc.weight.detach().numpy(), 4, "kmeans")}
    student, books = reconstruct(model, books, [batch], 0.1)
    check_placed(student, books)
    assert set(vars(model)) == set(vars(student)) == before


def test_parameters_come_right_before_their_first_use() -> None:
    graph = exported(network(), torch.randn(1, 3, 12, 12))
    nodes = list(graph.nodes)
    for place, node in enumerate(nodes):
        if node.op == "get_attr":
            following = next(n for n in nodes[place:] if n.op != "get_attr")
            assert following in node.users


def test_each_step_knows_its_module() -> None:
    graph = exported(network(), torch.randn(1, 3, 12, 12))
    found = {module_of(node) for node in graph.nodes} - {None}
    assert {"conv", "norm", "up", "fc"} <= found


def test_a_chain_of_it_is_cut_before_its_layers_and_computes_the_same() -> None:
    model, batch = network(), torch.randn(4, 3, 12, 12)
    chain = as_chain(model, {"conv", "up", "fc"}, batch)
    assert len(chain) == 4  # the images are taken to the weights' precision first
    with torch.no_grad():
        passed = [batch]
        for piece in chain:
            passed.append(piece(passed[-1]))
        again = [piece(given) for piece, given in zip(chain, passed[:-1], strict=True)]  # none has changed its input
        assert torch.equal(passed[-1], model(batch)["logits"])
    assert all(map(torch.equal, again, passed[1:]))


def test_a_path_that_depends_on_values_is_still_refused() -> None:
    class Branches(Checked):
        def forward(self, pixel_values: Tensor | None = None, **options: Any) -> dict[str, Any]:
            found = super().forward(pixel_values, **options)
            return found if found["logits"].sum() > 0 else {"logits": -found["logits"]}

    said = r"\(its path depends on values that it computes\).* retrain=proposed takes any network"
    with pytest.raises(UserError, match=said):
        trace(Branches().eval(), torch.ones(1, 3, 12, 12))


def test_a_path_that_depends_on_how_many_images_there_are_is_refused() -> None:
    class Counts(Checked):
        def forward(self, pixel_values: Tensor | None = None, **options: Any) -> dict[str, Any]:
            found = super().forward(pixel_values, **options)
            assert pixel_values is not None
            return found | {"logits": found["logits"] / (2 if pixel_values.shape[0] == 1 else 1)}

    model = Counts().eval()
    with pytest.raises(UserError, match="how many images there are"):
        trace(model, torch.ones(1, 3, 12, 12))


def test_a_network_whose_outputs_are_by_chance_is_refused() -> None:
    class Noisy(Checked):
        def forward(self, pixel_values: Tensor | None = None, **options: Any) -> dict[str, Any]:
            found = super().forward(pixel_values, **options)
            return found | {"logits": found["logits"] + torch.randn_like(found["logits"])}

    with pytest.raises(UserError, match="or on chance"):
        trace(Noisy().eval(), torch.ones(1, 3, 12, 12))


def test_a_network_whose_outputs_are_broken_is_followed() -> None:
    model = network()
    nn.init.constant_(model.fc.weight, torch.nan)
    assert len(layers(model, trace(model, torch.ones(1, 3, 12, 12)))) == 3


class Answer(dict):  # type: ignore[type-arg]
    """A class of outputs of its own."""


_pytree.register_pytree_node(
    Answer,
    lambda found: (list(found.values()), list(found)),
    lambda values, names: Answer(zip(names, values, strict=True)),
    serialized_type_name="test_exported.Answer",
)


def test_it_is_compressed_to_a_size(tmp_path: Path) -> None:
    class Network(Checked):
        def forward(self, pixel_values: Tensor | None = None, **options: Any) -> Answer:
            return Answer(super().forward(pixel_values, **options))

    torch.manual_seed(0)
    model = Network().eval()
    photographs = images(96, 16)
    found = requant.compress_to(model, photographs, size=2_700)
    assert requant.save(tmp_path / "small.h5", found.model, found.codebooks, storage="entropy").bytes <= 2_700
    with torch.no_grad():
        wanted, got = (each(photographs)["logits"] for each in (model, found.model))
    assert float((wanted - got).norm()) < 0.3 * float((wanted - wanted.mean(0)).norm())
