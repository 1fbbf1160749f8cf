"""Classes decided in bfloat16 are float32's; what cannot be decided so is computed in float32."""

import warnings
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from requant.errors import UserError
from requant.models import Architecture, build, example_input
from requant.outputs import SIGMOID
from requant.sensitivity import Study, grid, screening, study
from requant.sensitivity.screening import in_bfloat16, in_float32, pays, screened

ARCHITECTURE = Architecture("resnet50_cifar_s2", 10, 3, 16, 1 / 16)


def two_layers(seed: int, scale: float = 1.0) -> nn.Module:
    torch.manual_seed(seed)
    found = nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 3))
    with torch.no_grad():
        found[2].weight.mul_(scale)
    return found


def images(seed: int, count: int, size: int = 100) -> list[Tensor]:
    return list(torch.randn(count, 24, generator=torch.Generator().manual_seed(seed)).split(size))


class Counting:
    """A network that knows how many images it has seen in float32."""

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        self.network, self.seen = network, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.seen += 0 if torch.is_autocast_enabled("cpu") else len(x)
        return self.network(x)


@given(seed=st.integers(0, 2**31), count=st.integers(1, 1500), scale=st.sampled_from([1e-3, 1.0, 1e3]))
@settings(deadline=None, max_examples=25)
def test_each_class_is_float32s(seed: int, count: int, scale: float) -> None:
    network, batches = two_layers(seed, scale), images(seed + 1, count)
    assert torch.equal(screened(network, batches).argmax(1), in_float32(network, batches).argmax(1))


def test_bfloat16_alone_would_be_wrong_and_few_images_are_computed_again() -> None:
    network, batches = Counting(two_layers(0)), images(1, 8000)
    with torch.inference_mode():
        wrong = in_bfloat16(network, batches).argmax(1) != in_float32(network, batches).argmax(1)
    assert wrong.sum() > 5
    network.seen = 0
    found = screened(network, batches)
    assert network.seen < 8000 / 8
    assert torch.equal(found.argmax(1), in_float32(network, batches).argmax(1))


def test_where_nothing_leads_all_is_computed_as_a_plain_evaluation_does() -> None:
    network, batches = Counting(lambda x: x[:, :1].expand(-1, 4) * torch.ones(4)), images(2, 700)
    found = screened(network, batches)
    assert torch.equal(found, in_float32(network, batches))
    assert network.seen >= 700


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_outputs_that_are_no_numbers_stay_what_they_are(number: float) -> None:
    def network(x: Tensor) -> Tensor:
        outputs = x[:, :3].clone()
        outputs[x[:, 3] > 1] = number
        return outputs

    batches = images(3, 900)
    found, wanted = screened(network, batches), in_float32(network, batches)
    assert torch.equal(found.isfinite(), wanted.isfinite())
    assert torch.equal(found.argmax(1), wanted.argmax(1))


def test_leads_of_next_to_nothing_are_computed_in_their_own_batches() -> None:
    """This network's outputs depend a little on how many images it is given, as those of libraries may."""

    def network(x: Tensor) -> Tensor:
        first = torch.where(x[:, 3:4] > 1.5, 1 + 1e-7 * len(x), 1.5)
        return torch.cat([first, torch.full_like(first, 1 + 5e-6)], dim=1)

    batches = images(4, 640, size=64)
    assert torch.equal(screened(network, batches).argmax(1), in_float32(network, batches).argmax(1))


def test_images_are_selected_once_in_their_order() -> None:
    batches = images(5, 950)
    wanted = torch.rand(950, generator=torch.Generator().manual_seed(6)) < 0.3
    found = list(screening._selected(batches, wanted))
    assert torch.equal(torch.cat(found), torch.cat(batches)[wanted])
    assert max(map(len, found)) < 200
    assert not list(screening._selected(batches, torch.zeros(950, dtype=torch.bool)))


def teacher() -> nn.Module:
    torch.manual_seed(0)
    return build(ARCHITECTURE).eval()


def studied(*, screen: bool, **options: object) -> Study:
    generator = torch.Generator().manual_seed(1)
    pixels, labels = (
        torch.randn(120, 3, 16, 16, generator=generator),
        torch.randint(10, (120,), generator=generator),
    )
    batches = list(zip(pixels.split(50), labels.split(50), strict=True))
    return Study(
        teacher(), example_input(ARCHITECTURE), batches, method="linear", storage="packed", screen=screen, **options
    )


def always(_network: object, _batch: Sequence[object]) -> bool:
    return True


@pytest.mark.filterwarnings("ignore:.*distinct values.*")
def test_a_study_counts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "pays", always)
    plain, fast = studied(screen=False), studied(screen=True)
    points = grid(plain.tensors, ["weight"], ["1", "24", "50"], [2, 16])
    for wanted, found in zip(plain.measure(points), fast.measure(points), strict=True):
        for key in ("n", "correct", "top1", "worst_class", "agreement"):
            assert getattr(found.accuracy, key) == getattr(wanted.accuracy, key), (found.point, key)
        assert found.bytes == wanted.bytes
        assert wanted.accuracy.kl is not None
        assert found.accuracy.kl is None
        assert found.accuracy.top5 is None


def test_where_bfloat16_is_no_faster_float32_computes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "pays", lambda *_: False)
    with pytest.warns(UserWarning, match="bfloat16 is not faster here"):
        fast = studied(screen=True)
    monkeypatch.setattr(study, "screened", None)
    (found,) = fast.measure(grid(fast.tensors, ["weight"], ["24"], [2]))
    assert found.accuracy.kl is None


@pytest.mark.parametrize(("seconds", "expected"), [(0.5, True), (0.9, False), (2.0, False)])
def test_whether_it_pays_is_measured(seconds: float, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def network(x: Tensor) -> Tensor:
        nonlocal now
        now += seconds if torch.is_autocast_enabled("cpu") else 1.0
        return x

    monkeypatch.setattr(screening.time, "perf_counter", lambda: now)
    assert pays(network, images(0, 4)[0]) is expected


def test_other_outputs_than_classes_are_refused() -> None:
    with pytest.raises(UserError, match=r"sensitivity\.screen=true decides the classes of images"):
        studied(screen=True, outputs=SIGMOID)


def test_nothing_is_said_where_it_is_not_asked_for() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        studied(screen=False)
