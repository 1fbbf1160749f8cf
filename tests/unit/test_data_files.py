import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from requant import data
from requant.data import fingerprint, pictures
from requant.data.cache import cache_folder
from requant.data.decoding import as_tensor, decoded
from requant.data.files import files_below, images_below, try_each
from requant.data.pictures import FilePictures, MemoryPictures, open_pictures
from requant.errors import DataError
from requant.files import replacing
from requant.preprocessing import Preprocessing

RGB = Preprocessing(16, 16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def smooth(height: int, width: int, seed: int = 0) -> Image.Image:
    """A picture without detail that a codec would lose."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    names = ["a.jpg", "b/c.PNG", "b/d/e.jpeg", "f.webp", "g.bmp", "h.tif"]
    for seed, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        smooth(80 + seed, 120, seed).save(tmp_path / name, quality=95)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.jpg").write_text("not an image")
    return tmp_path


def damage(tree: Path) -> list[str]:
    """One file cut short, one that never was an image, one empty."""
    (tree / "a.jpg").write_bytes((tree / "a.jpg").read_bytes()[:-200])
    (tree / "g.bmp").write_text("text")
    (tree / "b/c.PNG").write_bytes(b"")
    return [str(tree / name) for name in ("a.jpg", "b/c.PNG", "g.bmp")]


def test_images_of_a_tree_are_found_in_one_order(tree: Path) -> None:
    names = [path.relative_to(tree).as_posix() for path in images_below(tree)]
    assert names == ["a.jpg", "b/c.PNG", "b/d/e.jpeg", "f.webp", "g.bmp", "h.tif"]


def test_hidden_folders_are_left_out(tree: Path) -> None:
    (tree / ".thumbnails").mkdir()
    smooth(20, 20).save(tree / ".thumbnails" / "x.png")
    assert len(images_below(tree)) == 6


def test_a_file_replaced_by_one_of_its_size_is_noticed_where_dates_count(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1234")
    before = fingerprint(str(tmp_path)), fingerprint(str(tmp_path), dated=True)
    assert before == (fingerprint(str(tmp_path)), fingerprint(str(tmp_path), dated=True))
    os.utime(tmp_path / "a", ns=(0, 1))
    assert fingerprint(str(tmp_path)) == before[0]
    assert fingerprint(str(tmp_path), dated=True) != before[1]


@pytest.mark.parametrize("value", [-1, 1 << 16])
def test_pixels_of_more_than_16_bits_are_not_guessed_at(value: int, tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, value]], np.int32)).save(tmp_path / "deep.tif")
    with pytest.raises(ValueError, match="where 8 or 16 bits are known"):
        decoded(tmp_path / "deep.tif", 1)


def test_links_are_followed_and_a_loop_of_links_ends(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    smooth(20, 20).save(elsewhere / "x.png")
    (tree / "link").symlink_to(elsewhere)
    (tree / "loop").symlink_to(tree)
    assert len(images_below(tree)) == 7


def test_every_readable_file_gives_crops(tree: Path) -> None:
    images = data.unlabeled("folder", RGB, root=str(tree))
    assert len(images) == 60, "ten crops a photograph"
    assert images.fixed
    assert images.skipped == ()
    assert images.__getitems__(range(60)).shape == (60, 3, 16, 16)


@pytest.mark.parametrize("in_memory_bytes", [2**30, 0])
def test_unreadable_files_are_skipped_aloud(tree: Path, in_memory_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "IN_MEMORY_BYTES", in_memory_bytes)
    broken = damage(tree)
    with pytest.warns(UserWarning, match="cannot be read.*they are skipped"):
        images = data.unlabeled("folder", RGB, root=str(tree))
    assert sorted(images.skipped) == broken
    assert len(images) == 30


def test_one_warning_names_five_files(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.png").write_text("text")
    smooth(8, 8).save(tmp_path / "whole.png")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images = data.unlabeled("folder", RGB, root=str(tmp_path))
    assert len(caught) == 1
    assert str(caught[0].message).startswith("9 of 10 image files cannot be read")
    assert "and 4 more" in str(caught[0].message)
    assert len(images.skipped) == 9


def test_a_tree_without_a_readable_image_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        data.unlabeled("folder", RGB, root=str(tmp_path / "none"))
    with pytest.raises(DataError, match="no image file under"):
        data.unlabeled("folder", RGB, root=str(tmp_path))
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(DataError, match=r"1 of 1 image files cannot be read.*supply images"):
        data.unlabeled("folder", RGB, root=str(tmp_path))


def test_files_read_one_by_one_give_nearly_the_same_crops(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = data.unlabeled("folder", RGB, root=str(tree), crops=200, seed=3)
    monkeypatch.setattr(pictures, "IN_MEMORY_BYTES", 0)
    apart = data.unlabeled("folder", RGB, root=str(tree), crops=200, seed=3)
    assert isinstance(together.pictures, MemoryPictures)
    assert isinstance(apart.pictures, FilePictures)
    difference = together.__getitems__(range(200)) - apart.__getitems__(range(200))
    assert difference.abs().mean() < 0.02


def test_a_jpeg_is_decoded_no_larger_than_needed(tmp_path: Path) -> None:
    smooth(800, 1200).save(tmp_path / "a.jpg", quality=95)
    files = FilePictures({tmp_path / "a.jpg": (800, 1200)}, channels=3)
    assert files.region(0, (0, 0, 800, 800), wanted=16).shape == (3, 100, 100)
    assert files.region(0, (0, 0, 800, 800), wanted=600).shape == (3, 800, 800)
    assert files.region(0, (700, 1100, 100, 100), wanted=32).shape == (3, 100, 100)


@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_a_region_of_a_file_is_never_empty(height: int, width: int, chooser: st.DataObject) -> None:
    top, left = chooser.draw(st.integers(0, height - 1)), chooser.draw(st.integers(0, width - 1))
    box = (top, left, chooser.draw(st.integers(1, height - top)), chooser.draw(st.integers(1, width - left)))
    files = FilePictures({Path("unused"): (height, width)}, channels=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "decoded", lambda path, channels, at_least: smooth(-(-height // 8), -(-width // 8)))
        region = files.region(0, box, wanted=4)
    assert min(region.shape) >= 1


def as_alpha(image: Image.Image) -> Image.Image:
    image.putalpha(128)
    return image


MODES = {
    "grey": lambda image: image.convert("L"),
    "one bit": lambda image: image.convert("1"),
    "alpha": as_alpha,
    "palette": lambda image: image.quantize(),
    "16 bits": lambda image: Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 256 + 7),
}


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("channels", [1, 3])
def test_any_mode_becomes_grey_or_rgb(tmp_path: Path, mode: str, channels: int) -> None:
    original = smooth(30, 40)
    MODES[mode](original.copy()).save(tmp_path / "a.png")
    pixels = as_tensor(decoded(tmp_path / "a.png", channels))
    assert pixels.shape == (channels, 30, 40)
    assert pixels.dtype == torch.uint8
    assert abs(pixels.float().mean() - np.asarray(original.convert("L")).mean()) < 8


def test_a_palette_with_transparency_is_read_in_silence(tmp_path: Path) -> None:
    smooth(8, 8).quantize().save(tmp_path / "a.png", transparency=bytes(range(200)))
    assert as_tensor(decoded(tmp_path / "a.png", 3)).shape == (3, 8, 8)


def test_grey_networks_get_grey_crops(tree: Path) -> None:
    images = data.unlabeled("folder", Preprocessing(16, 16, (0.5,), (0.5,)), root=str(tree))
    assert images[0].shape == (1, 16, 16)


def test_a_limit_takes_so_many_photographs_and_ten_crops_of_each(tree: Path) -> None:
    images = data.unlabeled("folder", RGB, root=str(tree), limit=3)
    assert (len(images.pictures), len(images)) == (3, 30)
    assert len(data.unlabeled("folder", RGB, root=str(tree), limit=3, crops=2)) == 2


def test_results_keep_the_order_of_the_files() -> None:
    paths = [Path(str(number)) for number in range(3000)]
    results, skipped = try_each(lambda path: int(path.name), paths, "Counting")
    assert list(results.values()) == list(range(3000))
    assert skipped == ()


def test_a_fingerprint_knows_names_and_sizes_but_not_the_place(tree: Path) -> None:
    before = data.fingerprint(str(tree))
    moved = tree.with_name("moved")
    tree.rename(moved)
    assert data.fingerprint(str(moved)) == before
    os.utime(moved / "a.jpg", (0, 0))
    assert data.fingerprint(str(moved)) == before
    (moved / "a.jpg").rename(moved / "z.jpg")
    renamed = data.fingerprint(str(moved))
    with (moved / "z.jpg").open("ab") as file:
        file.write(b"x")
    assert len({before, renamed, data.fingerprint(str(moved))}) == 3


def test_a_tilde_is_the_home_folder(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tree))
    assert data.fingerprint("~") == data.fingerprint(str(tree))
    assert len(data.unlabeled("folder", RGB, root="~/b")) == 20


def test_a_fingerprint_of_one_file_and_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("1")
    assert data.fingerprint(str(tmp_path / "a")) != data.fingerprint(str(tmp_path / "b"))
    with pytest.raises(DataError, match="there is no file or folder"):
        data.fingerprint(str(tmp_path / "c"))


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUANT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("REQUANT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "requant"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("~/.cache/requant").expanduser()


def half_written(path: Path) -> None:
    with replacing(path) as unfinished:
        unfinished.write_text("half")
        raise KeyboardInterrupt


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    with pytest.raises(KeyboardInterrupt):
        half_written(path)
    assert files_below(tmp_path) == []
    with replacing(path) as unfinished:
        unfinished.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_pictures_are_opened_in_the_given_order(tree: Path) -> None:
    paths = images_below(tree)[::-1]
    assert open_pictures(paths, 3).sizes.tolist() == [[85 - number, 120] for number in range(6)]


@pytest.mark.data
def test_real_photographs(photographs_root: str) -> None:
    images = data.unlabeled("folder", RGB, root=photographs_root, limit=50)
    assert images.skipped == ()
    batch = images.__getitems__(range(50))
    assert 0.2 < batch.std() < 1


def test_deep_greys_keep_their_shades(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    Image.fromarray(ramp.astype(np.int32)).save(tmp_path / "deep.tif")
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    (tmp_path / "deep.pgm").write_bytes(b"P5 256 4 65535\n" + ramp.astype(">u2").tobytes())
    Image.fromarray((ramp >> 8).astype(np.int32)).save(tmp_path / "shallow.tif")
    for name in ("deep.tif", "deep.png", "deep.pgm", "shallow.tif"):
        assert np.array_equal(np.asarray(decoded(tmp_path / name, 1)), ramp >> 8), name


def test_pixels_of_no_known_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "share.tif")
    Image.fromarray(np.full((4, 4), -3, np.int32)).save(tmp_path / "below.tif")
    for name in ("share.tif", "below.tif"):
        with pytest.raises(ValueError, match="known"):
            decoded(tmp_path / name, 1)
