"""What shares a table of centroids: the words for it, and how many values in a row they mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

from requant.codebook_forms import row_values
from requant.errors import UserError

FORMS = "tensor, channel, channel_scale, group:<values> or group_scale:<values>"


@dataclass(frozen=True)
class Granularity:
    """Runs of values; `values` is how many, None: those of an output channel; `scaled`: a factor each, one table."""

    values: int | None
    scaled: bool

    @classmethod
    def parse(cls, text: str) -> Granularity | None:
        """From the setting's text; None for `tensor`.

        Raises:
            UserError: for other words, and for groups of no values.

        """
        found = re.fullmatch(r"(channel|group)(_scale)?(?::([0-9]{1,12}))?", text) if isinstance(text, str) else None
        if text == "tensor":
            return None
        if found is None or (found[1] == "group") != (found[3] is not None) or (found[3] and not int(found[3])):
            raise UserError(f"granularity must be {FORMS}, not {text!r}")
        return cls(int(found[3]) if found[3] else None, found[2] is not None)


def check_granularity(text: str, method: str, name: str) -> None:
    """Raise UserError for words that mean nothing, and for groups of vectors."""
    try:
        split = Granularity.parse(text)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    if split is not None and method == "product":
        raise UserError(f"{name}: method product has one table of vectors a tensor: leave granularity={text} out")


def run_of(split: Granularity, shape: tuple[int, ...]) -> int:
    """How many values in a row share a table or a scale, at most all there are."""
    return min(split.values or row_values(shape), prod(shape))
