"""Numbers of 16 bits: bfloat16 (8 significant bits, float32's range) and float16 (11 bits, up to 65504)."""

import numpy as np
from numpy.typing import NDArray

from requant.errors import ArchiveError

HALVES = ("bfloat16", "float16")
"""The names that a manifest and `storage` settings know."""

HELD = np.dtype("<u2")


def to_bits(values: NDArray[np.float32], half: str) -> NDArray[np.uint16]:
    """The bit patterns of the values rounded to the nearest number (ties to even); beyond the range infinity."""
    if half == "float16":
        with np.errstate(over="ignore"):
            return values.astype("<f2").view(HELD)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(HELD)


def from_bits(bits: NDArray[np.uint16], half: str) -> NDArray[np.float32]:
    """The values of bit patterns, exactly."""
    if half == "float16":
        return bits.view("<f2").astype(np.float32)
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded(values: NDArray[np.float32], half: str, name: str = "values") -> NDArray[np.float32]:
    """Values rounded to what 16 bits hold.

    Raises:
        ArchiveError: where a finite value lies beyond the range.

    """
    found = from_bits(to_bits(values, half), half)
    if not np.isfinite(found[np.isfinite(values)]).all():
        raise ArchiveError(f"{name} has values up to {np.abs(values).max():.4g}, beyond {half}: use float32 for it")
    return found


def exact_half(values: NDArray[np.float32]) -> str | None:
    """The first of `HALVES` that holds the values bit for bit, if any does."""
    patterns = np.ascontiguousarray(values).view(np.uint32)
    for half in HALVES:
        if np.array_equal(from_bits(to_bits(values, half), half).view(np.uint32), patterns):
            return half
    return None
