"""Networks of Hugging Face that give embeddings or depths."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from test_hugging_face import SIZE, vit, written
from test_tracing import walked

import requant
from requant.errors import ConfigError
from requant.models import Architecture, build, described, load_weights
from requant.outputs import VALUES


def clip() -> Any:
    config = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        projection_dim=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=8,
    )
    return transformers.CLIPVisionModelWithProjection(config)


def depth() -> Any:
    config = transformers.DepthAnythingConfig(
        backbone_config=transformers.Dinov2Config(
            image_size=SIZE,
            patch_size=8,
            hidden_size=16,
            num_hidden_layers=4,
            num_attention_heads=2,
            out_features=["stage1", "stage2", "stage3", "stage4"],
            reshape_hidden_states=False,
        ),
        patch_size=8,
        reassemble_hidden_size=16,
        reassemble_factors=[4, 2, 1, 0.5],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    return transformers.DepthAnythingForDepthEstimation(config)


def test_depths_are_values_of_each_pixel(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = depth().eval()
    found = described(Architecture(written(tmp_path / "net", model), 1, 3, SIZE, outputs="values"))
    again = build(found)
    load_weights(again, "published", found)
    images = torch.randn(4, 3, SIZE, SIZE)
    wanted = model(images).predicted_depth.detach()
    assert torch.equal(VALUES.of(again, images).detach()[:, 0], wanted)
    (walk,) = walked(again, [images])
    assert torch.allclose(walk[:, 0], wanted, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize(("make", "numbers"), [(lambda: transformers.ViTModel(vit().config), 16), (clip, 12)])
def test_embeddings_are_values(make: Callable[[], Any], numbers: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = make().eval()
    name = written(tmp_path / "net", model)
    found = described(Architecture(name, numbers, 3, SIZE, outputs="values"))
    images = torch.randn(48, 3, SIZE, SIZE)
    wanted = VALUES.of(model, images).detach()
    assert wanted.shape == (48, numbers)
    again = build(found)
    load_weights(again, "published", found)
    assert torch.equal(VALUES.of(again, images).detach(), wanted)
    size = sum(4 * parameter.numel() for parameter in model.parameters()) // 6
    small, rounded = (
        requant.compress_to(again, images, size=size, outputs="values", reconstruct_on=count) for count in (48, 0)
    )
    lost, without = (VALUES.lost(VALUES.of(made.model, images).detach(), wanted) for made in (small, rounded))
    assert lost < 0.12
    assert lost < 0.8 * without
    with pytest.raises(ConfigError, match=rf"puts out \(1, {numbers}\)"):
        build(replace(found, classes=5))
