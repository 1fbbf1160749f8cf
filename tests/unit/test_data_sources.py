import hashlib
import inspect
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy.io import savemat

from requant import data
from requant.data import mnist5k, photos, placing
from requant.data.digits import framed
from requant.errors import ConfigError, DataError
from requant.preprocessing import Preprocessing

GREY = Preprocessing(28, 28, (0.0,), (1.0,))
RGB = Preprocessing(32, 32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_mnist5k_is_split_by_class_and_nothing_is_in_both() -> None:
    train, test = (data.labelled("mnist5k", split, GREY) for split in ("train", "test"))
    assert train.__getitems__(range(4000))[1].bincount().tolist() == [400] * 10
    assert test.__getitems__(range(1000))[1].bincount().tolist() == [100] * 10
    seen = {image.numpy().tobytes() for images in (train, test) for image in images.__getitems__(range(len(images)))[0]}
    assert len(seen) == 5000


def test_mnist5ks_split_is_frozen() -> None:
    labels = np.repeat(np.arange(10), 500)
    digest = hashlib.sha256(mnist5k.split_positions(labels, "test").astype("<i8").tobytes()).hexdigest()
    assert digest == "a28caf3ccb06505f194ce073c80d54fe228cfa0e0947b2e37ec6b185cbc893fd"


def test_digits_sit_as_in_mnist() -> None:
    ours = data.unlabeled("digits", GREY).__getitems__(range(1797))
    theirs = data.unlabeled("mnist5k", GREY).__getitems__(range(4000))
    assert ours.shape == (1797, 1, 28, 28)
    assert abs(ours.mean() - theirs.mean()) < 0.04
    assert abs(ours.std() - theirs.std()) < 0.04
    rows = (ours.amax(dim=3) > 0.1).sum(dim=2).float().mean()
    assert abs(rows - (theirs.amax(dim=3) > 0.1).sum(dim=2).float().mean()) < 1


@given(hnp.arrays(np.float64, (8, 8), elements=st.integers(0, 16).map(float)).filter(lambda glyph: glyph.max() > 4))
def test_a_digits_centre_of_mass_is_brought_towards_the_middle(glyph: np.ndarray) -> None:
    frame = framed(glyph).astype(float)
    grid = np.arange(28)
    centre = np.array([np.average(grid, weights=frame.sum(axis=axis)) for axis in (1, 0)])
    large = np.asarray(Image.fromarray(np.rint(glyph * (255 / 16)).astype(np.uint8)).resize((20, 20), 3), float)
    own = np.array([np.average(np.arange(20), weights=large.sum(axis=axis)) for axis in (1, 0)])
    assert (np.abs(centre - 13.5) <= np.maximum(0.51, np.abs(own - 9.5) - 3.49)).all()


@pytest.mark.parametrize("name", ["digits", "mnist5k"])
def test_small_images_are_whole_and_fixed_until_crops_are_asked_for(name: str) -> None:
    whole = data.unlabeled(name, GREY)
    assert whole.fixed
    assert torch.equal(whole[3], whole[len(whole) + 3])
    cut = data.unlabeled(name, RGB, crops=50, fresh=True)
    assert len(cut) == 50
    assert not cut.fixed
    assert cut[0].shape == (3, 32, 32)
    with pytest.warns(UserWarning, match="fresh is ignored"):
        data.unlabeled(name, GREY, fresh=True)


@pytest.mark.parametrize("name", ["digits", "mnist5k", "photos"])
def test_no_label_is_in_an_unlabeled_set(name: str) -> None:
    images = data.unlabeled(name, GREY, limit=20)
    assert isinstance(images[0], torch.Tensor)
    tensors = [value for value in vars(images).values() if isinstance(value, torch.Tensor)]
    assert all(tensor.dtype == torch.uint8 and tensor.ndim == 4 for tensor in tensors)
    assert not any("label" in name for name, _ in inspect.getmembers(images))


def test_a_limit_mixes_classes_and_a_lower_one_takes_the_first() -> None:
    images, labels = data.labelled("mnist5k", "test", GREY, limit=200).__getitems__(range(200))
    assert (labels.bincount(minlength=10) > 5).all()
    fewer = data.labelled("mnist5k", "test", GREY, limit=20)
    assert len(fewer) == 20
    assert torch.equal(fewer.__getitems__(range(20))[0], images[:20])
    assert len(data.labelled("mnist5k", "test", GREY, limit=99_999)) == 1000


def test_photos_are_there_and_are_photographs() -> None:
    images = data.unlabeled("photos", RGB)
    assert len(images) == 10 * len(photos.paths()) == 130
    batch = images.__getitems__(range(130))
    assert batch.min() >= 0
    assert batch.max() <= 1
    assert batch.std() > 0.1
    assert data.unlabeled("photos", RGB, crops=1000, limit=7).pictures.sizes.shape == (7, 2)


def test_no_crop_of_what_is_held_out_is_of_a_photograph_that_is_seen() -> None:
    every, seen, held_out = (data.unlabeled("photos", RGB, part=part, crops=60) for part in ("all", "seen", "held_out"))
    pictures = {
        part.pictures.pictures[i].numpy().tobytes() for part in (seen, held_out) for i in range(len(part.pictures))
    }
    assert len(every.pictures) == len(pictures) == len(seen.pictures) + len(held_out.pictures)
    assert len(held_out.pictures) == 2
    assert len(seen) == len(held_out) == 60


def test_small_images_are_held_out_too() -> None:
    every, seen, held_out = (data.unlabeled("digits", GREY, part=part) for part in ("all", "seen", "held_out"))
    assert len(seen) + len(held_out) == len(every) == 1797
    assert len(held_out) == 359
    batches = [part.__getitems__(range(len(part))).flatten(1) for part in (seen, held_out)]
    assert sorted(torch.cat(batches).sum(1).tolist()) == sorted(
        every.__getitems__(range(1797)).flatten(1).sum(1).tolist()
    )


def test_a_photograph_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "_PHOTOGRAPHS", {"skimage": ("data/gone.png",)})
    with pytest.raises(DataError, match=r"gone\.png is missing"):
        data.unlabeled("photos", RGB)


def record_file(path: Path, label_bytes: int, count: int) -> torch.Tensor:
    """A file of records as CIFAR's, and the images in it."""
    records = np.random.default_rng(0).integers(0, 256, (count, label_bytes + 3072)).astype(np.uint8)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(records.tobytes())
    return torch.from_numpy(records[:, label_bytes:].reshape(-1, 3, 32, 32))


def test_cifar100_is_read_without_its_labels(tmp_path: Path) -> None:
    pixels = record_file(tmp_path / "cifar-100-binary" / "train.bin", 2, 7)
    images = data.unlabeled("cifar100", RGB, root=str(tmp_path))
    torch.testing.assert_close(images.__getitems__(range(7)), pixels / 255)


def test_svhn_is_read_without_its_labels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 5)).astype(np.uint8)
    savemat(tmp_path / "train_32x32.mat", {"X": pixels, "y": np.arange(5)})
    images = data.unlabeled("svhn", RGB, root=str(tmp_path))
    torch.testing.assert_close(images[4], torch.from_numpy(pixels[..., 4] / np.float32(255)).permute(2, 0, 1))


def test_stl10_is_read_column_by_column(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 96, 96)).astype(np.uint8)
    (tmp_path / "unlabeled_X.bin").write_bytes(pixels.transpose(0, 1, 3, 2).tobytes())
    images = data.unlabeled("stl10", Preprocessing(96, 96, (0.0,) * 3, (1.0,) * 3), root=str(tmp_path))
    torch.testing.assert_close(images.__getitems__([2, 0]), torch.from_numpy(pixels[[2, 0]] / np.float32(255)))


FILES = {"cifar100": "train.bin", "stl10": "unlabeled_X.bin", "svhn": "train_32x32.mat"}


@pytest.mark.parametrize("name", list(FILES))
@pytest.mark.parametrize("content", [b"", b"text"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / FILES[name]).write_bytes(content)
    with pytest.raises(DataError, match=f"{FILES[name]}.*download it again"):
        data.unlabeled(name, RGB, root=str(tmp_path))


@pytest.mark.parametrize("name", list(FILES))
def test_a_failed_download_says_what_to_place_where(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setenv("REQUANT_CACHE", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", silent)
    with pytest.raises(DataError, match=f"no route.*place it.* at {tmp_path}.*{FILES[name]}"):
        data.unlabeled(name, RGB)
    with pytest.raises(DataError, match=f"holds no .*{FILES[name]}"):
        data.unlabeled(name, RGB, root=str(tmp_path))


def test_a_wrong_name_gets_the_nearest_right_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'cifar10'"):
        data.labelled("cifar-10", "test", RGB)
    with pytest.raises(ConfigError, match="did you mean 'photos'"):
        data.unlabeled("photo", RGB)
    with pytest.raises(ConfigError, match="there are: cifar10, folder, imagenet, mnist5k, none"):
        data.classes("zzz")
    with pytest.raises(ConfigError, match="did you mean 'imagenet'"):
        data.has_training_images("imagnet", None)


WRONG = {
    "limit is 0": {"limit": 0},
    "crops is 0": {"crops": 0},
    "scale is": {"scale": (0.0, 1.0)},
    "leave unlabeled.root out": {"root": "somewhere"},
}


@pytest.mark.parametrize("message", list(WRONG))
def test_a_wrong_setting_is_named(message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        data.unlabeled("digits", GREY, **WRONG[message])


def test_a_folder_has_to_be_named() -> None:
    with pytest.raises(ConfigError, match=r"unlabeled.root=<folder of images>"):
        data.unlabeled("folder", RGB)


def test_settings_of_labelled_images_are_checked() -> None:
    with pytest.raises(ConfigError, match="augment is 'flip'"):
        data.labelled("mnist5k", "train", GREY, augment="flip")
    with pytest.raises(ConfigError, match="measured as they are"):
        data.labelled("mnist5k", "test", GREY, augment="shift")
    with pytest.raises(ConfigError, match="did you mean 'train'"):
        data.labelled("mnist5k", "trian", GREY)
    with pytest.raises(ConfigError, match="set bilinear or bicubic"):
        data.labelled("mnist5k", "test", Preprocessing(28, 28, (0.0,), (1.0,), "nearest"))


def test_classes_and_training_images() -> None:
    assert {name: data.classes(name) for name in ("mnist5k", "cifar10", "imagenet")} == {
        "mnist5k": 10,
        "cifar10": 10,
        "imagenet": 1000,
    }
    assert data.has_training_images("cifar10", None)
    assert not data.has_training_images("imagenet", None)
    assert data.has_training_images("imagenet", "somewhere")


def test_a_set_in_the_cache_needs_no_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "cache_folder", lambda: tmp_path)
    record_file(tmp_path / "cifar-100-binary" / "train.bin", 2, 3)
    assert len(data.unlabeled("cifar100", RGB)) == 3
