"""Labelled images as a tree <class>/<image files>, as torchvision's ImageFolder reads it."""

from collections.abc import Mapping
from pathlib import Path

import torch

from requant.data.crops import RandomCrops
from requant.data.decoding import verify
from requant.data.files import images_below, try_each
from requant.data.image_files import FileImages
from requant.data.pairs import LabelledPairs
from requant.data.pictures import FilePictures
from requant.data.randomness import chosen
from requant.errors import DataError
from requant.preprocessing import Preprocessing
from requant.suggest import some

NAMED = "folder with a folder of images for each class"
_TRAINING_SCALE = (0.08, 1.0)


def read_tree(root: str | None, setting: str) -> dict[Path, int]:
    """The image files, sorted, and the class index of each: the place of its folder's name among the sorted ones.

    Args:
        root: the folder of class folders.
        setting: what names it, for messages.

    Raises:
        DataError: no such folder, or no images in folders.
    """
    names = class_names(root, setting, NAMED)
    return images_by_class(str(root), {name: number for number, name in enumerate(names)})


def class_names(root: str | None, setting: str, named: str) -> list[str]:
    """The folders of the classes, sorted by name; `named` says what `setting` should be, for messages.

    Raises:
        DataError: no such folder, or no folder in it.
    """
    if root is None:
        raise DataError(f"the labelled images need a folder; set {setting}=<{named}>")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DataError(f"there is no folder {root}; set {setting}=<{named}>")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise DataError(f"{folder} holds no class folders; set {setting}=<{named}>")
    return names


def require_same_classes(root: str | None, train_root: str | None) -> None:
    """Raise DataError unless both trees have folders of the same names, so that their indices mean the same."""
    test, train = (set(class_names(*where, NAMED)) for where in ((root, "data.root"), (train_root, "data.train_root")))
    if test != train:
        raise DataError(
            f"{root} and {train_root} have folders of other classes: {some(sorted(test ^ train), 5)}; "
            "make them the same, with empty ones where there are no images"
        )


def images_by_class(root: str, index: Mapping[str, int]) -> dict[Path, int]:
    """The image files below class folders, sorted, and the class index of each.

    Raises:
        DataError: no images, or some outside the class folders.
    """
    folder = Path(root).expanduser()
    paths = images_below(folder)
    if loose := [path.name for path in paths if path.parent == folder]:
        raise DataError(f"{root} holds images outside the class folders: {', '.join(loose[:5])}; move them into one")
    return {path: index[path.relative_to(folder).parts[0]] for path in paths}


def open_images(
    labels: Mapping[Path, int], preprocessing: Preprocessing, augment: str, limit: int | None, seed: int
) -> LabelledPairs:
    """The images of a tree with their classes; those that cannot be read are skipped with a warning.

    Args:
        labels: the image files and the class index of each.
        preprocessing: what the network expects.
        augment: `none` (as evaluated), `shift` (random-resized crops) or `flip_shift` (half of them mirrored as well).
        limit: so many of them, classes mixed.
        seed: of the crops.
    """
    paths = list(labels)
    sizes, skipped = try_each(verify, [paths[place] for place in chosen(len(paths), limit)], "Checking images")
    kept = torch.tensor([labels[path] for path in sizes])
    if augment == "none":
        return LabelledPairs(FileImages(list(sizes), preprocessing, skipped), kept)
    crops = RandomCrops(
        FilePictures(sizes, preprocessing.channels, skipped),
        preprocessing,
        crops=len(sizes),
        scale=_TRAINING_SCALE,
        flip=augment == "flip_shift",
        fresh=True,
        seed=seed,
    )
    return LabelledPairs(crops, kept)
