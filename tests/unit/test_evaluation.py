import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from requant.errors import DataError, UserError
from requant.evaluation import evaluate
from requant.scoring import score

LOGITS = torch.tensor([[3.0, 1.0, 0.0], [0.0, 1.0, 3.0], [0.0, 2.0, 1.0], [5.0, 0.0, 0.0]])


def test_counts_by_hand() -> None:
    accuracy = score(LOGITS, torch.tensor([0, 2, 2, 2]))
    assert (accuracy.correct, accuracy.n, accuracy.top1, accuracy.top5) == (2, 4, 0.5, 1.0)
    assert accuracy.worst_class == {"class": 2, "correct": 1, "n": 3, "top1": 1 / 3}
    assert accuracy.agreement is None
    assert accuracy.kl is None


def test_top5_are_five_classes() -> None:
    logits = torch.arange(7.0).repeat(7, 1)  # the greatest is the last
    found = score(logits, torch.arange(7))
    assert (found.correct, found.top5) == (1, 5 / 7)


def test_kl_is_of_the_student_from_the_teacher_in_nats_and_in_double_precision() -> None:
    student, teacher = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    expected = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert score(student, torch.tensor([0]), teacher).kl == pytest.approx(expected, rel=1e-6)
    near = torch.zeros(1, 2), torch.tensor([[1e-4, 0.0]])  # KL of shares that differ by d: 2 d^2, d = 1e-4 / 4
    assert score(near[1], torch.tensor([0]), near[0]).kl == pytest.approx(2 * (1e-4 / 4) ** 2, rel=1e-3)


@given(st.integers(0, 2**31 - 1), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_a_network_agrees_with_itself_and_order_does_not_matter(seed: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, other = torch.randn(2, n, 9, generator=generator)
    labels = torch.randint(9, (n,), generator=generator)
    same = score(logits, labels, logits)
    assert same.agreement == 1.0
    assert same.kl == 0.0
    order = torch.randperm(n, generator=generator)
    first, second = score(logits, labels, other), score(logits[order], labels[order], other[order])
    assert (first.correct, first.top5, first.agreement) == (second.correct, second.top5, second.agreement)
    assert first.worst_class["top1"] <= first.top1 <= first.top5
    assert first.kl == pytest.approx(second.kl)


def test_ties_go_to_the_lower_class() -> None:
    assert score(torch.zeros(2, 4), torch.tensor([0, 1])).correct == 1


def test_the_model_is_measured_in_eval_mode_and_left_as_it_was() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(4, 3)).train()
    batches = [(torch.randn(8, 1, 2, 2), torch.randint(3, (8,))) for _ in range(3)]
    assert evaluate(model, batches, teacher=model).agreement == 1.0
    assert model.training


def test_one_pass_generators_can_be_measured_against_a_teacher() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    batches = ((torch.randn(8, 1, 2, 2), torch.randint(3, (8,))) for _ in range(3))
    assert evaluate(model, batches, teacher=model).n == 24


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_no_numbers_count_as_wrong(value: float) -> None:
    teacher = torch.randn(6, 4)
    labels = teacher.argmax(1)
    broken = teacher.clone()
    broken[2, int(labels[2])] = value
    with pytest.warns(UserWarning, match="outputs on 1 of 6 images are no numbers"):
        found = score(broken, labels, teacher)
    assert (found.correct, found.agreement, found.kl) == (5, 5 / 6, None)
    assert found.top5 == 5 / 6
    with pytest.warns(UserWarning, match="on 6 of 6 images"):
        assert score(torch.full((6, 4), value), labels).correct == 0
    with pytest.raises(DataError, match="teacher's outputs on 1 of 6 images"):
        score(teacher, labels, broken)


def test_a_class_may_be_ruled_out() -> None:
    masked = torch.randn(6, 4)
    masked[:, 3] = -torch.inf
    assert score(masked, torch.zeros(6, dtype=torch.int64), masked).kl == 0
    other = masked.clone()
    other[:, :3] = masked[:, :3].flip(1)
    found = score(other, torch.zeros(6, dtype=torch.int64), masked).kl
    wanted = score(other[:, :3], torch.zeros(6, dtype=torch.int64), masked[:, :3]).kl
    assert found is not None
    assert found == pytest.approx(wanted)
    assert found > 0


@pytest.mark.parametrize(
    "outputs", [{"scores": torch.zeros(2, 3)}, torch.zeros(2), torch.zeros(3, 3), [torch.zeros(2, 3)]]
)
def test_outputs_of_another_form_are_an_error(outputs: object) -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, _: torch.Tensor) -> object:
            return outputs

    with pytest.raises(UserError, match="wrap it in a module"):
        evaluate(Other(), [(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))])


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([(torch.randn(4, 3), torch.zeros(4))], "class indices"),
        ([(torch.randn(4, 3), torch.zeros(4, 1, dtype=torch.int64))], r"need \(4,\)"),
        ([(torch.randn(4, 3), torch.zeros(4, dtype=torch.bool))], "class indices"),
        ([(torch.randn(4, 3), torch.zeros(3, dtype=torch.int64))], "class indices"),
        ([(torch.randn(4, 3), torch.tensor([0, 1, -1, 0]))], "from -1 to 1, and the outputs have classes 0 to 4"),
        ([(torch.randn(4, 3), torch.tensor([0, 1, 5, 0]))], "from 0 to 5"),
        ((torch.randn(2, 3), torch.zeros(2, dtype=torch.int64)), "pairs of tensors"),
        ([(torch.randn(0, 3), torch.zeros(0, dtype=torch.int64))], "the test set is empty"),
    ],
)
def test_batches_of_another_form_are_an_error(batches: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(nn.Linear(3, 5), batches)


def test_images_are_taken_to_the_networks_precision() -> None:
    images, labels = torch.randn(4, 3), torch.zeros(4, dtype=torch.int64)
    assert evaluate(nn.Linear(3, 5).half(), [(images, labels)], nn.Linear(3, 5)).n == 4
    assert evaluate(nn.Identity(), [(images, labels)]).n == 4


def test_an_empty_test_set_is_an_error() -> None:
    with pytest.raises(DataError, match="empty"):
        evaluate(nn.Linear(1, 1), [])
