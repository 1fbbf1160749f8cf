"""Frozen layers at the front, computed once: where there are any, and that the training is the same."""

import copy

import pytest
import torch
from test_retraining import RECIPE, images, network
from torch import nn

from requant.models import Architecture, build
from requant.retraining import retrain
from requant.retraining.front import inputs_of, trainable_tail
from requant.retraining.trainable import freeze


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


def test_a_front_whose_statistics_move_is_not_computed_once() -> None:
    results = []
    for front in ("once", "live"):
        student, only = network(), {"5.weight", "5.bias"}
        student[1] = nn.BatchNorm2d(4, affine=False)
        retrain(student, network(1), images(), recipe=RECIPE, only=only, front=front, statistics="update")
        results.append(student.state_dict())
    assert not torch.equal(results[0]["1.running_mean"], torch.zeros(4))
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_an_end_that_takes_two_tensors_has_no_front() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(12, 5)

        def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            return self.fc(one + other) + other[:, :5]

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.front, self.end = nn.Linear(12, 12), Sum()

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return self.end(self.front(batch), batch)

    student = Residual().eval()
    freeze(student, (), only=["end.fc.weight", "end.fc.bias"])
    assert trainable_tail(student, torch.randn(3, 12)) is None


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
