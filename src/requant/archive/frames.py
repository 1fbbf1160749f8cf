"""zstd frames of announced length, read with a bound on the memory that they may ask for."""

import zstandard

from requant.errors import ArchiveError

LEVEL = 19
LARGE = 1 << 22  # bytes, from which on that level takes minutes, and gains a quarter of a percent on weights
LEVEL_OF_LARGE = 1
WINDOW = 1 << 27


def compress(data: bytes) -> bytes:
    """One frame that announces its content's length."""
    level = LEVEL if len(data) < LARGE else LEVEL_OF_LARGE
    return zstandard.ZstdCompressor(level=level, write_content_size=True).compress(data)


def decompress(data: bytes, at_most: int, what: str) -> bytes:
    """The content of a frame, `what` by name.

    Raises:
        ArchiveError: for anything else, and for a frame that announces more bytes than `at_most`.

    """
    try:
        size = zstandard.frame_content_size(data)
        if not 0 <= size <= at_most:
            raise ArchiveError(f"its {what} announces {size} bytes, where at most {at_most} may be")
        return zstandard.ZstdDecompressor(max_window_size=WINDOW).decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ArchiveError(f"its {what} is a damaged zstd frame ({error})") from error
