"""How probable each index is: models that an entropy coder follows, small enough to be stored beside what they code.

A model gives each class of channels a weight for each index: a base, tilted for the class. The base is uniform, or
`smooth` (a log-linear function of the centroids times the width of their cells, a few numbers), or a `table` (the
observed shares, a byte each). The tilt is exp2(a u + b u^2) with u the centroid's distance from zero: channels differ
above all in their scale. Reading uses only operations that IEEE 754 fixes to the bit, so that every machine decodes
with the same weights; fitting need not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from requant.errors import ArchiveError

Floats = NDArray[np.float64]

UNIFORM, SMOOTH, TABLE = range(3)
MAX_CLASSES = 16
STEPS = 8  # steps of a table an octave
TERMS = 7  # of the smooth base
_HEAD = 4  # bytes: base, classes, axis, zero
_LARGEST = 60.0  # octaves


@dataclass(frozen=True)
class Model:
    """Probabilities of the indices of one tensor.

    Attributes:
        base: UNIFORM, SMOOTH or TABLE.
        axis: of the channels.
        classes: (channels,) uint8, the class of each.
        tilts: (C, 2) float32.
        terms: (TERMS,) float32 of a smooth base, else empty.
        table: (k,) uint8 of a table, else empty: 0 for a share of zero, else 255 + STEPS x log2(share / greatest).
    """

    base: int
    axis: int
    classes: NDArray[np.uint8]
    tilts: NDArray[np.float32]
    terms: NDArray[np.float32]
    table: NDArray[np.uint8]

    def weights(self, centroids: NDArray[np.float32]) -> Floats:
        """(C, k) weights, not normalised; each positive, but for a table's zeros."""
        octaves = _tilted(self.tilts, centroids)
        if self.base == SMOOTH:
            octaves = octaves + _smooth(self.terms, centroids)
        found = exp2(octaves)
        if self.base == SMOOTH:
            found = found * cell_widths(centroids)
        if self.base == TABLE:
            found = found * shares(self.table)
        return found

    def to_bytes(self) -> bytes:
        """As the file holds it; the channels' classes are left out where there is one."""
        head = bytes([self.base, len(self.tilts), self.axis, 0])
        classes = self.classes.tobytes() if len(self.tilts) > 1 else b""
        tilts = self.tilts.astype("<f4").tobytes() if len(self.tilts) > 1 else b""
        deltas = np.diff(self.table, prepend=np.uint8(0)).tobytes()
        return b"".join([head, self.terms.astype("<f4").tobytes(), deltas, tilts, classes])


def from_bytes(data: bytes, shape: tuple[int, ...], k: int) -> tuple[Model, bytes]:
    """The model at the start of `data`, for a tensor of this shape, and what follows it.

    Raises:
        ArchiveError: if it is not one.
    """
    base, count, axis, zero = _take(data, _HEAD)
    data = data[_HEAD:]
    if base > TABLE or not 1 <= count <= MAX_CLASSES or axis >= max(1, len(shape)) or zero:
        raise ArchiveError("its payload holds a probability model of no known form")
    terms, data = _split(data, 4 * TERMS if base == SMOOTH else 0)
    deltas, data = _split(data, k if base == TABLE else 0)
    tilts, data = _split(data, 8 * count if count > 1 else 0)
    channels = shape[axis] if shape else 1
    classes, data = _split(data, channels if count > 1 else 0)
    model = Model(
        base,
        axis,
        np.frombuffer(classes, np.uint8) if count > 1 else np.zeros(channels, np.uint8),
        np.frombuffer(tilts, "<f4").reshape(-1, 2) if count > 1 else np.zeros((1, 2), np.float32),
        np.frombuffer(terms, "<f4"),
        np.cumsum(np.frombuffer(deltas, np.uint8), dtype=np.uint8),
    )
    finite = np.isfinite(model.tilts).all() and np.isfinite(model.terms).all()
    if not finite or (channels and model.classes.max() >= count) or (base == TABLE and not model.table.any()):
        raise ArchiveError("its payload holds a probability model that is out of range")
    return model, data


def _take(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise ArchiveError("its payload is cut off within a probability model")
    return data[:size]


def _split(data: bytes, size: int) -> tuple[bytes, bytes]:
    return _take(data, size), data[size:]


def quantized_shares(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A table for these counts."""
    with np.errstate(divide="ignore"):
        steps = np.rint(255 + STEPS * np.log2(counts / max(1, counts.max())))
    return np.where(counts > 0, np.clip(steps, 1, 255), 0).astype(np.uint8)


def shares(table: NDArray[np.uint8]) -> Floats:
    """What a table stands for, the greatest 1."""
    return _SHARES[table]


def cell_widths(centroids: NDArray[np.float32]) -> Floats:
    """(k,) the distance between the midpoints to both neighbours, in units of the range; outer cells are symmetric."""
    points = centroids.astype(np.float64)
    if len(points) == 1:
        return np.ones(1)
    gaps = np.diff(points)
    widths = (np.concatenate([gaps[:1], gaps]) + np.concatenate([gaps, gaps[-1:]])) / 2
    found: Floats = np.maximum(widths / max(points[-1] - points[0], 1e-300), 1e-12)
    return found


def distances(centroids: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """(k,) centroids over the greatest magnitude, and their magnitudes."""
    points = centroids.astype(np.float64)
    scaled = points / max(float(np.abs(points).max()), 1e-300)
    return scaled, np.abs(scaled)


def smooth_terms(centroids: NDArray[np.float32]) -> list[Floats]:
    """What the smooth base is linear in."""
    t, u = distances(centroids)
    return [np.sqrt(u), u, u * u, u * u * u, t, t * u, t * u * u]


def tilt_terms(centroids: NDArray[np.float32]) -> list[Floats]:
    """What a tilt is linear in."""
    _, u = distances(centroids)
    return [u, u * u]


def _smooth(terms: NDArray[np.float32], centroids: NDArray[np.float32]) -> Floats:
    return combined(terms.astype(np.float64), smooth_terms(centroids))


def _tilted(tilts: NDArray[np.float32], centroids: NDArray[np.float32]) -> Floats:
    terms = tilt_terms(centroids)
    return np.stack([combined(tilt.astype(np.float64), terms) for tilt in tilts])


def combined(factors: Floats, terms: list[Floats]) -> Floats:
    """A weighted sum, added one by one: a matrix product's order of additions depends on the machine."""
    total = np.zeros_like(terms[0])
    for factor, term in zip(factors, terms, strict=True):
        total = total + factor * term
    return total


# Taylor's series of exp(x ln 2) about 0, to x^13: below 1e-15 on [-1/2, 1/2].
_SERIES = [1.0]
for _n in range(1, 14):
    _SERIES.append(_SERIES[-1] * 0.6931471805599453 / _n)


def exp2(octaves: Floats) -> Floats:
    """2**x by multiplications and additions alone, so that it is the same on every machine; x is cut to +-60."""
    x = np.clip(octaves, -_LARGEST, _LARGEST)
    whole = np.rint(x)
    part = x - whole
    total = np.full_like(part, _SERIES[-1])
    for factor in reversed(_SERIES[:-1]):
        total = total * part + factor
    found: Floats = np.ldexp(total, whole.astype(np.int32))
    return found


_SHARES = exp2((np.arange(256) - 255.0) / STEPS)
_SHARES[0] = 0
