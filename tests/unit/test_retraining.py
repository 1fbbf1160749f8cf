"""Retraining on a small network: what moves, what stands still, and that a resumed training ends in the same bits."""

import copy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from requant.compression import check_placed, compress
from requant.errors import ConfigError, UserError
from requant.models import Architecture, build
from requant.recipe import Recipe
from requant.retraining import predict, retrain, retrain_with_labels
from requant.retraining.front import inputs_of, trainable_tail
from requant.retraining.module import Retraining
from requant.retraining.objectives import MatchTeacher
from requant.retraining.optimization import optimizer, schedule
from requant.retraining.trainable import freeze, set_modes
from requant.retraining.unlabeled import TensorImages

RECIPE = Recipe(epochs=3, batch_size=16, learning_rate=0.05)
EXAMPLE = torch.zeros(1, 1, 8, 8)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(256, 5),
    ).eval()


def images(n: int = 70) -> torch.Tensor:
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(7))


class Labelled:
    def __len__(self) -> int:
        return 70

    def __getitems__(self, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        items = torch.tensor(indices) % 70
        return images()[items], items % 5


RULES = [{"layers": "2", "kind": "weight", "centroids": 4}, {"kind": "bn_mean", "centroids": 1}]


def test_the_loss_falls_and_quantized_tensors_stay_on_their_centroids() -> None:
    teacher = network()
    student = compress(teacher, RULES, EXAMPLE)
    before = copy.deepcopy(student.model.state_dict())
    history = retrain(student.model, teacher, images(), codebooks=student.codebooks, recipe=RECIPE)
    assert history.curve[-1]["loss"] < history.curve[0]["loss"]
    assert (history.epochs, history.images_seen) == (3, 210)
    check_placed(student.model, student.codebooks)
    moved = {k for k, v in student.model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"0.weight", "1.weight", "1.bias", "5.bias"}  # bn_mean is quantized, so its whole norm keeps


def test_batch_norm_updates_unless_told_to_keep() -> None:
    teacher = network()
    for statistics, expected in (("update", True), ("keep", False)):
        student = network()
        retrain(student, teacher, images(), recipe=RECIPE, statistics=statistics)
        assert (not torch.equal(student[1].running_mean, teacher[1].running_mean)) == expected


def test_training_with_labels_updates_batch_norm() -> None:
    student = network()
    retrain_with_labels(student, Labelled(), recipe=RECIPE)
    assert not torch.equal(student[1].running_mean, network()[1].running_mean)


def test_the_teacher_is_left_as_it_was_and_outside_the_checkpoint(tmp_path: Path) -> None:
    teacher = network(1)
    before = copy.deepcopy(teacher.state_dict())
    retrain(network(), teacher, images(), recipe=RECIPE, folder=tmp_path, teacher_outputs="live")
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert {key.split(".")[0] for key in checkpoint["state_dict"]} == {"student"}


def test_outputs_computed_once_give_the_same_training_as_live_ones() -> None:
    results = []
    for how in ("once", "live"):
        student = network()
        retrain(student, network(1), images(), recipe=RECIPE, teacher_outputs=how)
        results.append(student.state_dict())
    for name, value in results[0].items():
        assert torch.allclose(value.float(), results[1][name].float(), atol=1e-6), name


class Made(TensorImages):
    """Images that are made anew each time they are asked for, and count how often that is."""

    def __init__(self) -> None:
        super().__init__(images())
        self.asked = 0

    def __getitems__(self, indices: list[int]) -> torch.Tensor:
        self.asked += len(indices)
        return super().__getitems__(indices)


def test_images_kept_in_memory_are_made_once_and_give_the_same_bits() -> None:
    results, asked = [], []
    for in_memory in (True, False):
        student, made = network(), Made()
        retrain(student, network(1), made, recipe=RECIPE, in_memory=in_memory)
        results.append(student.state_dict())
        asked.append(made.asked)
    assert asked[0] < 80 < 4 * 70 <= asked[1]
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_a_frozen_front_computed_once_gives_the_same_training_and_runs_once() -> None:
    results, calls = [], []
    for front in ("once", "live"):
        student = network()
        before = copy.deepcopy(student.state_dict())
        count = [0]
        student[0].register_forward_hook(
            lambda _, inputs, __, count=count: count.__setitem__(0, count[0] + len(inputs[0]))
        )
        retrain(student, network(1), images(), recipe=RECIPE, only={"5.weight", "5.bias"}, front=front)
        results.append(student.state_dict())
        calls.append(count[0])
        moved = {name for name, value in student.state_dict().items() if not torch.equal(value, before[name])}
        assert moved == {"5.weight", "5.bias"}
    assert calls[0] < 80 < 3 * 70 <= calls[1]
    for name, value in results[0].items():
        assert torch.allclose(value.float(), results[1][name].float(), atol=1e-6), name


@pytest.mark.parametrize(
    ("name", "trained", "expected"),
    [
        ("vgg_small", ["classifier.6.weight"], "classifier.6"),
        ("vgg_small", ["classifier.3.bias", "classifier.6.weight"], "classifier"),
        ("resnet50_cifar", ["fc.bias"], "fc"),
        ("resnet50_cifar", ["layer4.2.conv3.weight", "fc.bias"], None),
        ("resnet50_cifar", ["layer4.2.conv3.weight"], None),
        ("vgg_small", ["features.0.weight", "classifier.6.weight"], None),
    ],
)
def test_the_end_that_holds_all_that_is_trained(name: str, trained: list[str], expected: str | None) -> None:
    torch.manual_seed(0)
    student = build(Architecture(name, classes=10, image_size=32, width=0.0625))
    freeze(student, (), only=trained)
    pixels = torch.randn(2, 3, 32, 32)
    tail = trainable_tail(student, pixels)
    if expected is None:
        assert tail is None
        return
    assert tail is not None
    inside = {id(parameter) for parameter in tail.parameters()}
    assert all(id(student.get_parameter(path)) in inside for path in trained)
    torch.testing.assert_close(tail(inputs_of(tail, student, pixels)), student(pixels))


def test_two_trainings_are_bit_identical_and_another_seed_differs() -> None:
    def weights(seed: int) -> torch.Tensor:
        student = network()
        retrain(student, network(1), images(), recipe=RECIPE, seed=seed)
        return student[0].weight

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_a_training_cut_short_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Killed with SIGKILL in the middle of an epoch, started again, and equal to one that was never killed."""
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, time, torch\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from test_retraining import Labelled, network\n"
        "from requant.recipe import Recipe\n"
        "from requant.retraining import retrain_with_labels\n"
        "class Slow(Labelled):\n"
        "    def __getitems__(self, indices):\n"
        "        print('batch'); time.sleep(float(sys.argv[2])); return super().__getitems__(indices)\n"
        "student = network()\n"
        "recipe = Recipe(epochs=4, batch_size=16, learning_rate=0.05)\n"
        "h = retrain_with_labels(student, Slow(), recipe=recipe, folder=Path(sys.argv[1]), stochastic=True)\n"
        "losses = [entry['loss'] for entry in h.curve]\n"
        "torch.save({'state': student.state_dict(), 'loss': losses}, Path(sys.argv[1]) / 'end.pt')\n"
    )
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run([sys.executable, script, whole, "0"], check=True, capture_output=True)
    process = subprocess.Popen(
        [sys.executable, script, cut, "0.3"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (cut / "last.ckpt").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.4)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (cut / "end.pt").exists()
    resumed = subprocess.run([sys.executable, script, cut, "0"], check=True, capture_output=True, text=True)
    assert resumed.stdout.count("batch") <= 3 * 5  # of 4 epochs of 5 batches, one at least was done before
    first, second = (torch.load(folder / "end.pt", weights_only=True) for folder in (whole, cut))
    assert first["loss"] == second["loss"]
    assert all(torch.equal(value, second["state"][name]) for name, value in first["state"].items())


def test_only_what_is_named_is_trained() -> None:
    student = network()
    assert freeze(student, {"0.weight"}, only={"5.weight", "5.bias"}) == ["5.weight", "5.bias"]
    assert not student[1].weight.requires_grad


def test_nothing_left_to_train_is_an_error() -> None:
    student = network()
    with pytest.raises(ConfigError, match="nothing is left to train"):
        freeze(student, {name for name, _ in student.named_parameters()})


def test_only_a_teacher_in_training_has_dropout() -> None:
    student = network()
    set_modes(student, (), statistics="update", stochastic=False)
    assert (student[1].training, student[4].training) == (True, False)
    set_modes(student, {"1.running_var"}, statistics="update", stochastic=True)
    assert (student[1].training, student[4].training) == (False, True)


def test_norms_of_layers_that_stand_still_do_too() -> None:
    student = network()
    freeze(student, (), only={"5.weight", "5.bias"})
    set_modes(student, (), statistics="update", stochastic=False)
    assert not student[1].training


def test_settings_that_do_not_exist_are_refused() -> None:
    for wrong in ({"loss": "kld"}, {"teacher_outputs": "onec"}, {"front": "back"}, {"statistics": "kep"}):
        with pytest.raises(ConfigError, match="choose one of"):
            retrain(network(), network(1), images(), recipe=RECIPE, **wrong)


def test_the_curve_is_a_csv_with_every_epoch(tmp_path: Path) -> None:
    history = retrain(network(), network(1), images(), recipe=RECIPE, folder=tmp_path)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,seconds"
    assert [float(line.split(",")[1]) for line in lines[1:]] == [entry["loss"] for entry in history.curve]


def test_a_training_killed_after_its_last_checkpoint_keeps_its_whole_curve(tmp_path: Path) -> None:
    first = retrain(network(), network(1), images(), recipe=RECIPE, folder=tmp_path)
    whole = (tmp_path / "metrics.csv").read_text()
    (tmp_path / "metrics.csv").unlink()
    again = retrain(network(), network(1), images(), recipe=RECIPE, folder=tmp_path)
    assert again.curve == first.curve
    assert (tmp_path / "metrics.csv").read_text() == whole


def test_a_teacher_of_the_callers_keeps_mode_and_gradients() -> None:
    teacher = network(1).train()
    for how in ("once", "live"):
        retrain(network(), teacher, images(), recipe=Recipe(epochs=1, batch_size=16), teacher_outputs=how)
    assert teacher.training
    assert all(parameter.requires_grad for parameter in teacher.parameters())


def test_a_diverged_training_says_so() -> None:
    recipe = Recipe(epochs=1, batch_size=16, learning_rate=1e30, schedule="constant")
    with pytest.raises(UserError, match=r"diverged.*learning_rate"):
        retrain_with_labels(network(), Labelled(), recipe=recipe)


def test_predict_keeps_the_order() -> None:
    teacher = network()
    with torch.no_grad():
        expected = teacher(images())
    assert torch.allclose(predict(teacher, TensorImages(images()), batch_size=32), expected, atol=1e-6)


def test_weight_decay_cannot_touch_frozen_tensors() -> None:
    student = network()
    freeze(student, {"5.weight"})
    module = Retraining(student, MatchTeacher(network(1)), Recipe(weight_decay=0.1, schedule="constant"))
    module.trainer = type("T", (), {"estimated_stepping_batches": 1})()
    held = {id(p) for group in module.configure_optimizers().param_groups for p in group["params"]}
    assert id(student[5].weight) not in held
    assert len(held) == 4


@pytest.mark.parametrize(("asked", "least", "most"), [(0.9, 0.85, 0.95), (0.5, 0.25, 0.75), (0.0, 0.0, 0.0)])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_one_cycle_turns_about_what_is_asked_for(name: str, asked: float, least: float, most: float) -> None:
    recipe = Recipe(optimizer=name, momentum=asked)
    made = optimizer([("w", nn.Parameter(torch.zeros(3)))], recipe, {})
    rates = schedule(made, recipe, 100)
    assert rates is not None

    def momentum() -> float:
        group = made.param_groups[0]
        return group["momentum"] if name == "sgd" else group["betas"][0]

    seen = []
    for _ in range(99):
        seen.append(momentum())
        made.step()
        rates.step()
    if asked == 0:
        assert set(seen) == {0.0 if name == "sgd" else 0.9}
    else:
        assert (min(seen), max(seen)) == pytest.approx((least, most), abs=1e-3)
        assert seen[0] == most


def test_images_seen_are_those_that_were_trained_on() -> None:
    history = retrain(network(1), network(), images(33), recipe=Recipe(epochs=2, batch_size=16))
    assert history.images_seen == 2 * 32


def test_a_front_keeps_what_its_tail_writes_over() -> None:
    torch.manual_seed(0)
    head = nn.Sequential(nn.SiLU(inplace=True), nn.Linear(6, 4))
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), head).eval()
    for parameter in model[1].parameters():
        parameter.requires_grad_(False)
    batch = torch.randn(5, 3, 2, 2)
    tail = trainable_tail(model, batch)
    assert tail is not None
    assert torch.equal(tail(inputs_of(tail, model, batch).clone()), model(batch))


def test_a_part_of_the_end_that_is_called_twice_has_no_front() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            fc = nn.Linear(6, 6)
            self.front, self.end = nn.Linear(12, 6), nn.Sequential(nn.ReLU(), fc, nn.ReLU(), fc)

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return self.end(self.front(batch.flatten(1)))

    model, batch = Shared().eval(), torch.randn(5, 3, 2, 2)
    for parameter in model.front.parameters():
        parameter.requires_grad_(False)
    tail = trainable_tail(model, batch)
    assert tail is None or torch.equal(tail(inputs_of(tail, model, batch)), model(batch))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.utils.data.DataLoader(images(4)), "a DataLoader: give a float tensor"),
        ([images(4)], "a list: give a float tensor"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), "normalise them"),
        (images(0), "no images"),
    ],
)
def test_images_of_another_form_are_refused(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        retrain(network(1), network(), given, recipe=RECIPE)


def test_images_are_taken_in_the_students_precision() -> None:
    assert retrain(network(1), network(), images(20).double(), recipe=Recipe(epochs=1)).images_seen == 20


def test_names_that_the_student_does_not_have_are_refused() -> None:
    with pytest.raises(UserError, match=r"no tensor '5\.weigth'; did you mean '5\.weight'"):
        retrain(network(1), network(), images(), codebooks=["5.weigth"], recipe=RECIPE)
    with pytest.raises(UserError, match="no tensor 'nope'"):
        retrain(network(1), network(), images(), only=["nope"], recipe=RECIPE)
    with pytest.raises(UserError, match="temperature=0"):
        retrain(network(1), network(), images(), temperature=0.0, recipe=RECIPE)
