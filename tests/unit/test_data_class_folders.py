"""Labelled images of one's own: a tree with a folder for each class."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from requant import data
from requant.errors import ConfigError, DataError
from requant.preprocessing import Preprocessing

SMALL = Preprocessing(24, 28, (0.5,) * 3, (0.25,) * 3)


def write(folder: Path, *images: str) -> None:
    generator = np.random.default_rng(len(images))
    for image in images:
        path = folder / image
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (30, 40, 3)).astype(np.uint8)).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write(tmp_path / "test", "owl/1.png", "cat/a/1.png", "cat/2.png", "Zebra/x.png", ".hidden/1.png")
    return tmp_path / "test"


def test_indices_are_those_of_torchvisions_image_folder(tree: Path) -> None:
    usual = ImageFolder(str(tree))
    for name in (".hidden",):  # which ImageFolder takes for a class
        assert name in usual.classes
    expected = {Path(path): usual.classes[label] for path, label in usual.samples if ".hidden" not in path}
    images = data.labelled("folder", "test", SMALL, root=str(tree))
    names = ["Zebra", "cat", "owl"]
    paths = [Path(path) for path in images.images.paths]  # type: ignore[attr-defined]
    assert {path: names[int(images[place][1])] for place, path in enumerate(paths)} == expected
    assert data.classes("folder", str(tree)) == 3


def test_training_images_are_of_the_same_classes(tree: Path) -> None:
    train = tree.parent / "train"
    write(train, "owl/1.png", "cat/2.png", "cat/3.png")
    given = {"root": str(tree), "train_root": str(train)}
    with pytest.raises(DataError, match="have folders of other classes: Zebra"):
        data.labelled("folder", "train", SMALL, **given)
    (train / "Zebra").mkdir()
    images = data.labelled("folder", "train", SMALL, augment="flip_shift", **given)
    assert images.__getitems__(range(3))[1].tolist() == [1, 1, 2]
    assert not images.fixed


def test_a_tree_that_is_none_says_what_it_should_be(tmp_path: Path) -> None:
    for root in (None, str(tmp_path / "none"), str(tmp_path)):
        with pytest.raises(DataError, match=r"set data\.root=<folder with a folder of images for each class>"):
            data.classes("folder", root)
        with pytest.raises(DataError, match=r"set data\.root=<folder with"):
            data.labelled("folder", "test", SMALL, root=root)
    write(tmp_path, "owl/1.png")
    with pytest.raises(DataError, match=r"set data\.train_root=<folder with"):
        data.labelled("folder", "train", SMALL, root=str(tmp_path))


def test_no_labels_have_no_classes_and_nothing_to_train_on() -> None:
    assert data.classes(data.NO_LABELS) is None
    assert not data.has_training_images(data.NO_LABELS, None)
    with pytest.raises(ConfigError, match=r"data\.name is 'none'"):
        data.labelled(data.NO_LABELS, "test", SMALL)


def test_pairs_hold_a_label_for_each_image() -> None:
    images = data.unlabeled("digits", Preprocessing(8, 8, (0.5,), (0.25,)), limit=7)
    pairs = data.LabelledPairs(images, torch.arange(7))
    assert torch.equal(pairs.__getitems__([6, 0])[0], images.__getitems__([6, 0]))
    assert pairs.__getitems__([6, 0])[1].tolist() == [6, 0]
