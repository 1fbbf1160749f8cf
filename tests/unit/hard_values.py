"""Values that one-dimensional k-means gets wrong, drawn: for tests of how near to the optimum it comes."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Drawn: TypeAlias = NDArray[np.float32]


def _point_masses(random: Generator, n: int) -> NDArray:
    return random.choice(random.normal(size=int(random.integers(2, 200))), n)


def _masses_and_a_smooth_part(random: Generator, n: int) -> NDArray:
    return np.where(random.random(n) < random.random(), random.choice(random.normal(size=5), n), random.normal(size=n))


def _far_clusters(random: Generator, n: int) -> NDArray:
    centers = 10.0 ** random.uniform(0, 9) * random.normal(size=int(random.integers(2, 6)))
    return random.normal(size=n) + random.choice(centers, n)


def _a_small_far_cluster(random: Generator, n: int) -> NDArray:
    return random.normal(size=n) + (random.random(n) < 10.0 ** random.uniform(-4, -1)) * 10.0 ** random.uniform(1, 6)


def _denormals(random: Generator, n: int) -> NDArray:
    return random.integers(-500, 500, n) * 2.0**-149


def _huge_outliers(random: Generator, n: int) -> NDArray:
    values = random.normal(size=n)
    values[: random.integers(1, 4)] = random.choice([-1.0, 1.0]) * 10.0 ** random.uniform(3, 37)
    return values


def _many_scales(random: Generator, n: int) -> NDArray:
    return random.normal(size=n) * 10.0 ** random.uniform(-20, 15, n)


def _nested(random: Generator, n: int) -> NDArray:
    """Clusters within clusters within clusters."""
    digits = random.integers(0, 3, (n, 8))
    return digits @ (random.uniform(0.05, 0.5) ** np.arange(8)) + 1e-6 * random.normal(size=n)


def _steps(random: Generator, n: int) -> NDArray:
    """Uniform pieces of very different density."""
    edges = np.sort(random.normal(size=9))
    piece = random.choice(8, n, p=random.dirichlet(np.full(8, 0.3)))
    return edges[piece] + random.random(n) * (edges[piece + 1] - edges[piece])


def _heavy_tails(random: Generator, n: int) -> NDArray:
    return random.standard_t(random.uniform(0.7, 3), n)


DISTRIBUTIONS: dict[str, Callable[[Generator, int], NDArray]] = {
    "normal": lambda random, n: random.normal(size=n),
    "laplace": lambda random, n: random.laplace(size=n),
    "uniform": lambda random, n: random.random(n),
    "heavy tails": _heavy_tails,
    "cubes": lambda random, n: random.normal(size=n) ** 3,
    "log-normal": lambda random, n: random.lognormal(sigma=random.uniform(0.5, 4), size=n),
    "far from zero": lambda random, n: random.normal(size=n) + 10.0 ** random.uniform(2, 6),
    "few decimals": lambda random, n: np.round(random.normal(size=n), int(random.integers(1, 4))),
    "all equal": lambda random, n: np.full(n, random.normal()),
    "point masses": _point_masses,
    "masses and a smooth part": _masses_and_a_smooth_part,
    "far clusters": _far_clusters,
    "a small far cluster": _a_small_far_cluster,
    "denormals": _denormals,
    "huge outliers": _huge_outliers,
    "many scales": _many_scales,
    "nested": _nested,
    "steps": _steps,
}
"""By name: from a generator and a number of values to float64 values that float32 can hold."""


def draw(name: str, seed: int, n: int) -> Drawn:
    """The values of one seed."""
    return DISTRIBUTIONS[name](np.random.default_rng(seed), n).astype(np.float32)
