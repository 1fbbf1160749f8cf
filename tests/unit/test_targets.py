"""What plan=auto aims at: sizes that are met, drops that are kept to."""

import copy
from dataclasses import replace

import pytest
import torch
from test_auto import entropy_bytes, example_grids
from test_config import settings
from test_reconstruction import images, small
from torch import nn

from requant import balancing, targets
from requant.auto import grids, step_of
from requant.compression import Compressed, check_placed
from requant.errors import UserError
from requant.targets import fit_drop, fit_size
from requant.tasks import compressing


@pytest.mark.parametrize("reconstructed", [False, True])
def test_a_size_is_met(reconstructed: bool) -> None:
    found = example_grids()
    batches = [images(16)] if reconstructed else []
    result = fit_size(found, lambda compressed: round(entropy_bytes(compressed)) + 500, 700, batches)
    assert 700 - (8 if reconstructed else 2) <= round(entropy_bytes(result)) + 500 <= 700
    assert [assignment.tensor.layer for assignment in result.assignments] == [1, 2, 3, 4]


def test_a_given_damping_is_used_and_none_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balancing, "best_damping", None)  # not callable
    found, batches = example_grids(), [images(16)]
    made = [
        fit_size(found, lambda compressed: round(entropy_bytes(compressed)) + 500, 700, batches, damping)
        for damping in (0.01, 10.0, 10.0)
    ]
    weights = [compressed.model.get_parameter("grouped.weight") for compressed in made]
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[1], weights[2])
    fit_drop(found, 0.3, [images(80, seed=7)], as_it_is, batches, 0.1)


@pytest.mark.parametrize("slope", [2.0, 3.0])
def test_a_size_is_met_that_falls_faster_than_the_entropy(slope: float) -> None:
    """As where coarse grids leave more and more channels empty: going by the entropy alone goes back and forth."""
    made: list[int] = []

    def size(compressed: Compressed) -> int:
        made.append(round(300 + slope * (entropy_bytes(compressed) - 300)))
        return made[-1]

    found = fit_size(example_grids(), size, 330, [images(16)], 0.1)
    assert made[0] > 340
    nearest = max(true for true in made if true <= 330)
    assert nearest >= 324  # this network is so small that a step or two make 1 %
    assert size(found) == nearest


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1e9])
def test_a_size_is_met_however_little_the_outputs_move(scale: float) -> None:
    found = example_grids()
    others = replace(found, widths={name: width * scale for name, width in found.widths.items()})
    one, other = (entropy_bytes(grids.at(step_of(grids, 300))) for grids in (found, others))
    assert other == pytest.approx(300, rel=0.01)
    assert one == pytest.approx(300, rel=0.01)


def test_a_size_that_no_grid_has_is_said_and_looked_for_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found, made = example_grids(), []
    monkeypatch.setattr(balancing, "reconstruct", lambda base, books, *_, **__: made.append(books) or (base, books))
    values = sum(found.base.get_parameter(layer.weight).numel() for layer in found.layers)
    finest = fit_size(found, lambda compressed: round(entropy_bytes(compressed)), 2 * values, [images(16)], 0.1)
    assert len(made) == 1
    said = f"{round(entropy_bytes(finest)):,} bytes are the nearest to {2 * values:,}"
    assert said in capsys.readouterr().out


def test_a_size_that_cannot_be_had_is_refused() -> None:
    with pytest.raises(UserError, match=r"set a greater target\.size_mb"):
        fit_size(example_grids(), lambda compressed: round(entropy_bytes(compressed)) + 5000, 4000)


def as_it_is(compressed: Compressed) -> nn.Module:
    return compressed.model


def test_a_drop_is_that_of_what_comes_back_from_the_file() -> None:
    found, held_out = example_grids(), [images(80, seed=7)]
    measured_on = []

    def ruined(compressed: Compressed) -> nn.Module:
        model = copy.deepcopy(compressed.model)
        model.fc.weight.data.neg_()
        model.fc.bias.data.neg_()
        measured_on.append(model)
        return model

    with pytest.raises(UserError, match=r"target\.max_drop"):
        fit_drop(found, 0.01, held_out, ruined)
    assert measured_on


def test_a_size_is_found_between_sizes_that_stand_still_and_jump() -> None:
    found = example_grids()
    seen = []

    def size(compressed: Compressed) -> int:
        """Falls in steps, and does not change at all where grids are finest."""
        bits = entropy_bytes(compressed)
        seen.append(bits)
        return 59_021 if bits > 250 else 25_086 + 200 * int(bits / 2)

    for target in (40_178, 27_000, 45_000):
        seen.clear()
        assert abs(size(fit_size(found, size, target)) - target) <= 400, (target, seen)


def test_the_smallest_network_within_a_drop_is_found() -> None:
    model = small()
    with torch.no_grad():
        model.fc.bias -= model(images(64, seed=3)).mean(0)  # so that classes differ from image to image
    seen, held_out = [images(8)], [images(120, seed=7), images(80, seed=8)]
    found = grids(model, seen[0][:1], list(seen[0].split(1)))
    sizes, drops = [], []
    for most in (0.03, 0.3):
        compressed = fit_drop(found, most, held_out, as_it_is, seen)
        check_placed(compressed.model, compressed.codebooks)
        changed = [(compressed.model(b).argmax(1) != model(b).argmax(1)).float() for b in held_out]
        drops.append(float(torch.cat(changed).mean()))
        sizes.append(sum(book.entropy_bits * book.indices.size for book in compressed.codebooks.values()))
        assert drops[-1] <= most
    assert sizes[1] < 0.9 * sizes[0]


def test_within_a_drop_steps_are_balanced_and_bits_fall_further(monkeypatch: pytest.MonkeyPatch) -> None:
    """From grids with a layer far too wide: balanced, a smaller network is found that keeps to the drop as well."""
    model = small()
    with torch.no_grad():
        model.fc.weight *= 30
        model.fc.bias -= model(images(64, seed=3)).mean(0)
    seen, held_out = [images(64, seed=10 + seed) for seed in range(4)], [images(200, seed=7)]
    found = grids(model, seen[0][:1], list(seen[0].split(1)))
    off = replace(found, widths={n: w * (6.0 if n == "grouped.weight" else 1.0) for n, w in found.widths.items()})
    given: list[float] = []
    inner = targets.balanced
    monkeypatch.setattr(targets, "balanced", lambda whole, goal: given.append(goal) or inner(whole, goal))
    before = fit_drop(off, 0.1, held_out, as_it_is, seen, 0.1, balance=False)
    assert given == []
    after = fit_drop(off, 0.1, held_out, as_it_is, seen, 0.1)
    assert given == [pytest.approx(entropy_bytes(before))]
    assert entropy_bytes(after) < 0.95 * entropy_bytes(before)
    changed = (after.model(held_out[0]).argmax(1) != model(held_out[0]).argmax(1)).float()
    assert float(changed.mean()) <= 0.1


def test_no_drop_at_all_can_be_asked_for() -> None:
    model, held_out = small(), [images(8, seed=7)]
    with torch.no_grad():
        model.fc.bias.copy_(10 * torch.arange(10))  # the bias alone decides
    found = grids(model, images(1), list(images(4).split(1)))
    compressed = fit_drop(found, 0.0, held_out, as_it_is)
    assert torch.equal(compressed.model(held_out[0]).argmax(1), model(held_out[0]).argmax(1))


def test_a_drop_that_cannot_be_had_says_what_to_do() -> None:
    model = small()
    found = grids(model, images(1), list(images(4).split(1)))
    with pytest.raises(UserError, match=r"target\.max_drop needs unlabeled images"):
        fit_drop(found, 0.1, [], as_it_is)
    nn.init.zeros_(found.base.fc.weight)
    found.base.fc.bias.data[:] = torch.arange(10.0) * 1e-4
    found.base.fc.weight.data[0] = 1e-9
    compressed = fit_drop(found, 0.1, [images(8)], as_it_is)  # the bias alone decides, and is not on a grid
    assert compressed.codebooks


def test_the_finest_grids_are_taken_where_they_do_not_do_but_something_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "FIRST_BITS", 0.55)
    monkeypatch.setattr(targets, "MOST_BITS", 0.6)
    model, held_out = small(), [images(200, seed=7)]
    with torch.no_grad():
        model.fc.bias -= model(held_out[0]).mean(0)  # so that classes differ from image to image
    found = grids(model, images(1), list(images(8).split(1)))
    with pytest.raises(UserError, match=r"max_drop=0\.001.*still .* get another class"):
        fit_drop(found, 0.001, held_out, as_it_is)
    compressed = fit_drop(found, 0.001, held_out, as_it_is, finest=True)
    values = sum(book.indices.size for book in compressed.codebooks.values())
    assert entropy_bytes(compressed) * 8 / values == pytest.approx(0.55, abs=0.05)


@pytest.mark.parametrize(
    ("retrain", "missed"),
    [
        (["retrain=none"], False),
        (["retrain=proposed"], False),
        (["retrain=reconstruct"], True),
        (["retrain=proposed", "retrain.start=reconstruct"], True),
    ],
)
def test_only_a_reconstruction_may_have_to_meet_the_drop_later(
    retrain: list[str], missed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bool] = []
    monkeypatch.setattr(compressing, "fit_drop", lambda *_, finest, **__: given.append(finest))
    monkeypatch.setattr(compressing, "_held_out", lambda _: [])
    configured = settings("plan=auto", "target.max_drop=0.01", *retrain)
    compressing._at_target(configured, example_grids())
    compressing._at_target(configured, example_grids(), [images(4)], configured.retrain)
    assert given == [missed, False]
