from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from requant import data
from requant.data.imagenet import wnids
from requant.errors import DataError
from requant.preprocessing import Preprocessing

SMALL = Preprocessing(24, 28, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic")
SHAPES = ((60, 40), (40, 60), (28, 28), (31, 300))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Four classes, four images each, of several shapes."""
    generator = np.random.default_rng(0)
    for place in (999, 0, 17, 500):
        folder = tmp_path / wnids()[place]
        folder.mkdir()
        for number, shape in enumerate(SHAPES):
            pixels = generator.integers(0, 256, (*shape, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.JPEG", quality=90)
    return tmp_path


def whole(images: data.LabelledImages) -> tuple[torch.Tensor, torch.Tensor]:
    return images.__getitems__(range(len(images)))


def test_there_are_a_thousand_classes_in_order() -> None:
    assert len(set(wnids())) == 1000
    assert wnids() == sorted(wnids())
    assert wnids()[0] == "n01440764"
    assert wnids()[999] == "n15075141"


def test_any_part_of_the_classes_has_the_right_indices(tree: Path) -> None:
    images = data.labelled("imagenet", "test", SMALL, root=str(tree))
    assert sorted(whole(images)[1].tolist()) == [0] * 4 + [17] * 4 + [500] * 4 + [999] * 4
    assert images.fixed


def test_images_are_seen_as_in_the_usual_evaluation(tree: Path) -> None:
    usual = v2.Compose(
        [
            v2.Resize(28, InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(24),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(SMALL.mean, SMALL.std),
        ]
    )
    ours = whole(data.labelled("imagenet", "test", SMALL, root=str(tree)))[0]
    for image, path in zip(ours, sorted(tree.rglob("*.JPEG")), strict=True):
        torch.testing.assert_close(image, usual(Image.open(path).convert("RGB")), atol=1e-5, rtol=0)


def test_training_images_are_random_crops_that_differ_by_epoch(tree: Path) -> None:
    images = data.labelled("imagenet", "train", SMALL, train_root=str(tree), augment="flip_shift")
    assert len(images) == 16
    assert not images.fixed
    pixels, labels = whole(images)
    assert pixels.shape == (16, 3, 24, 24)
    later, same_labels = images.__getitems__(range(16, 32))
    assert not torch.equal(pixels, later)
    assert torch.equal(labels, same_labels)
    plain = data.labelled("imagenet", "train", SMALL, train_root=str(tree))
    assert torch.equal(whole(plain)[1], labels)
    assert plain.fixed


def test_an_unreadable_image_is_skipped_with_its_label(tree: Path) -> None:
    broken = tree / wnids()[0] / "1.JPEG"
    broken.write_text("text")
    for kind in ({"root": str(tree), "split": "test"}, {"train_root": str(tree), "split": "train"}):
        with pytest.warns(UserWarning, match=r"1 of 16 image files cannot be read: .*1\.JPEG"):
            images = data.labelled("imagenet", preprocessing=SMALL, **kind)
        assert images.skipped == (str(broken),)
        assert whole(images)[1].bincount()[[0, 17, 500, 999]].tolist() == [3, 4, 4, 4]


def test_a_limit_mixes_classes(tree: Path) -> None:
    images = data.labelled("imagenet", "test", SMALL, root=str(tree), limit=8)
    assert len(images) == 8
    assert len(set(whole(images)[1].tolist())) > 2


def test_foreign_folders_are_named(tree: Path) -> None:
    (tree / "n01440765").mkdir()
    with pytest.raises(DataError, match="no ImageNet class: n01440765; did you mean 'n0144076"):
        data.labelled("imagenet", "test", SMALL, root=str(tree))


def test_the_folder_above_is_told_from_the_tree(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    above = tmp_path_factory.mktemp("imagenet")
    (above / "val").symlink_to(tree)
    with pytest.raises(DataError, match=r"did you mean .*val\?"):
        data.labelled("imagenet", "test", SMALL, root=str(above))


def test_images_beside_the_class_folders_are_an_error(tree: Path) -> None:
    Image.new("RGB", (9, 9)).save(tree / "loose.png")
    with pytest.raises(DataError, match=r"outside the class folders: loose\.png"):
        data.labelled("imagenet", "test", SMALL, root=str(tree))


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class folders"):
        data.labelled("imagenet", "test", SMALL, root=str(tmp_path))
    (tmp_path / wnids()[3]).mkdir()
    with pytest.raises(DataError, match="no image file"):
        data.labelled("imagenet", "test", SMALL, root=str(tmp_path))
    with pytest.raises(DataError, match="there is no folder"):
        data.labelled("imagenet", "test", SMALL, root=str(tmp_path / "none"))


def test_the_setting_to_make_is_named() -> None:
    with pytest.raises(DataError, match=r"set data\.root="):
        data.labelled("imagenet", "test", SMALL)
    with pytest.raises(DataError, match=r"set data\.train_root="):
        data.labelled("imagenet", "train", SMALL, root="somewhere")


@pytest.mark.data
def test_the_real_images(imagenet_root: str) -> None:
    images = data.labelled("imagenet", "test", Preprocessing(224, 256, SMALL.mean, SMALL.std), root=imagenet_root)
    assert images.skipped == ()
    pixels, labels = images.__getitems__(range(20))
    assert pixels.shape == (20, 3, 224, 224)
    assert labels.max() < 1000
