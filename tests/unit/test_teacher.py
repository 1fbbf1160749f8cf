"""Teachers: batch norm for the time of training only, and what is kept of them."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from requant.data import labelled, loader
from requant.errors import WeightsError
from requant.evaluation import evaluate
from requant.layers import describe
from requant.models import Architecture, build, load_weights, preprocessing
from requant.models.batch_norm import add_batch_norms, fold_batch_norms
from requant.recipe import Recipe
from requant.teacher import keep_teacher, train_teacher

SMALL = Architecture("vgg_small", classes=10, channels=1, image_size=16, width=0.25)


@pytest.mark.parametrize("name", ["vgg16_cifar", "vgg_small"])
def test_folded_batch_norms_leave_the_network_its_form_and_outputs(name: str) -> None:
    torch.manual_seed(0)
    model = build(Architecture(name, classes=10, image_size=32, width=0.1))
    form = {key: value.shape for key, value in model.state_dict().items()}
    added = add_batch_norms(model)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert len(norms) == len(form) // 2 - 1  # behind each layer (a weight and a bias) but the last
    images = torch.randn(32, 3, 32, 32)
    model.train()
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.uniform_(norm.bias, -1, 1)
    for _ in range(5):
        model(images)
    expected = model.eval()(images)
    fold_batch_norms(model, added)
    assert {key: value.shape for key, value in model.state_dict().items()} == form
    torch.testing.assert_close(model(images), expected, atol=1e-4, rtol=1e-4)


def test_a_network_keeps_the_batch_norms_of_its_own() -> None:
    torch.manual_seed(0)
    model = build(Architecture("resnet50_cifar_s2", classes=10, image_size=32, width=0.05))
    before = set(model.state_dict())
    assert add_batch_norms(model) == []
    assert set(model.state_dict()) == before


def test_the_first_stage_at_stride_2_keeps_parameters_and_layer_numbers() -> None:
    settings = {"classes": 10, "image_size": 32, "width": 0.0625}
    plain, strided = (Architecture(name, **settings) for name in ("resnet50_cifar", "resnet50_cifar_s2"))
    example = torch.zeros(1, 3, 32, 32)
    assert describe(build(plain), example) == describe(build(strided), example)
    sides = [build(a).layer1(torch.zeros(1, 4, 32, 32)).shape[-1] for a in (plain, strided)]
    assert sides == [32, 16]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_kept_teacher_is_small_recorded_and_checked(tmp_path: Path, batch_norm: bool) -> None:
    wanted = preprocessing(SMALL)
    images = labelled("mnist5k", "train", wanted, limit=300)
    test = loader(labelled("mnist5k", "test", wanted, limit=200), 100, shuffle=False)
    trained, kept = tmp_path / "cache" / "t.safetensors", tmp_path / "kept" / "t.safetensors"
    recipe = Recipe(epochs=3, batch_size=32, learning_rate=0.05)
    logger = CSVLogger(tmp_path, "curve")
    model = train_teacher(trained, SMALL, images, test, recipe, batch_norm=batch_norm, loggers=[logger])
    curve = pd.read_csv(Path(logger.log_dir) / "metrics.csv")
    assert curve["top1"].notna().sum() >= 3
    accuracy = keep_teacher(kept, trained, SMALL, test, {"hash": "abc"})
    record = json.loads(kept.with_suffix(".json").read_text())
    assert record["hash"] == "abc"
    assert len(record["training"]["curve"]) == 3
    assert record["accuracy"]["correct"] == accuracy.correct
    assert record["accuracy_in_float32"]["correct"] == evaluate(model, test).correct
    assert abs(accuracy.top1 - record["accuracy_in_float32"]["top1"]) <= 0.0005
    if record["precision"] == "float16":
        assert kept.stat().st_size < 0.6 * trained.stat().st_size
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(content)
    with pytest.raises(WeightsError, match="sha256"):
        load_weights(build(SMALL), str(kept), SMALL)
