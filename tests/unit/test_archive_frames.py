"""zstd frames: small ones as small as can be, large ones without minutes of searching."""

import numpy as np
import pytest
import zstandard

from requant.archive import frames


@pytest.mark.parametrize(("length", "level"), [(frames.LARGE - 1, 19), (frames.LARGE, 1)])
def test_the_level_follows_the_length(length: int, level: int) -> None:
    data = np.random.default_rng(0).integers(0, 4, length, dtype=np.uint8).tobytes()
    found = frames.compress(data)
    assert found == zstandard.ZstdCompressor(level=level).compress(data)
    assert frames.decompress(found, length, "data") == data
