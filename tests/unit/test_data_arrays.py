import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from requant.data.arrays import ArrayImages, flipped, shifted
from requant.data.pairs import LabelledPairs
from requant.data.pixels import with_channels
from requant.preprocessing import Preprocessing

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
RGB = Preprocessing(16, 16, MEAN, STD)
GREY = Preprocessing(16, 16, (0.1,), (0.5,))


def noise(count: int, channels: int = 3, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)


def test_a_batch_is_normalised_and_no_label_comes_with_it() -> None:
    pixels = noise(5)
    batch = ArrayImages(pixels, RGB).__getitems__([4, 0])
    expected = (pixels[[4, 0]] / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    assert batch.dtype == torch.float32
    torch.testing.assert_close(batch, expected)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 99), min_size=1, max_size=8), st.sampled_from(["none", "shift", "flip_shift"]))
def test_a_batch_is_its_items(indices: list[int], augment: str) -> None:
    images = ArrayImages(noise(10), RGB, augment, seed=1)
    assert torch.equal(images.__getitems__(indices), torch.stack([images[index] for index in indices]))


def test_without_augmentation_items_are_fixed_and_with_it_they_are_not() -> None:
    plain, moved = ArrayImages(noise(10), RGB), ArrayImages(noise(10), RGB, "shift")
    assert plain.fixed
    assert torch.equal(plain[3], plain[10 + 3])
    assert not moved.fixed
    assert len({moved[10 * epoch + 3].numpy().tobytes() for epoch in range(8)}) > 1


@settings(max_examples=20)
@given(st.integers(8, 40), st.integers(1, 3))
def test_a_shift_moves_the_whole_image(size: int, channels: int) -> None:
    images = noise(25, channels, size)
    reach = size // 8
    places = np.stack(np.meshgrid(np.arange(5), np.arange(5)), -1).reshape(-1, 2) / 5
    moved = shifted(images, places)
    for image, before, (down, right) in zip(moved, images, (places * (2 * reach + 1)).astype(int) - reach, strict=True):
        inner = image[:, max(-down, 0) : size - max(down, 0), max(-right, 0) : size - max(right, 0)]
        assert torch.equal(inner, before[:, max(down, 0) : size + min(down, 0), max(right, 0) : size + min(right, 0)])


def test_shifts_reach_both_ends_and_half_the_images_are_flipped() -> None:
    marked = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    marked[..., 8, 8] = 255
    images = ArrayImages(marked.expand(2000, -1, -1, -1), Preprocessing(16, 16, (0.0,), (1.0,)), "shift")
    rows, columns = images.__getitems__(range(2000))[:, 0].nonzero().T[1:]
    assert set(rows.tolist()) == set(columns.tolist()) == {6, 7, 8, 9, 10}
    both = ArrayImages(marked.expand(2000, -1, -1, -1), Preprocessing(16, 16, (0.0,), (1.0,)), "flip_shift", seed=1)
    assert set(both.__getitems__(range(2000))[:, 0].nonzero()[:, 2].tolist()) == {5, 6, 7, 8, 9, 10}


def test_a_draw_below_a_half_flips() -> None:
    images = noise(2)
    assert torch.equal(flipped(images, np.array([0.49, 0.5])), torch.stack([images[0].flip(2), images[1]]))


def test_grey_becomes_rgb_and_rgb_becomes_luma() -> None:
    grey = noise(3, channels=1)
    assert torch.equal(with_channels(grey, 3), grey.repeat(1, 3, 1, 1))
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], dtype=torch.uint8)
    luma = with_channels(colours[:, :, None, None], 1).flatten().tolist()
    assert luma == pytest.approx([76, 150, 29, 255], abs=1)


def test_other_sizes_are_resized_then_cut_to_the_centre() -> None:
    ramp = torch.arange(0, 240, 10, dtype=torch.uint8).expand(2, 1, 24, 24)
    batch = ArrayImages(ramp, Preprocessing(8, 12, (0.0,), (1 / 255,))).__getitems__([0, 1])
    assert batch.shape == (2, 1, 8, 8)
    torch.testing.assert_close(batch[0, 0, 0], torch.arange(45, 205, 20.0), atol=1, rtol=0)


def test_pairs_keep_labels_beside_their_images() -> None:
    pairs = LabelledPairs(ArrayImages(noise(4, 1), GREY, "shift"), torch.tensor([3, 1, 4, 1]))
    images, labels = pairs.__getitems__([2, 4 + 3])
    assert labels.tolist() == [4, 1]
    assert labels.dtype == torch.int64
    assert torch.equal(images[1], pairs.images[7])
    assert torch.equal(pairs[7][0], pairs.images[7])
    assert pairs[7][1] == 1
    assert len(pairs) == 4
    assert not pairs.fixed
