"""Sets of images by name."""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from requant.data import cifar10, cifar100, class_folders, digits, imagenet, mnist5k, photos, stl10, svhn
from requant.data.arrays import AUGMENTATIONS, ArrayImages
from requant.data.checks import check_augment, check_crops, check_name, check_shared
from requant.data.crops import RandomCrops
from requant.data.files import images_below
from requant.data.pairs import LabelledPairs
from requant.data.pictures import MemoryPictures, Pictures, open_pictures
from requant.data.protocols import LabelledImages, Part, Split, UnlabeledImages
from requant.data.randomness import chosen
from requant.errors import ConfigError
from requant.preprocessing import Preprocessing

NO_LABELS = "none"
"""The name of a labelled set that is none."""
_CLASSES = {"mnist5k": mnist5k.CLASSES, "cifar10": cifar10.CLASSES, "imagenet": imagenet.CLASSES}
_TREES = {"imagenet": imagenet.read_tree, "folder": class_folders.read_tree}
_LABELLED = (*_CLASSES, "folder")
_SMALL_IMAGES: dict[str, Callable[[str | None], Tensor]] = {
    "digits": lambda _: digits.read_images(),
    "cifar10": lambda root: cifar10.read("train", root)[0],
    "cifar100": cifar100.read_images,
    "stl10": stl10.read_images,
    "svhn": svhn.read_images,
    "mnist5k": lambda _: mnist5k.read("train")[0],
}
_UNLABELED = (*_SMALL_IMAGES, "folder", "photos")
_CROPS_A_PHOTOGRAPH = 10


def labelled(
    name: str,
    split: Split,
    preprocessing: Preprocessing,
    *,
    root: str | None = None,
    train_root: str | None = None,
    augment: str = "none",
    limit: int | None = None,
    seed: int = 0,
) -> LabelledImages:
    """Images with their class indices.

    Args:
        name: `mnist5k`, `cifar10`, `imagenet` or `folder` (a tree with a folder for each class).
        split: `train` or `test`.
        preprocessing: what the network expects.
        root: where the data lie; of trees that of the test images. cifar10 without it: the cache, else a download.
        train_root: of trees: that of the training images.
        augment: of training images: `none`, `shift` (by up to an eighth of the size; trees: random-resized crops),
            or `flip_shift` (half of them mirrored as well).
        limit: the first so many of a fixed order in which classes are mixed.
        seed: of the augmentation.

    Raises:
        ConfigError: a name or setting that does not exist or does not apply.
        DataError: the images are missing or not what they should be.
    """
    check_name(name, _LABELLED, "data.name")
    check_name(split, ("train", "test"), "the split")
    check_augment(augment, AUGMENTATIONS, split)
    check_shared(name, root, limit, preprocessing, "data")
    if name in _TREES:
        where = (root, "data.root") if split == "test" else (train_root, "data.train_root")
        if name == "folder" and split == "train":
            class_folders.require_same_classes(root, train_root)
        return class_folders.open_images(_TREES[name](*where), preprocessing, augment, limit, seed)
    pixels, labels = mnist5k.read(split) if name == "mnist5k" else cifar10.read(split, root)
    return LabelledPairs(ArrayImages(_limited(pixels, limit), preprocessing, augment, seed), _limited(labels, limit))


def classes(name: str, root: str | None = None) -> int | None:
    """Number of classes of a labelled set; None of `none`. Of `folder` those of the tree."""
    check_name(name, (*_LABELLED, NO_LABELS), "data.name")
    if name == "folder":
        return len(class_folders.class_names(root, "data.root", class_folders.NAMED))
    return _CLASSES.get(name)


def has_training_images(name: str, train_root: str | None) -> bool:
    """Whether `labelled(name, "train", ...)` has something to open."""
    check_name(name, (*_LABELLED, NO_LABELS), "data.name")
    return name != NO_LABELS and (name not in _TREES or train_root is not None)


def unlabeled(
    name: str,
    preprocessing: Preprocessing,
    *,
    root: str | None = None,
    crops: int | None = None,
    scale: tuple[float, float] = (0.08, 1.0),
    flip: bool = True,
    fresh: bool = False,
    limit: int | None = None,
    part: Part = "all",
    seed: int = 0,
) -> UnlabeledImages:
    """Images without labels: whole (sets of small images, by default) or random crops of them.

    Args:
        name: `digits`, `cifar10`, `cifar100`, `stl10`, `svhn`, `mnist5k` (small images), `folder` or `photos`.
        preprocessing: what the network expects.
        root: where the data lie; without it: the cache, else a download. `folder` needs it.
        crops: items an epoch, each a random crop; None: small images whole, ten crops a photograph.
        scale: least and greatest share of the image's area that a crop has.
        flip: mirror half of the crops.
        fresh: new crops each epoch; without it an item is the same in every epoch.
        limit: so many images of a fixed order; crops are cut from those.
        part: `all` of them, or a fixed fifth `held_out`, or the others, `seen`; no crop of one part is of an image of
            the other.
        seed: of the crops.

    Raises:
        ConfigError: a name or setting that does not exist or does not apply.
        DataError: the images are missing or cannot be read, or are too few to hold any out.
    """
    check_name(name, _UNLABELED, "unlabeled.name")
    check_shared(name, root, limit, preprocessing, "unlabeled")
    check_crops(crops, scale)
    if name in _SMALL_IMAGES:
        pixels = _limited(_SMALL_IMAGES[name](root), limit, part)
        if crops is None:
            if fresh:
                warnings.warn(f"fresh is ignored: {name} is used whole; set crops for new crops", stacklevel=2)
            return ArrayImages(pixels, preprocessing)
        pictures: Pictures = MemoryPictures(pixels)
    else:
        pictures = _photographs(name, root, limit, part, preprocessing.channels)
    items = crops or _CROPS_A_PHOTOGRAPH * len(pictures)
    return RandomCrops(pictures, preprocessing, crops=items, scale=scale, flip=flip, fresh=fresh, seed=seed)


def cuts_crops(name: str, crops: int | None) -> bool:
    """Whether `unlabeled` cuts random crops, which depend on the seed, or takes images whole."""
    return name not in _SMALL_IMAGES or crops is not None


def _photographs(name: str, root: str | None, limit: int | None, part: Part, channels: int) -> Pictures:
    if name == "folder" and root is None:
        raise ConfigError("unlabeled.name=folder needs a folder; set unlabeled.root=<folder of images>")
    paths = images_below(Path(root).expanduser()) if root is not None else photos.paths()
    return open_pictures([paths[place] for place in chosen(len(paths), limit, part)], channels)


def _limited(values: Tensor, limit: int | None, part: Part = "all") -> Tensor:
    return values if limit is None and part == "all" else values[torch.from_numpy(chosen(len(values), limit, part))]
