"""ImageNet (ILSVRC 2012) as a tree <wnid>/<image files>, or any part of it."""

from importlib.resources import files
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
from requant.suggest import did_you_mean, some

CLASSES = 1000
_TRAINING_SCALE = (0.08, 1.0)


def open_tree(
    root: str | None, setting: str, preprocessing: Preprocessing, augment: str, limit: int | None, seed: int
) -> LabelledPairs:
    """The images of a tree with their classes; those that cannot be read are skipped with a warning.

    Args:
        root: the folder of class folders.
        setting: what names it, for messages.
        preprocessing: what the network expects.
        augment: `none` (as evaluated), `shift` (random-resized crops) or `flip_shift` (half of them mirrored as well).
        limit: so many of them, classes mixed.
        seed: of the crops.
    """
    labels = read_tree(root, setting)
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


def wnids() -> list[str]:
    """The 1,000 WordNet ids, in the order of the class indices."""
    return files("requant.data").joinpath("imagenet_wnids.txt").read_text().split()


def read_tree(root: str | None, setting: str) -> dict[Path, int]:
    """The image files, sorted, and the class index of each.

    Raises:
        DataError: no such folder, folders that are no ImageNet class, or no images.
    """
    if root is None:
        raise DataError(f"ImageNet is not downloaded; set {setting}=<folder of folders named by wnid>")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DataError(f"there is no folder {root}; set {setting}=<folder of folders named by wnid>")
    index = {wnid: number for number, wnid in enumerate(wnids())}
    _check_names(folder, index, setting)
    paths = images_below(folder)
    if loose := [path.name for path in paths if path.parent == folder]:
        raise DataError(f"{root} holds images outside the class folders: {', '.join(loose[:5])}; move them into one")
    return {path: index[path.relative_to(folder).parts[0]] for path in paths}


def _check_names(folder: Path, index: dict[str, int], setting: str) -> None:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise DataError(f"{folder} holds no class folders; set {setting}=<folder of folders named by wnid>")
    if foreign := [name for name in names if name not in index]:
        raise DataError(
            f"{folder} holds folders that are no ImageNet class: {some(foreign, 5)}{_advice(folder, foreign, index)}"
        )


def _advice(folder: Path, foreign: list[str], index: dict[str, int]) -> str:
    for name in foreign:
        if any(path.name in index for path in (folder / name).iterdir()):
            return f"; did you mean {folder / name}?"
    return did_you_mean(foreign[0], index) or "; name each folder by its wnid, such as n01440764"
