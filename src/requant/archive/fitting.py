"""Which probability model codes a tensor's indices in the fewest bytes, its own bytes included."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from requant.archive.levels import AXES, MOST_LEVELS, MOST_WEIGHTS, Levels, Model, axes_of, statistic
from requant.archive.probabilities import (
    SMOOTH,
    TABLE,
    UNIFORM,
    Floats,
    cell_widths,
    quantized_shares,
    smooth_terms,
)
from requant.codebook import CHUNK, Codebook

CANDIDATES = np.arange(MOST_LEVELS) - MOST_LEVELS // 2  # levels, before the lowest that is used becomes 0
SPACINGS = (5.0, 15.0)  # how far apart levels may be, in standard errors of a channel's own tilt
LEAST_VARIANCE = 1e-12  # of a statistic from 0 to 1: below it no level tells indices apart
LOWEST = AXES * int(CANDIDATES[0])  # sum of levels
ROUNDS = 4
STEPS = 12
DAMPING = 1e-3
CONVERGED = 1e-6  # bits a value that a step gained
NO_LEVELS = np.empty(0, np.uint8)


def best_model(codebook: Codebook) -> tuple[Model, Levels]:
    """The cheapest of uniform, smooth and table bases, with levels on those axes where they pay."""
    _, model, levels = _best(codebook)
    return model, levels


def coded_bits(codebook: Codebook) -> float:
    """What storage `entropy` takes for the indices: them, their levels and their model, less what a coder adds."""
    return 0.0 if codebook.k == 1 else _best(codebook)[0]


def _best(codebook: Codebook) -> tuple[float, Model, Levels]:
    counts_K, centroids = codebook.counts, codebook.centroids
    kinds = (UNIFORM, SMOOTH, TABLE) if codebook.indices.size else (UNIFORM,)
    plain = [_base(kind, centroids, counts_K) for kind in kinds]
    bits, best = min((_bits(model, centroids, counts_K), number) for number, model in enumerate(plain))
    sizes = axes_of(codebook.shape)
    without: Levels = tuple(np.zeros(size, np.uint8) for size in sizes)
    fits = _fits(codebook, plain)
    if not fits:
        return bits, plain[best], without
    every = max(_subsets(sizes), key=len)  # a base that is the best by itself need not be the best with levels
    of_base = min(fits, key=lambda of_base: of_base[0].finished(of_base[0].levels_on(every)[1])[0])
    _, chosen, fit = min(
        ((*fit.levels_on(axes), fit) for fit in of_base for axes in _subsets(sizes)), key=lambda found: found[0]
    )
    found_bits, model, levels = fit.finished(chosen)
    return (found_bits, model, levels) if found_bits < bits else (bits, plain[best], without)


def _fits(codebook: Codebook, bases: Sequence[Model]) -> list[list["_Fit"]]:
    """For each base how levels may be spaced; nothing where there is no room for levels, or all values are alike."""
    counts_K, sizes = codebook.counts, axes_of(codebook.shape)
    if not 1 < codebook.k <= MOST_WEIGHTS // (AXES * MOST_LEVELS) or max(sizes) < 2:
        return []
    u_K = statistic(codebook.centroids)
    share_K = counts_K / max(1, counts_K.sum())
    u_K = u_K - share_K @ u_K
    variance = float(share_K @ u_K**2)
    if variance <= LEAST_VARIANCE:
        return []
    sums = _sums(codebook, u_K)
    values = float(np.median([codebook.indices.size // size for size in sizes if size > 1]))
    spacings = [errors * float(np.sqrt(2 * np.log(2) / (values * variance))) for errors in SPACINGS]
    return [
        [
            _Fit(base, codebook.centroids, counts_K, u_K, step, sums, _log_z(base, codebook.centroids, u_K * step))
            for step in spacings
        ]
        for base in bases
    ]


def _subsets(sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The axes that may have levels: each alone, and together."""
    axes = [axis for axis in range(AXES) if sizes[axis] > 1]
    for number in range(1, len(axes) + 1):
        yield from combinations(axes, number)


def _base(kind: int, centroids: NDArray[np.float32], counts_K: NDArray[np.int64]) -> Model:
    terms, table = np.empty(0, np.float16), np.empty(0, np.uint8)
    if kind == SMOOTH:
        terms = _fitted(smooth_terms(centroids), np.log2(cell_widths(centroids))[None], counts_K, np.ones(1))
    if kind == TABLE:
        table = quantized_shares(counts_K)
    return Model(kind, terms, table)


def _bits(model: Model, centroids: NDArray[np.float32], counts_K: NDArray[np.int64]) -> float:
    """What the indices take by a model without levels, and the model beside them."""
    octaves = _log2(model.base_weights(centroids))
    return float((counts_K * -octaves).sum()) + 8 * len(zlib.compress(model.to_bytes()))


def _log2(weights: Floats) -> Floats:
    """Octaves of normalised weights; what cannot occur costs more than anything that can."""
    with np.errstate(divide="ignore"):
        found: Floats = np.maximum(np.log2(weights / weights.sum(-1, keepdims=True)), -1e3)
    return found


@dataclass(frozen=True)
class _Fit:
    """What fitting levels to a tensor needs to know of it.

    With u the statistic of an index and p the base, a value at level L has the probability p exp(L d u) / Z(L): its
    cost is linear in u, so that sums of u along each axis are all that counts.

    Attributes:
        base: the model without levels.
        centroids: (k,).
        counts: (k,) of the indices.
        u: (k,) the statistic, its mean by the base taken off.
        spacing: d, of one level, in nats.
        sums: for each axis the sum of u at each place along it.
        z: the natural logarithm of Z for each sum of levels from `LOWEST` on.

    """

    base: Model
    centroids: NDArray[np.float32]
    counts: NDArray[np.int64]
    u: Floats
    spacing: float
    sums: tuple[Floats, ...]
    z: Floats

    def levels_on(self, axes: tuple[int, ...]) -> tuple[float, dict[int, NDArray[np.int64]]]:
        """Levels on these axes, each where it costs least with the others as they are, and about their bits."""
        levels = {axis: np.zeros(self.sums[axis].size, np.int64) for axis in axes}
        prices = {axis: 1 + 0.7 * np.abs(CANDIDATES) for axis in axes}  # bits of each level
        saved = {axis: self.spacing * np.outer(self.sums[axis], CANDIDATES) for axis in axes}
        n = int(self.counts.sum())
        for turn in range(ROUNDS):
            before = dict(levels)
            for axis in axes:
                lowest, weights = _distribution([levels[other] for other in axes if other != axis])
                first = CANDIDATES[0] + lowest - LOWEST
                z = np.convolve(self.z[first : first + MOST_LEVELS + weights.size - 1], weights[::-1], "valid")
                values = n / self.sums[axis].size
                nats = values * z - saved[axis]
                levels[axis] = CANDIDATES[(nats / np.log(2) + prices[axis]).argmin(1)]
                used = np.bincount(levels[axis] - CANDIDATES[0], minlength=MOST_LEVELS) + 0.1
                prices[axis] = -np.log2(used / used.sum())
            if turn and all(np.array_equal(levels[axis], before[axis]) for axis in axes):
                break  # so are the prices, and all that would follow
        lowest, weights = _distribution(list(levels.values()))
        total = n * float(weights @ self.z[lowest - LOWEST :][: weights.size]) - self._tilted(levels)
        stored = sum(_entropy(np.bincount(found - found.min())) for found in levels.values())
        return total / np.log(2) + stored, levels

    def _tilted(self, levels: dict[int, NDArray[np.int64]]) -> float:
        """What levels save before normalisation, in nats."""
        return self.spacing * sum(float(self.sums[axis] @ found) for axis, found in levels.items())

    def finished(self, levels: dict[int, NDArray[np.int64]]) -> tuple[float, Model, Levels]:
        """Bits of everything, the model, and the levels as they are stored."""
        levels = _lowered(levels)
        lowest_sum, share_L = _distribution(list(levels.values()))
        sums_L = np.arange(lowest_sum, lowest_sum + share_L.size)
        base = self._refitted(sums_L, share_L)
        octaves_K = _log2(base.base_weights(self.centroids))
        z_L = np.log2(np.exp2(octaves_K + np.outer(sums_L, self.u) * self.spacing / np.log(2)).sum(1))
        bits = (
            self.counts.sum() * float(share_L @ z_L) - float(self.counts @ octaves_K) - self._tilted(levels) / np.log(2)
        )
        stored = {axis: (found - found.min()).astype(np.uint8) for axis, found in levels.items()}
        used = {axis: np.bincount(found) for axis, found in stored.items()}
        model = replace(
            base,
            middle=-sum(int(found.min()) for found in levels.values()),
            step=float(np.float32(self.spacing / np.log(2))),
            shares=tuple(quantized_shares(used[axis]) if axis in used else NO_LEVELS for axis in range(AXES)),
        )
        bits += sum(map(_entropy, used.values())) + 8 * len(zlib.compress(model.to_bytes()))
        every = tuple(stored.get(axis, np.zeros(self.sums[axis].size, np.uint8)) for axis in range(AXES))
        return bits, model, every

    def _refitted(self, sums_L: NDArray[np.int64], share_L: Floats) -> Model:
        """The base whose tilted copies, each on its share of the values, together fit the counts best."""
        tilts_LK = np.outer(sums_L, self.u) * self.spacing / np.log(2)
        if self.base.base == SMOOTH:
            offset_LK = tilts_LK + np.log2(cell_widths(self.centroids))
            return replace(
                self.base, terms=_fitted(smooth_terms(self.centroids), offset_LK, self.counts, share_L, self.base.terms)
            )
        if self.base.base == TABLE:
            base, share_K = self.base, self.counts / self.counts.sum()
            target = share_K.copy()
            for _ in range(ROUNDS):
                found_K = share_L @ _softmax(tilts_LK + _log2(base.base_weights(self.centroids)))
                target *= np.divide(share_K, found_K, out=np.zeros_like(found_K), where=found_K > 0)
                base = replace(base, table=quantized_shares(target))
            return base
        return self.base


def _log_z(base: Model, centroids: NDArray[np.float32], tilt_K: Floats) -> Floats:
    """The natural logarithm of each sum of levels' Z, from `LOWEST` on."""
    p_K = np.exp2(_log2(base.base_weights(centroids)))
    exponents = np.outer(np.arange(LOWEST, -LOWEST + 1), tilt_K)
    greatest = exponents.max(1, keepdims=True)
    found: Floats = np.log(np.exp(exponents - greatest) @ p_K) + greatest[:, 0]
    return found


def _lowered(levels: dict[int, NDArray[np.int64]]) -> dict[int, NDArray[np.int64]]:
    """The same levels, with those of one axis lowered where the lowest sum is above 0: a model's middle is no less."""
    axis, excess = min(levels), sum(int(found.min()) for found in levels.values())
    return levels if excess <= 0 else levels | {axis: levels[axis] - excess}


def _distribution(levels: Sequence[NDArray[np.int64]]) -> tuple[int, Floats]:
    """The lowest sum of levels, and the share of the values that have it, the next, and so on."""
    lowest, weights = 0, np.ones(1)
    for found in levels:
        lowest += int(found.min())
        weights = np.convolve(weights, np.bincount(found - found.min()) / found.size)
    return lowest, weights


def _entropy(counts: NDArray[np.int64]) -> float:
    """Bits of all that is counted."""
    used = counts[counts > 0]
    return float(-(used * np.log2(used / used.sum())).sum())


def _sums(codebook: Codebook, u_K: Floats) -> tuple[Floats, ...]:
    """The sums of u along each axis."""
    outputs, inputs, places = axes_of(codebook.shape)
    indices, u = codebook.indices.reshape(outputs, inputs * places), u_K.astype(np.float32)
    rows, columns = np.empty(outputs), np.zeros(inputs * places)
    chunk = max(1, CHUNK // max(1, inputs * places))
    for start in range(0, outputs, chunk):
        part = u.take(indices[start : start + chunk])
        rows[start : start + chunk] = part.sum(1, dtype=np.float64)
        columns += part.sum(0, dtype=np.float64)
    inner = columns.reshape(inputs, places)
    return rows, inner.sum(1), inner.sum(0)


def _fitted(
    terms: list[Floats],
    offset_LK: Floats,
    counts_K: NDArray[np.int64],
    share_L: Floats,
    start: NDArray[np.float16] | None = None,
) -> NDArray[np.float16]:
    """The factors for which exp2(offset + factors . terms), normalised for each L, fits the counts best.

    The factors are the same for all L, so that how the counts fall on L does not matter but for how many fall there.
    Maximum likelihood by Levenberg and Marquardt's method.
    """
    x = np.stack(terms, axis=1)
    target = counts_K / max(counts_K.sum(), 1)
    factors, damping = np.zeros(x.shape[1]) if start is None else start.astype(np.float64), DAMPING
    p_LK, loss = _likelihood(target, offset_LK, x, factors, share_L)
    for _ in range(STEPS):
        mean_L = p_LK @ x
        hessian = x.T @ ((share_L @ p_LK)[:, None] * x) - mean_L.T @ (share_L[:, None] * mean_L)
        hessian[np.diag_indices_from(hessian)] += damping * (np.diag(hessian) + 1e-6)
        slope = (target - share_L @ p_LK) @ x
        tried = np.clip(factors + np.linalg.solve(hessian, slope) / np.log(2), -500, 500)
        p_tried, loss_tried = _likelihood(target, offset_LK, x, tried, share_L)
        gain = loss - loss_tried
        if gain > 0:
            factors, p_LK, loss, damping = tried, p_tried, loss_tried, damping / 5
        else:
            damping *= 10
        if abs(gain) < CONVERGED:
            break
    return factors.astype(np.float16)


def _likelihood(target: Floats, offset_LK: Floats, x: Floats, factors: Floats, share_L: Floats) -> tuple[Floats, float]:
    """(L, k) probabilities, and the cross-entropy in octaves, less what does not depend on the factors."""
    common = x @ factors
    octaves = offset_LK + common
    greatest = octaves.max(1)
    weights = np.exp2(octaves - greatest[:, None])
    total = weights.sum(1)
    return weights / total[:, None], float(share_L @ (np.log2(total) + greatest) - target @ common)


def _softmax(octaves_LK: Floats) -> Floats:
    weights = np.exp2(octaves_LK - octaves_LK.max(1, keepdims=True))
    found: Floats = weights / weights.sum(1, keepdims=True)
    return found
