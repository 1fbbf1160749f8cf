"""Which places of a layer's outputs are looked at, where there are more than it takes."""

import math

R2 = 0.7548776662466927, 0.5698402909980532  # 1/p, 1/p^2 for p^3 = p + 1


def places(n: int, height: int, width: int, wanted: int, position: int, period: int = 1) -> tuple[slice, slice]:
    """Rows and columns that leave about `wanted` outputs of n images, or more; of each image one or more.

    Where outputs are alike every `period` rows and columns, as those of a transposed convolution, all kinds are there.

    Where they begin goes through the sequence R2 (Roberts, "The Unreasonable Effectiveness of Quasirandom Sequences",
    2018) from batch to batch, so that few batches, too, see all parts of an image alike.
    """
    step = max(1, math.isqrt(n * height * width // wanted))
    while math.gcd(step, period) > 1:
        step -= 1
    starts = (int(min(step, side) * (position * part % 1)) for side, part in zip((height, width), R2, strict=True))
    rows, columns = (slice(start, None, step) for start in starts)
    return rows, columns
