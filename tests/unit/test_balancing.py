"""What the rounding of a layer costs beside that of all others, and steps by it."""

import copy
from dataclasses import replace

import pytest
import torch
from test_auto import entropy_bytes, example_grids
from test_coarse import Wide
from test_reconstruction import divergence, images, small
from torch import nn

from requant import balancing
from requant.auto import Grids, grids, step_of
from requant.balancing import LEAST_COST, MOST_CHANGE, Reconstruction, balanced
from requant.outputs import SOFTMAX
from requant.reconstruction import reconstruct
from requant.reconstruction.costs import Cost, Rounding, costs
from requant.targets import GRAIN, fit_size

BYTES = 300.0


def rounded(batches: list[torch.Tensor]) -> tuple[Grids, nn.Module, dict[str, Rounding]]:
    found, roundings = example_grids(), dict[str, Rounding]()
    plain = found.at(step_of(found, BYTES))
    model, _ = reconstruct(found.base, plain.codebooks, batches, 0.1, roundings=roundings)
    return found, model, roundings


def test_roundings_are_what_weights_are_off_and_what_that_moves_means_by() -> None:
    seen = images(64)
    found, model, roundings = rounded([seen])
    assert set(roundings) == {layer.weight for layer in found.layers}
    error = roundings["stem.weight"].error
    off = model.get_parameter("stem.weight") - found.base.get_parameter("stem.weight")
    torch.testing.assert_close(error, off, atol=1e-5, rtol=0)  # nothing before it has changed: it is solved to stay
    stem = model.get_submodule("stem")
    assert isinstance(stem, nn.Conv2d)
    moved = nn.functional.conv2d(seen, error, None, stem.stride, stem.padding)  # the first layer sees the images
    torch.testing.assert_close(moved.mean((0, 2, 3)), roundings["stem.weight"].shift, atol=2e-3, rtol=0.02)


def test_a_cost_is_the_slope_of_the_divergence_as_errors_grow() -> None:
    """By central differences, in double precision: a layer's errors larger, what they move on the mean taken back."""
    _, model, roundings = rounded([images(64)])
    original, student, others = small().double(), model.double(), images(40, seed=5).double()
    exact = {n: Rounding(r.error.double(), r.shift.double()) for n, r in roundings.items()}
    found_divergence, found = costs(original, student, exact, [others[:20], others[20:]], SOFTMAX)
    assert found_divergence == pytest.approx(divergence(student, original, others), rel=1e-6)
    for name, norm in (("stem", "norm"), ("depthwise", "norm2"), ("grouped", None), ("fc", None)):
        key = f"{name}.weight"

        def at(grown: float, key: str = key, name: str = name, norm: str | None = norm) -> float:
            changed = copy.deepcopy(student)
            with torch.no_grad():
                changed.get_parameter(key).add_(grown * exact[key].error)
                if norm is not None:
                    module = changed.get_submodule(norm)
                    scale = module.weight / (module.running_var + module.eps).sqrt()
                    module.bias.sub_(grown * scale * exact[key].shift)
                else:
                    changed.get_parameter(f"{name}.bias").sub_(grown * exact[key].shift)
            return divergence(changed, original, others)

        assert found[key].value == pytest.approx((at(1e-4) - at(-1e-4)) / 2e-4, rel=1e-4, abs=1e-9), key


def test_the_error_of_a_cost_is_that_of_a_mean_of_pieces() -> None:
    _, model, roundings = rounded([images(64)])
    one, many = images(16, seed=5), images(16, seed=6)
    alone = [costs(small(), model, roundings, [batch], SOFTMAX)[1] for batch in (one, many)]
    both = costs(small(), model, roundings, [torch.cat([one, many])], SOFTMAX)[1]
    for name, cost in both.items():
        a, b = (found[name].value for found in alone)
        assert cost.value == pytest.approx((a + b) / 2, rel=1e-3, abs=1e-8)
        assert cost.error == pytest.approx(abs(a - b) / 2, rel=1e-3, abs=1e-7)
        assert alone[0][name].error == float("inf")  # of one piece nothing is known


def reconstruction(grids: Grids, count: int = 4, damping: float | None = 0.1) -> Reconstruction:
    return Reconstruction(grids, [images(64, seed=10 + i) for i in range(count)], damping, False, 0.0, ())


def test_steps_out_of_balance_come_back() -> None:
    """One layer's far too wide beside the others': at equal size balanced steps are nearer."""
    teacher = small()
    with torch.no_grad():
        teacher.get_parameter("fc.weight").mul_(30)  # classes that differ
    found = grids(teacher, torch.zeros(1, 3, 16, 16), images(20).split(1))
    off = replace(found, widths={n: w * (6.0 if n == "grouped.weight" else 1.0) for n, w in found.widths.items()})
    whole, others = reconstruction(off), images(200, seed=77)
    better, asked = balanced(whole, BYTES)

    def of(tried: Grids, asked: float) -> tuple[float, float]:
        made = replace(whole, grids=tried)(tried.at(step_of(tried, asked)))
        return entropy_bytes(made), divergence(made.model, teacher, others)

    (bytes_off, far), (bytes_better, near) = of(off, BYTES), of(better, asked)
    assert bytes_better <= 1.03 * bytes_off
    assert near < 0.6 * far
    changes = {name: better.widths[name] / off.widths[name] for name in off.widths}
    assert changes["grouped.weight"] < 0.7 * min(change for name, change in changes.items() if name != "grouped.weight")


def test_steps_move_by_the_root_of_what_is_certain_of_a_cost_and_no_further_than_they_may() -> None:
    found = example_grids()
    names = [layer.weight for layer in found.layers]
    given = {
        names[0]: Cost(1.44, 0.0),
        names[1]: Cost(1.44, float("inf")),
        names[2]: Cost(-3.0, 0.0),
        names[3]: Cost(100.0, 0.0),
    }
    measured = balancing._Measured(found, 1.0, 1.0, given, {})
    ratios = {name: measured.moved(1.0).widths[name] / found.widths[name] for name in names}
    assert LEAST_COST**-0.5 > MOST_CHANGE
    expected = [1 / 1.2, 1.0, MOST_CHANGE, 1 / MOST_CHANGE]
    assert list(ratios.values()) == pytest.approx(expected)
    half = measured.moved(0.5).widths
    assert [half[name] / found.widths[name] for name in names] == pytest.approx([ratio**0.5 for ratio in expected])


def test_of_one_batch_nothing_is_held_out_and_steps_stay() -> None:
    found = example_grids()
    assert balanced(reconstruction(found, 1), 300.0) == (found, 300.0)


def test_the_damping_is_chosen_once_from_all_images(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(balancing, "best_damping", lambda base, books, batches, kind: asked.append(len(batches)) or 0.1)
    batches = [images(16, seed=seed) for seed in range(4)]
    fit_size(example_grids(), lambda compressed: round(entropy_bytes(compressed)) + 500, 900, batches)
    assert asked == [4]
    assert "steps balanced: on held-out images KL is" in capsys.readouterr().out


def test_what_costs_nothing_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    found, made = example_grids(), []
    nothing = {layer.weight: Cost(0.0, 0.0) for layer in found.layers}
    monkeypatch.setattr(balancing, "costs", lambda *_: made.append(1) or (0.0, nothing))
    assert balanced(reconstruction(found, 2), 300.0) == (found, 300.0)
    assert made == [1]


def test_what_is_on_a_trellis_is_said_once_and_is_of_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of norms and biases, which reconstruction puts on grids of many bits; nor does it change with the size."""
    teacher, given = Wide().eval(), []
    with torch.no_grad():
        teacher.fc.weight.mul_(30)
    found = grids(teacher, torch.zeros(1, 3, 16, 16), images(20).split(1))
    made = balancing.reconstruct
    monkeypatch.setattr(balancing, "reconstruct", lambda *a, **k: given.append(set(a[4])) or made(*a, **k))
    batches = [images(32, seed=10 + i) for i in range(4)]
    whole = Reconstruction(found, batches, 0.1, True, GRAIN, ())
    balanced(whole, 2000.0)
    assert whole.on_trellis is not None
    assert set(whole.on_trellis) <= {layer.weight for layer in found.layers}
    assert given[-1] == whole.on_trellis
    whole(found.at(step_of(found, 300.0)))  # so few bits that of themselves they would suit no trellis
    assert given[-1] == whole.on_trellis != found.for_trellis(found.at(step_of(found, 300.0)).codebooks)
