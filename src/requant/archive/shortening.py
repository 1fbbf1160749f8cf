"""A network rounded to numbers of 16 bits, which an archive then holds in two bytes each."""

import copy
from collections.abc import Mapping
from functools import partial

import torch
from torch import nn

from requant.archive.halves import rounded
from requant.codebook_forms import AnyCodebook, with_mapped_table


@torch.no_grad()
def shortened(
    model: nn.Module, codebooks: Mapping[str, AnyCodebook], centroids: str | None = None, dense: str | None = None
) -> tuple[nn.Module, dict[str, AnyCodebook]]:
    """A copy of the network with centroids, or the float32 tensors that have no codebook, rounded.

    Args:
        model: its clustered tensors lie on their codebooks.
        codebooks: by tensor name.
        centroids: `bfloat16` (8 significant bits) or `float16` (11, up to 65504); None: they stay.
        dense: the same for the other tensors.

    Raises:
        ArchiveError: for values beyond float16's range.

    """
    books = dict(codebooks)
    if centroids is None and dense is None:
        return model, books
    model = copy.deepcopy(model)
    for name, tensor in model.state_dict().items():
        if name in books and centroids is not None:
            books[name] = with_mapped_table(books[name], partial(rounded, half=centroids, name=name))
            tensor.copy_(torch.from_numpy(books[name].dense()))
        elif name not in books and dense is not None and tensor.dtype == torch.float32:
            tensor.copy_(torch.from_numpy(rounded(tensor.cpu().numpy(), dense, name)))
    return model, books
