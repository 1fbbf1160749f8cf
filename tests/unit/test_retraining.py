"""Retraining on a small network: what moves, what stands still, and that a resumed training ends in the same bits."""

import copy
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from requant.compression import check_placed, compress
from requant.data import loader
from requant.errors import ConfigError, UserError
from requant.evaluation import evaluate
from requant.recipe import Recipe
from requant.retraining import predict, retrain, retrain_with_labels, unlabeled
from requant.retraining.losses import LOSSES
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


STILL = Recipe(epochs=2, batch_size=35, learning_rate=1e-9, schedule="constant")  # nothing moves; batches are halves

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


def test_images_that_would_not_fit_into_memory_are_made_in_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    results, asked = [], []
    for most in (unlabeled.MOST_BYTES, 70 * 64 * 4 - 1):
        monkeypatch.setattr(unlabeled, "MOST_BYTES", most)
        student, made = network(), Made()
        retrain(student, network(1), made, recipe=RECIPE)
        results.append(student.state_dict())
        asked.append(made.asked)
    assert asked[0] < 80 < 4 * 70 <= asked[1]
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


class Fresh(TensorImages):
    """Other images in every epoch: darker ones."""

    fixed = False

    def __init__(self) -> None:
        super().__init__(images())
        self.epochs: list[int] = []

    def __getitems__(self, indices: list[int]) -> torch.Tensor:
        self.epochs += [index // 70 for index in indices]
        return (
            super().__getitems__(indices)
            / (1 + torch.tensor(indices).div(70, rounding_mode="floor"))[:, None, None, None]
        )


def test_images_that_are_new_in_every_epoch_are_seen_in_each_with_the_teachers_outputs_for_them() -> None:
    made, whole = Fresh(), Recipe(epochs=3, batch_size=70, learning_rate=1e-9, schedule="constant")
    history = retrain(network(), network(1), made, recipe=whole)
    assert {epoch: made.epochs.count(epoch) for epoch in range(3)} == {0: 70, 1: 70, 2: 70}
    for epoch, entry in enumerate(history.curve):
        batch = images() / (1 + epoch)
        expected = LOSSES["kl"](network()(batch), network(1)(batch), 1.0).detach()
        assert entry["loss"] == pytest.approx(float(expected), rel=1e-4)


def test_two_trainings_are_bit_identical_and_another_seed_differs() -> None:
    def weights(seed: int) -> torch.Tensor:
        student = network()
        retrain(student, network(1), images(), recipe=RECIPE, seed=seed)
        return student[0].weight

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


class Draws(nn.Module):
    """Hands its input on, and notes a random number beside."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen.append(float(torch.rand(())))
        return batch


def test_random_choices_are_others_in_every_step_and_the_same_for_the_same_seed() -> None:
    def drawn(seed: int) -> list[float]:
        student = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), Draws())
        retrain_with_labels(student, Labelled(), recipe=Recipe(epochs=3, batch_size=35), seed=seed)
        return student[2].seen

    first = drawn(0)
    assert len(set(first)) == 6
    assert drawn(0) == first
    assert not set(drawn(1)) & set(first)


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


@pytest.mark.parametrize("how", ["once", "live"])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_curve_holds_the_mean_loss_at_the_temperature_asked_for(loss: str, how: str) -> None:
    student, teacher = network(), network(1)
    expected = LOSSES[loss](student(images()), teacher(images()), 3.0).detach()
    history = retrain(student, teacher, images(), recipe=STILL, loss=loss, temperature=3.0, teacher_outputs=how)
    assert [entry["loss"] for entry in history.curve] == pytest.approx([float(expected)] * 2, rel=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_curve_of_a_training_with_labels_holds_the_mean_smoothed_loss(smoothing: float) -> None:
    student = network()
    expected = F.cross_entropy(student(images()), torch.arange(70) % 5, label_smoothing=smoothing).detach()
    history = retrain_with_labels(student, Labelled(), recipe=STILL, label_smoothing=smoothing, statistics="keep")
    assert [entry["loss"] for entry in history.curve] == pytest.approx([float(expected)] * 2, rel=1e-4)


def test_the_curve_counts_what_evaluation_counts() -> None:
    student, test = network(), loader(Labelled(), 32, shuffle=False)
    history = retrain(student, network(1), images(), recipe=RECIPE, test=test)
    expected = evaluate(student, test)
    assert [entry["n"] for entry in history.curve] == [70] * 3
    assert (history.curve[-1]["correct"], history.curve[-1]["top1"]) == (expected.correct, expected.top1)


def test_what_came_before_the_first_epoch_counts_in_the_seconds() -> None:
    history = retrain(
        network(), network(1), images(), recipe=STILL, keep=lambda compute: (compute(), 1000.0)
    )  # as if an earlier run had computed the teacher's outputs
    assert 1000 < history.teacher_seconds < 1100
    told = history.to_dict()
    assert told["seconds_of_teacher"] == history.teacher_seconds
    assert told["seconds"] == history.seconds + history.teacher_seconds
    assert told["seconds_per_epoch"] == history.seconds / 2


@pytest.mark.parametrize("how", ["labels", "outputs"])
def test_the_student_comes_back_in_eval_mode(how: str) -> None:
    student = network().train()
    if how == "labels":
        retrain_with_labels(student, Labelled(), recipe=STILL, stochastic=True)
    else:
        retrain(student, network(1), images(), recipe=STILL, statistics="update")
    assert not any(module.training for module in student.modules())


def test_a_loss_that_rises_is_said() -> None:
    far = Recipe(epochs=3, batch_size=70, learning_rate=1e-6, schedule="constant")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        retrain(network(), network(1), images(), recipe=far)
    student = network(1)  # nothing to learn, and steps that are far too long
    with pytest.warns(UserWarning, match="the loss rose from .* set a lower learning_rate"):
        retrain(student, network(1), images(), recipe=replace(far, optimizer="adam", learning_rate=0.5))


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


def test_images_seen_are_those_that_were_trained_on() -> None:
    history = retrain(network(1), network(), images(33), recipe=Recipe(epochs=2, batch_size=16))
    assert history.images_seen == 2 * 32


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
