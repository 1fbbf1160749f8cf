"""ImageNet (ILSVRC 2012) as a tree <wnid>/<image files>, or any part of it."""

from importlib.resources import files
from pathlib import Path

from requant.data.class_folders import class_names, images_by_class
from requant.errors import DataError
from requant.suggest import did_you_mean, some

CLASSES = 1000
NAMED = "folder of folders named by wnid"


def wnids() -> list[str]:
    """The 1,000 WordNet ids, in the order of the class indices."""
    return files("requant.data").joinpath("imagenet_wnids.txt").read_text().split()


def read_tree(root: str | None, setting: str) -> dict[Path, int]:
    """The image files, sorted, and the class index of each.

    Raises:
        DataError: no such folder, folders that are no ImageNet class, or no images.
    """
    if root is None:
        raise DataError(f"ImageNet is not downloaded; set {setting}=<{NAMED}>")
    index = {wnid: number for number, wnid in enumerate(wnids())}
    if foreign := [name for name in class_names(root, setting, NAMED) if name not in index]:
        folder = Path(root).expanduser()
        raise DataError(
            f"{folder} holds folders that are no ImageNet class: {some(foreign, 5)}{_advice(folder, foreign, index)}"
        )
    return images_by_class(root, index)


def _advice(folder: Path, foreign: list[str], index: dict[str, int]) -> str:
    for name in foreign:
        if any(path.name in index for path in (folder / name).iterdir()):
            return f"; did you mean {folder / name}?"
    return did_you_mean(foreign[0], index) or "; name each folder by its wnid, such as n01440764"
