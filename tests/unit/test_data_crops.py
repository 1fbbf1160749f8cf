import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchvision.transforms import RandomResizedCrop

from requant.data.checks import check_crops
from requant.data.crops import RandomCrops, random_boxes
from requant.data.pictures import MemoryPictures
from requant.data.randomness import Purpose, uniforms
from requant.errors import ConfigError
from requant.preprocessing import Preprocessing

RGB = Preprocessing(12, 12, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SHARES = st.floats(0.001, 1)


@given(
    hnp.arrays(np.int64, st.tuples(st.integers(1, 20), st.just(2)), elements=st.integers(1, 600)),
    st.tuples(SHARES, SHARES).map(sorted),
    st.integers(0, 1000),
)
def test_a_box_lies_within_its_picture(sizes: np.ndarray, scale: list[float], seed: int) -> None:
    boxes = random_boxes(sizes, tuple(scale), uniforms(Purpose.CROP, seed, 0, np.arange(len(sizes)), 22))
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] >= 1).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= sizes).all()


@given(st.tuples(st.floats(0.05, 0.5), st.floats(0.05, 0.5)).map(sorted))
def test_area_and_aspect_are_within_their_ranges(scale: list[float]) -> None:
    sizes = np.tile([[400, 500]], (200, 1))
    boxes = random_boxes(sizes, tuple(scale), uniforms(Purpose.CROP, 1, 0, np.arange(200), 22))
    height, width = boxes[:, 2:].T
    assert (height * width >= scale[0] * 200_000 * 0.97).all()
    assert (height * width <= scale[1] * 200_000 * 1.03).all()
    assert (width / height > 0.73).all()
    assert (width / height < 1.36).all()


@pytest.mark.parametrize("size", [(321, 481), (50, 400)])
def test_boxes_are_spread_as_torchvisions(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    image = torch.empty(1, *size)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    draws = uniforms(Purpose.CROP, 0, 0, np.arange(4000), 22)
    ours = random_boxes(np.tile([size], (4000, 1)), (0.08, 1.0), draws)
    error = np.sqrt(theirs.var(axis=0) / 2000) + 1e-9
    assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 4 * error).all()
    np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), rtol=0.06)


def test_a_picture_too_narrow_for_any_aspect_gives_its_centre() -> None:
    boxes = random_boxes(np.array([[10, 1000], [1000, 10]]), (1.0, 1.0), np.full((2, 22), 0.5))
    assert boxes.tolist() == [[0, 493, 10, 13], [493, 0, 13, 10]]


def pictures() -> MemoryPictures:
    generator = torch.Generator().manual_seed(0)
    sizes = [(40, 30), (25, 60), (33, 33)]
    return MemoryPictures([torch.randint(0, 256, (3, *s), dtype=torch.uint8, generator=generator) for s in sizes])


def crops(**changed: object) -> RandomCrops:
    settings = {"crops": 20, "scale": (0.08, 1.0), "flip": True, "fresh": False, "seed": 0} | changed
    return RandomCrops(pictures(), RGB, **settings)


def test_without_fresh_an_item_is_the_same_in_every_epoch() -> None:
    fixed, fresh = crops(), crops(fresh=True)
    assert fixed.fixed
    assert not fresh.fixed
    assert torch.equal(fixed[7], fixed[20 * 3 + 7])
    assert torch.equal(fixed[7], fresh[7])
    assert not torch.equal(fresh[7], fresh[20 * 3 + 7])


def test_a_batch_is_its_items_normalised_and_of_the_networks_size() -> None:
    images = crops(fresh=True)
    batch = images.__getitems__(range(60))
    assert batch.shape == (60, 3, 12, 12)
    assert batch.dtype == torch.float32
    assert batch.abs().max() <= 1
    assert torch.equal(batch, torch.stack([images[index] for index in range(60)]))


def test_seeds_and_items_differ() -> None:
    assert not torch.equal(crops()[0], crops(seed=1)[0])
    assert not torch.equal(crops()[0], crops()[3]), "items 0 and 3 are different crops of picture 0"


def test_the_whole_picture_can_be_asked_for_and_flips_half_the_time() -> None:
    generator = torch.Generator().manual_seed(0)
    square = torch.randint(0, 256, (1, 3, 12, 12), dtype=torch.uint8, generator=generator)
    images = RandomCrops(MemoryPictures(square), RGB, crops=500, scale=(1.0, 1.0), flip=True, fresh=False, seed=0)
    batch = images.__getitems__(range(500))
    plain = (square / 255 - 0.5) / 0.5
    same = torch.isclose(batch, plain, atol=1e-6).flatten(1).all(1)
    mirrored = torch.isclose(batch, plain.flip(3), atol=1e-6).flatten(1).all(1)
    central = int((same | mirrored).sum())
    assert central > 10, "an aspect of nearly 1 leaves the square whole"
    assert 0.3 < same.sum() / central < 0.7


@pytest.mark.parametrize("scale", [(0.0, 1.0), (0.5, 0.4), (0.1, 1.1), (-1.0, 0.5)])
def test_a_scale_that_is_no_share_is_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="scale is"):
        check_crops(None, scale)


@pytest.mark.parametrize("count", [0, -3])
def test_no_crops_are_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=f"crops is {count}"):
        check_crops(count, (0.1, 1.0))
