"""Outputs that are no scores of one class: yes and no, values, and such of each position."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import r2_score
from torch import Tensor, nn

from requant import Recipe, compress, compress_to, evaluate, load, retrain, save
from requant.config import OUTPUTS
from requant.errors import ConfigError, DataError, UserError
from requant.models import Architecture
from requant.outputs import KINDS, SIGMOID, SOFTMAX, VALUES, Outputs, explained, tally
from requant.reconstruction import best_damping
from requant.reconstruction.curvature import fisher
from requant.retraining.losses import loss_of
from requant.scoring import score
from requant.sensitivity import Point, Study

SEEDS = st.integers(0, 2**31 - 1)
EACH = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
FORMS = pytest.mark.parametrize("positions", [(), (4, 5)], ids=["image", "positions"])


def drawn(seed: int, positions: tuple[int, ...] = (), images: int = 6, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    found, wanted = torch.randn(2, images, classes, *positions, generator=generator, dtype=torch.float64)
    return found, wanted


def rows(outputs: Tensor) -> Tensor:
    return outputs.flatten(2).transpose(1, 2).flatten(0, 1) if outputs.ndim > 2 else outputs


@EACH
@FORMS
@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_a_divergence_is_zero_of_what_is_alike_and_positive_else(
    kind: Outputs, positions: tuple[int, ...], seed: int
) -> None:
    found, wanted = drawn(seed, positions)
    assert float(kind.divergence(found, wanted)) > 0
    assert float(kind.divergence(wanted, wanted)) == pytest.approx(0, abs=1e-12)
    assert kind.lost(wanted, wanted) == 0
    assert 0 <= kind.lost(found, wanted) <= (1 if kind.decided else float("inf"))


@EACH
@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_positions_count_as_images_do(kind: Outputs, seed: int) -> None:
    found, wanted = drawn(seed, (4, 5))
    assert torch.allclose(kind.divergence(found, wanted), kind.divergence(rows(found), rows(wanted)))
    assert kind.lost(found, wanted) == pytest.approx(kind.lost(rows(found), rows(wanted)))
    losses = [loss_of("kl", 1.0, kind.name)(*pair, 1.0) for pair in ((found, wanted), (rows(found), rows(wanted)))]
    assert torch.allclose(*losses)


def test_golden_values() -> None:
    """By plain arithmetic."""
    found, wanted = torch.tensor([[0.0, 2.0]]).double(), torch.tensor([[1.0, 0.0]]).double()
    assert float(SIGMOID.divergence(found, wanted)) == pytest.approx(0.5447249021547541, rel=1e-9)
    assert float(SOFTMAX.divergence(found, wanted)) == pytest.approx(1.0068420594147642, rel=1e-9)
    assert float(VALUES.divergence(found, wanted)) == 5.0
    assert float(loss_of("kl", 1.0, "values")(found, wanted, 1.0)) == 5.0
    assert float(loss_of("kl", 2.0, "sigmoid")(found, wanted, 2.0)) == pytest.approx(0.601657475756174, rel=1e-8)


@given(SEEDS, st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_variance_explained_is_that_of_the_library_however_images_are_divided(seed: int, at: int) -> None:
    found, wanted = drawn(seed, (2, 2))
    parts = zip(found.split([at, 6 - at]), wanted.split([at, 6 - at]), strict=True)
    total = sum(tally(*part) for part in parts)
    assert isinstance(total, Tensor)
    library = r2_score(rows(wanted).numpy(), rows(found).numpy(), multioutput="variance_weighted")
    assert explained(total) == pytest.approx(library)
    means = wanted.mean((0, 2, 3), keepdim=True).expand_as(wanted)
    assert explained(tally(means, wanted)) == pytest.approx(0, abs=1e-12)


def test_values_that_do_not_vary_are_explained_or_not() -> None:
    alike = torch.ones(3, 2)
    assert explained(tally(alike, alike)) == 1
    assert explained(tally(alike + 1, alike)) == 0


@EACH
@FORMS
def test_fisher_information_is_half_the_divergence_s_second_derivative(
    kind: Outputs, positions: tuple[int, ...]
) -> None:
    """Its mean over draws; of values, whose divergence is the squared error, without the half."""
    torch.manual_seed(0)
    model = nn.Conv2d(2, 3, 1) if positions else nn.Sequential(nn.Flatten(), nn.Linear(2, 3))
    image = torch.randn(1, 2, *(positions or (1, 1)))
    found = fisher(model, [image] * 6000, outputs=kind)
    wanted = kind.of(model, image).detach()
    names = [name for name, _ in model.named_parameters()]
    for name in names:

        def divergence(value: Tensor, name: str = name) -> Tensor:
            outputs = torch.func.functional_call(model, {name: value}, (image,))
            return kind.divergence(outputs, wanted)

        parameter = model.get_parameter(name).detach()
        count = parameter.numel()
        second = torch.autograd.functional.hessian(divergence, parameter).reshape(count, count).diag()
        second = second / (2 if kind is VALUES else 1)
        assert torch.allclose(found[name].flatten(), second, rtol=0.15, atol=0.05 * float(second.max()))


class ByName(nn.Module):
    """A network that gives its outputs by name, as torchvision's for segmentation do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = self.inner(images)
        return {"aux": found.mean(), "out": found}


def pixels(outputs: int = 4, seed: int = 0) -> nn.Module:
    """Outputs at each position."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    layers += [nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Upsample(scale_factor=2), nn.Conv2d(24, outputs, 1))
    nn.init.uniform_(model[1].weight, 0.5, 2.0)
    nn.init.normal_(model[-1].weight, std=1.0)
    return ByName(model).eval()


def vectors(outputs: int = 12, seed: int = 0) -> nn.Module:
    """One vector for an image."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(32 * 9, outputs))
    nn.init.normal_(model[-1].weight, std=1.0)
    return model.eval()


def images(n: int, seed: int = 0) -> Tensor:
    """Smooth ones, as photographs are."""
    coarse = torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=16, mode="bicubic")


SEEN, OTHERS = images(128), images(64, seed=1)
NETWORKS = pytest.mark.parametrize("make", [pixels, vectors])


def distance(kind: Outputs, student: nn.Module, teacher: nn.Module) -> float:
    with torch.no_grad():
        return float(kind.divergence(kind.of(student, OTHERS), kind.of(teacher, OTHERS)))


@EACH
@NETWORKS
def test_networks_are_compressed_to_a_size(kind: Outputs, make: Callable[..., nn.Module], tmp_path: Path) -> None:
    teacher = make()
    size = 3200
    rounded = compress_to(teacher, SEEN, size=size, reconstruct_on=0, outputs=kind.name)
    found = compress_to(teacher, SEEN, size=size, damping=0.1, outputs=kind.name)
    save(tmp_path / "a", found.model, found.codebooks, storage="entropy")
    assert 0.99 * size <= (tmp_path / "a").stat().st_size <= size
    student = load(tmp_path / "a", make(seed=1))
    assert distance(kind, student, teacher) < 0.7 * distance(kind, rounded.model, teacher)


@EACH
@NETWORKS
def test_networks_are_retrained(kind: Outputs, make: Callable[..., nn.Module]) -> None:
    teacher = make()
    student = compress(teacher, [{"kind": "weight", "centroids": 4}], SEEN[:1])
    before = distance(kind, student.model, teacher)
    recipe = Recipe(epochs=6, batch_size=32, optimizer="adam", learning_rate=3e-3)
    goals = kind.goal(kind.of(teacher, OTHERS).detach())
    test = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(OTHERS, goals), batch_size=24)
    history = retrain(
        student.model, teacher, SEEN, codebooks=student.codebooks, recipe=recipe, outputs=kind.name, test=test
    )
    assert distance(kind, student.model, teacher) < 0.8 * before
    measured = evaluate(student.model, test, teacher, kind.name)
    assert history.curve[-1]["top1"] == pytest.approx(measured.top1, abs=1e-6)
    assert history.curve[-1]["n"] == measured.n == (goals.numel() if kind.decided else len(rows(goals)))
    assert measured.agreement == pytest.approx(measured.top1)


def test_the_teacher_s_outputs_are_computed_live_where_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, recipe = pixels(), Recipe(epochs=1, batch_size=32)
    weights = []
    asked: list[int] = []

    def keep(compute: Callable[[], Tensor]) -> tuple[Tensor, float]:
        asked.append(1)
        return compute(), 0.0

    for most, kept in ((1 << 30, 1), (128 * 4 * 16 * 16 * 4 - 1, 0)):
        asked.clear()
        monkeypatch.setattr("requant.retraining.unlabeled.MOST_BYTES", most)
        student = compress(teacher, [{"kind": "weight", "centroids": 4}], SEEN[:1])
        retrain(student.model, teacher, SEEN, codebooks=student.codebooks, recipe=recipe, keep=keep)
        assert len(asked) == kept
        weights.append(copy.deepcopy(student.model.state_dict()))
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-6) for name in weights[0])


def test_training_of_codebooks_brings_values_nearer_within_the_size(tmp_path: Path) -> None:
    teacher, size = pixels(), 2200
    settings = {"damping": 0.1, "trellis": False, "outputs": "values"}
    before = compress_to(teacher, SEEN, size=size, **settings)
    recipe = Recipe(epochs=20, batch_size=32, optimizer="adam", learning_rate=1e-3)
    found = compress_to(teacher, SEEN, size=size, recipe=recipe, **settings)
    save(tmp_path / "a", found.model, found.codebooks, storage="entropy")
    assert (tmp_path / "a").stat().st_size <= size
    assert distance(VALUES, found.model, teacher) < distance(VALUES, before.model, teacher)


@EACH
def test_a_drop_is_kept_by_what_is_stored(kind: Outputs) -> None:
    teacher = pixels()
    found = compress_to(teacher, SEEN, drop=0.05, held_out=OTHERS, damping=0.1, outputs=kind.name)
    with torch.no_grad():
        assert 0 < kind.lost(kind.of(found.model, OTHERS), kind.of(teacher, OTHERS)) <= 0.05


def test_damping_is_chosen_by_what_outputs_are(capsys: pytest.CaptureFixture[str]) -> None:
    teacher = vectors()
    student = compress(teacher, [{"kind": "weight", "centroids": 4}], SEEN[:1])
    best_damping(teacher, student.codebooks, list(SEEN.split(32)), VALUES)
    assert "the squared error is" in " ".join(capsys.readouterr().out.split())


@EACH
@FORMS
def test_counts_are_those_of_plain_arithmetic(kind: Outputs, positions: tuple[int, ...]) -> None:
    found, teacher = (part.float() for part in drawn(3, positions))
    labels = kind.goal(drawn(4, positions)[0].float())
    measured = score(found, labels, teacher, kind)
    if kind is VALUES:
        assert measured.correct is None
        assert measured.n == len(rows(found))
        assert measured.agreement == pytest.approx(
            r2_score(rows(teacher).numpy(), rows(found).numpy(), multioutput="variance_weighted")
        )
        assert measured.top1 == pytest.approx(
            r2_score(rows(labels).numpy(), rows(found).numpy(), multioutput="variance_weighted")
        )
        return
    decided, wanted = rows(found).numpy(), rows(teacher).numpy()
    mine, theirs = (d.argmax(1) if kind is SOFTMAX else d > 0 for d in (decided, wanted))
    right = labels.reshape(-1).numpy() if kind is SOFTMAX else rows(labels).numpy()
    assert (measured.n, measured.correct) == (mine.size, int((mine == right).sum()))
    assert measured.agreement == (mine == theirs).mean()
    assert measured.kl == pytest.approx(float(kind.divergence(found.double(), teacher.double())), rel=1e-9)
    assert (measured.worst_class is None) == (kind is SIGMOID)


@EACH
def test_outputs_that_are_no_numbers_are_never_right(kind: Outputs) -> None:
    found, teacher = (part.float() for part in drawn(3, (2, 2)))
    broken = teacher.clone()
    broken[0] = torch.nan
    with pytest.warns(UserWarning, match=r"on 4 of 24 positions are no numbers"):
        measured = score(broken, kind.goal(teacher), teacher, kind)
    assert measured.kl is None
    assert measured.agreement == (0 if kind is VALUES else 5 / 6)
    with pytest.raises(DataError, match="teacher's outputs on 4 of 24 positions"):
        score(found, kind.goal(teacher), broken, kind)


def test_scores_of_many_positions_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    found, teacher = drawn(5, (7, 9))
    labels = SOFTMAX.goal(drawn(6, (7, 9))[0])
    whole = score(found, labels, teacher)
    monkeypatch.setattr("requant.scoring.ROWS", 10)
    parts = score(found, labels, teacher)
    assert parts.to_dict() | {"kl": None} == whole.to_dict() | {"kl": None}
    assert parts.kl == pytest.approx(whole.kl, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "labels", "message"),
    [
        ("softmax", torch.zeros(64), "class indices"),
        ("softmax", torch.zeros(64, dtype=torch.int64), r"need \(64, 16, 16\)"),
        ("sigmoid", torch.zeros(64, 4, 16, 16), "booleans"),
        ("sigmoid", torch.zeros(64, 16, 16, dtype=torch.bool), r"need \(64, 4, 16, 16\)"),
        ("values", torch.zeros(64, 4, 16, 16, dtype=torch.int64), "floats"),
        ("values", torch.zeros(60, 4, 16, 16), "floats"),
    ],
)
def test_labels_of_another_form_are_an_error(name: str, labels: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(pixels(), [(OTHERS, labels)], outputs=name)


def test_what_cannot_be_is_said_with_what_to_do() -> None:
    one = vectors(outputs=1)
    with pytest.raises(UserError, match=r"set outputs=sigmoid .* or outputs=values"):
        compress_to(one, SEEN, size=3000)
    with pytest.raises(ConfigError, match=r"outputs=value: choose softmax, sigmoid, values; did you mean 'values'"):
        compress_to(one, SEEN, size=3000, outputs="value")
    for wrong in ({"loss": "mse"}, {"loss": "ce", "outputs": "sigmoid"}, {"temperature": 2.0}):
        with pytest.raises(ConfigError, match="is for outputs=softmax"):
            retrain(vectors(), vectors(), SEEN, **{"outputs": "values", **wrong})
    with pytest.raises(ConfigError, match=r"integer from 2"):
        Architecture("own:net.py:make", classes=1)
    assert Architecture("own:net.py:make", classes=1, outputs="values").to_dict()["outputs"] == "values"
    assert "outputs" not in Architecture("own:net.py:make").to_dict()


def test_more_outputs_than_the_memory_holds_are_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("requant.evaluation.MOST_BYTES", 30 * 4 * 16 * 16 * 4)
    batches = list(zip(OTHERS.split(16), torch.zeros(64, 16, 16, dtype=torch.int64).split(16), strict=True))
    with pytest.raises(DataError, match=r"on 32 images take .* measure on 30 images at most"):
        evaluate(pixels(), batches)
    assert evaluate(pixels(), batches[:1]).n == 16 * 16 * 16


def test_the_settings_know_all_kinds() -> None:
    assert set(OUTPUTS) == set(KINDS)


@EACH
def test_a_study_of_layers_counts_as_whole_evaluations_do(kind: Outputs, tmp_path: Path) -> None:
    teacher = pixels()
    goals = kind.goal(kind.of(teacher, OTHERS).detach())
    batches = list(zip(OTHERS.split(32), goals.split(32), strict=True))
    study = Study(teacher, SEEN[:1], batches, method="kmeans", storage="packed", outputs=kind)
    (found,) = study.measure([Point("weight", "3", 4)])
    student = compress(teacher, [{"kind": "weight", "layers": "3", "centroids": 4}], SEEN[:1])
    measured = evaluate(student.model, batches, teacher, kind.name)
    assert (found.accuracy.n, found.accuracy.correct) == (measured.n, measured.correct)
    assert found.accuracy.agreement == pytest.approx(measured.agreement, abs=1e-9)
    assert study.teacher.top1 == 1


@pytest.mark.parametrize("name", ["softmax", "values"])
def test_onnx_gives_the_outputs_that_count(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from requant.exporting import export_onnx

    teacher = pixels()
    architecture = Architecture("own:net", 4, 3, 16, mean=(0.5,) * 3, std=(0.5,) * 3, outputs=name)
    student = compress(teacher, [{"kind": "weight", "centroids": 16}], SEEN[:1])
    save(tmp_path / "a.h5", student.model, student.codebooks, architecture=architecture.to_dict())
    export_onnx(tmp_path / "a.h5", tmp_path / "a.onnx", model=pixels(seed=1))
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    (output,) = session.get_outputs()
    assert output.name == ("values" if name == "values" else "logits")
    (found,) = session.run(None, {"images": OTHERS.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, student.model(OTHERS)["out"].numpy(), atol=1e-4)
