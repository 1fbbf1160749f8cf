"""plan=auto: grids, and the sizes and drops that they are made to meet."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from test_config import settings
from test_reconstruction import TensorImages, images, small
from torch import Tensor, nn

from requant import auto
from requant.archive import load, save
from requant.auto import Grids, grids, grids_for, in_units, measured, on_grid, step_of
from requant.codebook import Codebook
from requant.compression import Compressed, check_placed
from requant.errors import UserError
from requant.reconstruction import reconstruct
from requant.reconstruction.sensitivity import divergences
from requant.targets import fit_size
from requant.tasks import compressing


@given(
    values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=50),
    width=st.floats(1e-6, 1e3),
)
def test_grids_hold_zero_and_round_to_the_nearest_step(values: list[float], width: float) -> None:
    weight = torch.tensor(values)
    book = on_grid(weight, width)
    assert book.k % 2 == 1
    assert book.k <= 4095
    assert book.indices.dtype == (np.uint8 if book.k <= 256 else np.uint16)
    assert book.centroids[book.k // 2] == 0
    step = max(width, float(weight.abs().max()) / 2047.49)
    assert np.abs(book.dense() - weight.numpy()).max() <= step * 0.5001


@pytest.mark.parametrize(
    ("steps", "reach"), [(1, 3), (2, 3), (3, 7), (8, 15), (62, 69), (64, 72), (100, 112), (2000, 2047), (9999, 2047)]
)
def test_grids_reach_as_far_as_the_next_of_a_few_sizes_or_an_eighth_beyond(steps: int, reach: int) -> None:
    """So that layers of few bits have one table; errors can be made up for a step further out at least."""
    book = on_grid(torch.tensor([1.0, -float(steps)]), 1.0)
    assert book.k == 2 * reach + 1
    assert book.centroids[book.indices[1]] == -steps or steps > 2047


def test_a_layer_of_few_weights_has_hundreds_of_steps_where_it_asks_for_them(tmp_path: Path) -> None:
    found = example_grids()
    found.widths["stem.weight"] /= 3000
    rounded = found.at(0.3)
    assert rounded.codebooks["stem.weight"].k > 256
    trellis = found.for_trellis(rounded.codebooks)
    assert "stem.weight" in trellis
    model, books = reconstruct(found.base, rounded.codebooks, [images(16)], 0.1, trellis)
    units, books = in_units(found, model, books)
    for storage in ("entropy", "packed"):
        save(tmp_path / "network.h5", units, books, storage=storage)
        assert torch.equal(load(tmp_path / "network.h5", small())(images(4)), units.eval()(images(4)))


def example_grids() -> Grids:
    return grids(small(), torch.zeros(1, 3, 16, 16), images(20).split(1))


def entropy_bytes(compressed: Compressed) -> float:
    return sum(book.entropy_bits * book.indices.size for book in compressed.codebooks.values()) / 8


def test_one_image_is_too_few_for_a_plan() -> None:
    with pytest.raises(UserError, match="two unlabeled images at least"):
        measured(example_grids(), 0.3, [images(16)])


def test_changes_of_steps_go_half_of_the_way_and_no_further_than_a_factor_of_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With n weights and a divergence c the right step goes with (n / c)^(1/2); the median layer keeps its own."""
    found, counts = example_grids(), list[int]()
    sizes = {layer.weight: found.base.get_parameter(layer.weight).numel() for layer in found.layers}
    ratios = dict(zip(sizes, (1.0, 1.0, 1.0, 3.0), strict=True))  # of n / c to the median's, to the power of a half
    if_alone = {name: sizes[name] / ratio**2 for name, ratio in ratios.items()}

    def watched(*_: object, held_out: int, **__: object) -> dict[str, float]:
        counts.append(held_out)
        return if_alone

    monkeypatch.setattr(auto, "divergences", watched)
    for batches in (2, 8, 11):
        better = measured(found, 0.3, [images(2)] * batches)
    assert counts == [1, 2, 2]
    changes = [better.widths[name] / width for name, width in found.widths.items()]
    assert changes == pytest.approx([1, 1, 1, 3**0.5])
    extreme = zip(sizes.items(), (1, 1, 1e-9, 1e9), strict=True)
    if_alone |= {name: size * factor for (name, size), factor in extreme}
    far = measured(found, 0.3, [images(2)] * 8)
    assert [far.widths[name] / width for name, width in found.widths.items()] == pytest.approx([1, 1, 2, 0.5])


def test_statistics_are_folded_exactly_and_batch_norms_scale_what_their_layer_loses() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 14 * 14, 4)).eval()
    nn.init.uniform_(model[1].running_mean, -1, 1)
    nn.init.uniform_(model[1].running_var, 1e-4, 1e-3)  # so small that eps counts
    found = grids(model, torch.zeros(1, 3, 16, 16), images(8).split(1))
    with torch.no_grad():
        wanted = model(images(8))
        assert torch.allclose(found.base(images(8)), wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
        rounded = found.at(step_of(found, 2000))
        units, books = in_units(found, rounded.model, rounded.codebooks)
        plain = rounded.model(images(8))
        assert float((units(images(8)) - plain).norm()) < 0.01 * float(plain.norm())
    for name, parameter in units.named_parameters():
        assert name in books or torch.equal(parameter, parameter.bfloat16().float()), name


def test_the_original_has_four_bytes_a_value_and_draws_follow_the_seed() -> None:
    found = example_grids()
    state = small().state_dict()
    values = sum(tensor.numel() for name, tensor in state.items() if not name.endswith("num_batches_tracked"))
    assert found.original_bytes == 4 * values
    widths = [grids(small(), torch.zeros(1, 3, 16, 16), images(20).split(1), seed).widths for seed in (0, 1)]
    assert found.widths == widths[0] != widths[1]


def test_what_belongs_to_no_layer_is_not_put_on_a_grid() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.positions = nn.Parameter(torch.randn(1, 3, 64, 64))
            self.inner = nn.Sequential(nn.Conv2d(3, 8, 9, 8), nn.ReLU(), nn.Flatten(), nn.Linear(392, 4))

        def forward(self, batch: Tensor) -> Tensor:
            return self.inner(batch + self.positions)

    found = grids(Positions().eval(), torch.zeros(1, 3, 64, 64), images(4, 64).split(1))
    assert [layer.weight for layer in found.layers] == ["inner.0.weight", "inner.3.weight"]


def test_a_table_of_which_a_trellis_would_have_too_many_values_stays_a_grid() -> None:
    found, indices = example_grids(), np.arange(5)
    tables = {
        str(k): Codebook(np.arange(k, dtype=np.float32), indices.astype(np.uint8 if k < 257 else np.uint16))
        for k in (5, 2047, 2049)
    }
    few = {"few": Codebook(np.arange(5, dtype=np.float32), np.uint8([0, 1]))}  # one bit each
    assert found.for_trellis(tables | few) == {"5", "2047"}


def test_the_network_before_rounding_is_the_same_function() -> None:
    batch, found = images(8), example_grids()
    assert torch.allclose(found.base(batch), small()(batch), atol=1e-4)
    rounded = found.at(0.05)
    units, books = in_units(found, rounded.model, rounded.codebooks)
    check_placed(units, books)
    assert books["stem.weight"].centroids[-1] == books["stem.weight"].k // 2
    assert torch.allclose(units(batch), rounded.model(batch), atol=0.2)
    short = units.norm.weight.detach()
    assert torch.equal(short, short.bfloat16().float())


def test_measured_steps_are_finer_where_the_outputs_move_more() -> None:
    found = example_grids()
    better = measured(found, 0.3, [images(16, seed=s) for s in range(4)])
    changes = {name: better.widths[name] / width for name, width in found.widths.items()}
    assert min(changes.values()) < 1 < max(changes.values())
    rounded = found.at(0.3)
    moves = divergences(found.base, rounded.codebooks, [images(16, seed=s) for s in range(4)], held_out=1)
    worth = {name: moves[name] / rounded.codebooks[name].indices.size for name in moves}
    assert min(changes, key=changes.__getitem__) == max(worth, key=worth.__getitem__)


def test_steps_too_fine_to_move_the_outputs_measurably_stay_finite() -> None:
    batches = list(images(16).split(4))
    found = grids(small(), batches[0][:1], list(batches[0].split(1)))
    finest = measured(found, 1e-9, batches)
    changes = [finest.widths[name] / width for name, width in found.widths.items()]
    assert all(0.5 <= change <= 2 for change in changes)


def test_networks_without_layers_and_images_without_effect_are_refused() -> None:
    with pytest.raises(UserError, match=r"give plan\.rules"):
        grids(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12)), torch.zeros(1, 3, 2, 2), [])
    dead = small()
    nn.init.zeros_(dead.fc.weight)
    nn.init.zeros_(dead.fc.bias)
    dead.norm.bias.data.fill_(-100.0)
    dead.norm2.bias.data.fill_(-100.0)
    nn.init.constant_(dead.grouped.bias, -1.0)
    with pytest.raises(UserError, match="no weight that changes the outputs"):
        grids(dead, torch.zeros(1, 3, 16, 16), images(3).split(1))


class StandardConv(nn.Conv2d):
    """Its weights are standardised as it is called."""

    def forward(self, batch: Tensor) -> Tensor:
        axes = (1, 2, 3)
        weight = (self.weight - self.weight.mean(axes, keepdim=True)) / self.weight.std(axes, keepdim=True)
        return F.conv2d(batch, weight, self.bias)


class Unfollowed(nn.Module):
    """Beside that convolution one that is called twice, and factors of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.twice, self.fc = StandardConv(3, 64, 5), nn.Conv2d(64, 64, 1), nn.Linear(64, 10)
        self.scale = nn.Parameter(torch.rand(64, 1, 1))

    def forward(self, batch: Tensor) -> Tensor:
        found = F.relu(self.conv(batch)) * self.scale
        return self.fc(self.twice(F.relu(self.twice(found))).mean((2, 3)))


def test_weights_that_cannot_be_followed_are_on_grids_too() -> None:
    torch.manual_seed(0)
    model, batches = Unfollowed().eval(), [images(16, seed=s) for s in range(4)]
    found = measured(grids(model, torch.zeros(1, 3, 16, 16), images(8).split(1)), 0.1, batches)
    assert [layer.weight for layer in found.layers] == ["conv.weight", "fc.weight", "twice.weight"]
    with pytest.warns(UserWarning, match=r"leaves 1 of 3 clustered weights.* \(twice.weight\)"):
        result = fit_size(found, lambda compressed: round(entropy_bytes(compressed)), 4000, batches, 0.1, trellis=True)
    units, books = in_units(found, result.model, result.codebooks)
    check_placed(units, books)
    assert abs(entropy_bytes(result) - 4000) <= 40
    with torch.no_grad():
        wanted, made = model(batches[0]), units(batches[0])
    assert float((made - wanted).norm()) < 0.3 * float(wanted.norm())


class Doubled(nn.Conv2d):
    """Uses twice its weights: made what it uses, it would use four times as much."""

    def forward(self, batch: Tensor) -> Tensor:
        return F.conv2d(batch, 2 * self.weight, self.bias)


def test_weights_that_would_change_again_are_left_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Doubled(3, 8, 9), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 4)).eval()
    found = grids(model, torch.zeros(1, 3, 16, 16), images(4).split(1))
    assert torch.equal(found.base[0].weight, model[0].weight)
    assert torch.equal(found.base(images(4)), model(images(4)))


def test_a_batch_norm_behind_two_layers_is_left_alone() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
            self.norm, self.fc = nn.BatchNorm2d(8), nn.Linear(8, 10)

        def forward(self, batch: Tensor) -> Tensor:
            found = F.relu(self.norm(self.one(batch)))
            return self.fc(F.relu(self.norm(self.two(found))).mean((2, 3)))

    torch.manual_seed(0)
    model = Twice().eval()
    nn.init.uniform_(model.norm.running_var, 0.5, 2)
    nn.init.uniform_(model.norm.weight, 0.5, 2)
    batches = [images(16, seed=s) for s in range(4)]
    found = grids(model, torch.zeros(1, 3, 16, 16), images(8).split(1))
    assert [layer.norm for layer in found.layers] == [None, None, None]
    rounded = found.at(0.02)
    units, _ = in_units(found, rounded.model, rounded.codebooks)
    student, books = reconstruct(found.base, rounded.codebooks, batches, 0.1)
    check_placed(student, books)
    with torch.no_grad():
        wanted, plain, stored, made = (m(batches[0]) for m in (model, rounded.model, units, student))
        assert torch.equal(student.norm.weight, found.base.norm.weight)
    assert float((stored - wanted).norm()) < 1.2 * float((plain - wanted).norm()) + 0.02 * float(wanted.norm())
    assert float((made - wanted).norm()) < float((plain - wanted).norm())


def test_fewer_images_than_a_batch_are_enough_for_a_plan() -> None:
    pictures = TensorImages(images(20))
    example = torch.zeros(1, 3, 16, 16)
    found = grids_for(small(), example, pictures, 128, lambda _: 1000)
    assert set(found.widths) == set(example_grids().widths)


def test_what_is_reconstructed_is_on_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[torch.device] = []

    def fit(
        found: Grids, _: float, held_out: list[Tensor], __: object, batches: list[Tensor], *___: object, **____: object
    ):
        given.extend(tensor.device for tensor in (*found.base.parameters(), *held_out, *batches))
        return example_grids().at(0.3)

    monkeypatch.setattr(compressing.assembly, "device", lambda _: torch.device("meta"))
    monkeypatch.setattr(compressing, "_held_out", lambda _: [images(4)])
    monkeypatch.setattr(compressing, "fit_drop", fit)
    configured = settings("plan=auto", "target.max_drop=0.01", "retrain=reconstruct")
    job = SimpleNamespace(settings=configured, teacher=None, grids=example_grids(), histories={})
    compressing._reconstruct(job, "retrained", configured.retrain, TensorImages(images(8)))  # type: ignore[arg-type]
    assert set(given) == {torch.device("meta")}


class Inverted(nn.Module):
    """Expand, depthwise, project, each with a batch norm behind it."""

    def __init__(self) -> None:
        super().__init__()
        shapes = {"expand": (3, 12, 1), "deep": (12, 12, 12), "project": (12, 6, 1)}
        self.convs = nn.ModuleDict({n: nn.Conv2d(i, o, 3, groups=g, padding=1) for n, (i, o, g) in shapes.items()})
        self.norms = nn.ModuleDict({name: nn.BatchNorm2d(o) for name, (_, o, _) in shapes.items()})
        self.fc = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        for name, conv in self.convs.items():
            x = nn.functional.relu6(self.norms[name](conv(x)))
        return self.fc(x.mean((2, 3)))


def test_scales_go_into_weights_whose_outputs_the_next_layer_mixes() -> None:
    torch.manual_seed(0)
    model = Inverted().eval()
    with torch.no_grad():
        for norm in model.norms.values():
            norm.weight.uniform_(0.5, 2)
            norm.running_var.uniform_(0.5, 2)
    images = torch.randn(8, 3, 9, 9)
    base = grids(model, images[:1], images.split(1)).base
    alike = {name: len(norm.weight.unique()) == 1 for name, norm in base.norms.items()}
    assert alike == {"expand": False, "deep": False, "project": True}
    torch.testing.assert_close(base(images), model(images), rtol=1e-4, atol=1e-4)
    half = grids(model.bfloat16(), images[:1].bfloat16(), images.bfloat16().split(1)).base
    assert all(len(norm.weight.unique()) > 1 for norm in half.norms.values())
