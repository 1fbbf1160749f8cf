"""What a network expects of its input images; the data take their transforms from it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preprocessing:
    """Sizes in pixels, mean and standard deviation in units of the [0, 1] intensity range.

    Evaluation resizes the short side to `resize` and cuts the central `size` x `size`; where `resize` equals `size`
    and the image is square, it is one resize. Where `whole` is true, the whole image becomes `size` x `size`, whatever
    its aspect.
    """

    size: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    whole: bool = False

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise ValueError(f"mean {self.mean} and std {self.std} must both have 1 or 3 channels")
        if self.resize < self.size:
            raise ValueError(f"resize {self.resize} is below the crop size {self.size}")

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""
        return len(self.mean)
