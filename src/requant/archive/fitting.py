"""Which probability model codes a tensor's indices in the fewest bytes, its own bytes included."""

import zlib

import numpy as np
from numpy.typing import NDArray

from requant.archive.probabilities import (
    SMOOTH,
    TABLE,
    UNIFORM,
    Floats,
    Model,
    cell_widths,
    quantized_shares,
    smooth_terms,
    tilt_terms,
)
from requant.codebook import CHUNK, Codebook

CLASSES = (2, 4, 8, 16)
MOST_COUNTS = 1 << 25  # counts by channel beyond which channels are not told apart
ROUNDS = 3
STEPS = 10


def best_model(codebook: Codebook) -> Model:
    """The cheapest of uniform, smooth and table bases, the best of them also for classes of channels of either axis."""
    shape, counts_K = codebook.shape or (1,), codebook.counts
    plain = [_base(kind, shape[0], codebook.centroids, counts_K) for kind in (UNIFORM, SMOOTH, TABLE)]
    best = min((_bytes(model, codebook.centroids, counts_K[None]), i) for i, model in enumerate(plain))
    cost, model = best[0], plain[best[1]]
    for axis in range(min(2, len(shape))):
        if shape[axis] < 2 or codebook.k == 1 or shape[axis] * codebook.k > MOST_COUNTS:
            continue
        counts_CK = counts_by_channel(codebook, axis)
        for number in (n for n in CLASSES if n <= shape[axis]):
            found = _classed(plain[best[1]], codebook.centroids, counts_CK, axis, number)
            found_cost = _bytes(found, codebook.centroids, counts_CK)
            if found_cost < cost:
                cost, model = found_cost, found
    return model


def counts_by_channel(codebook: Codebook, axis: int) -> NDArray[np.int64]:
    """(channels, k) how often each index occurs in each channel of an axis."""
    shape, k = codebook.shape, codebook.k
    inner = int(np.prod(shape[axis + 1 :], dtype=np.int64))
    flat = codebook.indices.reshape(-1)
    counts = np.zeros(shape[axis] * k, np.int64)
    chunk = max(CHUNK, counts.size)
    for start in range(0, flat.size, chunk):
        part = flat[start : start + chunk]
        channel = np.arange(start, start + part.size) // inner % shape[axis]
        counts += np.bincount(channel * k + part, minlength=counts.size)
    return counts.reshape(shape[axis], k)


def _base(kind: int, channels: int, centroids: NDArray[np.float32], counts_K: NDArray[np.int64]) -> Model:
    terms, table = np.empty(0, np.float32), np.empty(0, np.uint8)
    if kind == SMOOTH:
        terms = _fitted(smooth_terms(centroids), np.log2(cell_widths(centroids)), counts_K[None])[0]
    if kind == TABLE:
        table = quantized_shares(counts_K)
    return Model(kind, 0, np.zeros(channels, np.uint8), np.zeros((1, 2), np.float32), terms, table)


def _classed(
    base: Model, centroids: NDArray[np.float32], counts_CK: NDArray[np.int64], axis: int, number: int
) -> Model:
    """Channels in classes: first by their scale, then each where it costs least, with tilts fitted in turn."""
    terms = tilt_terms(centroids)
    offset = _log2(base.weights(centroids))[0]
    scale = counts_CK @ terms[0] / np.maximum(counts_CK.sum(1), 1)
    classes = np.empty(len(scale), np.uint8)
    classes[np.argsort(scale, kind="stable")] = np.arange(len(scale)) * number // len(scale)
    for round_ in range(ROUNDS):
        sums = np.stack([counts_CK[classes == c].sum(0) for c in range(number)])
        model = Model(base.base, axis, classes, _fitted(terms, offset, sums), base.terms, base.table)
        if round_ < ROUNDS - 1:
            classes = np.argmin(counts_CK @ -_log2(model.weights(centroids)).T, axis=1).astype(np.uint8)
    return model


def _log2(weights: Floats) -> Floats:
    """Octaves of normalised weights; what cannot occur costs more than anything that can."""
    with np.errstate(divide="ignore"):
        found: Floats = np.maximum(np.log2(weights / weights.sum(-1, keepdims=True)), -1e3)
    return found


def _fitted(terms: list[Floats], offset: Floats, counts_CK: NDArray[np.int64]) -> NDArray[np.float32]:
    """For each row the factors for which exp2(offset + factors . terms), normalised, fits its counts best.

    Maximum likelihood by Levenberg and Marquardt's method, all rows at once. Returns (C, terms).
    """
    x = np.stack(terms, axis=1)
    target = counts_CK / np.maximum(counts_CK.sum(1, keepdims=True), 1)
    factors, damping = np.zeros((len(target), x.shape[1])), np.full(len(target), 1e-3)
    p, loss = _likelihood(target, offset, x, factors)
    for _ in range(STEPS):
        mean = p @ x
        hessian = np.einsum("ck,ki,kj->cij", p, x, x) - mean[:, :, None] * mean[:, None, :]
        diagonal = np.einsum("cii->ci", hessian)
        diagonal += damping[:, None] * (diagonal + 1e-6)
        steps = np.linalg.solve(hessian, ((target - p) @ x)[:, :, None])[:, :, 0] / np.log(2)
        tried = np.clip(factors + steps, -500, 500)
        p_tried, loss_tried = _likelihood(target, offset, x, tried)
        better = loss_tried < loss
        factors[better], p[better], loss[better] = tried[better], p_tried[better], loss_tried[better]
        damping = np.where(better, damping / 5, damping * 10)
    return factors.astype(np.float32)


def _likelihood(target: Floats, offset: Floats, x: Floats, factors: Floats) -> tuple[Floats, Floats]:
    """(C, k) probabilities and (C,) cross-entropies, in nats."""
    logits = np.log(2) * (offset + factors @ x.T)
    logits -= logits.max(1, keepdims=True)
    p = np.exp(logits)
    total = p.sum(1, keepdims=True)
    return p / total, -((logits - np.log(total)) * target).sum(1)


def _bytes(model: Model, centroids: NDArray[np.float32], counts_CK: NDArray[np.int64]) -> float:
    """What the indices take by this model, and the model beside them; one row of counts stands for all channels."""
    octaves = _log2(model.weights(centroids))
    rows = octaves[model.classes] if len(counts_CK) > 1 else octaves
    return float((counts_CK * -rows).sum()) / 8 + len(zlib.compress(model.to_bytes()))
