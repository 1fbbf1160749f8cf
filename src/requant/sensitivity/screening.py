"""Which class each image gets: in bfloat16 where that leaves no doubt, in float32 everywhere else.

Where a machine computes in bfloat16 it is nearly twice as fast at it, and a network's outputs move by some hundredths.
Where the first class leads by more than they move, it leads in float32, too. How far they move is measured: on some of
the images, and on all that are in doubt. An image is decided if its lead is more than `MARGIN` times the most by which
any two outputs of one of those came nearer or drew apart; all others are computed in float32, in which leads of next to
nothing are computed in the batches that a plain evaluation has. So classes are those of float32, as far as the images
that were computed both ways tell of the others (docs/reproduction.md counts them); outputs are not.
"""

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

Network = Callable[[Tensor], Tensor]

SAMPLE = 64  # one in so many images is computed both ways
MARGIN = 3.0
MOST_IN_DOUBT = 0.5  # of the images; with more of them all are computed in float32
TIE = 1e-4  # of the largest output: other batches move float32's outputs by about a hundredth of that
PAYS = 1.2  # times as fast
TRIES = 3


@torch.inference_mode()
def screened(network: Network, batches: Sequence[Tensor]) -> Tensor:
    """Outputs (N, C) on the CPU; each image's greatest is that of its outputs in float32.

    Args:
        network: gives (n, C) for n images.
        batches: images, in the batches whose outputs count.

    """
    quick_NC = in_bfloat16(network, batches)
    lead_N = _lead(quick_NC)
    found_NC, exact_N, moved = quick_NC.clone(), torch.zeros(len(lead_N), dtype=torch.bool), torch.zeros(())
    wanted_N = torch.zeros_like(exact_N)
    wanted_N[::SAMPLE] = True
    while wanted_N.any():
        exact_N |= wanted_N
        if exact_N.float().mean() > MOST_IN_DOUBT:
            return in_float32(network, batches)
        found_NC[wanted_N] = in_float32(network, _selected(batches, wanted_N))
        moved = torch.maximum(moved, _spread(found_NC[wanted_N] - quick_NC[wanted_N]).max())
        wanted_N = ~(lead_N > MARGIN * moved) & ~exact_N
    ties_N = exact_N & ~(_lead(found_NC) > TIE * found_NC.abs().amax(1))
    return _as_batched(network, batches, found_NC, ties_N)


def in_float32(network: Network, batches: Sequence[Tensor] | Iterator[Tensor]) -> Tensor:
    """Outputs (N, C) on the CPU."""
    return torch.cat([network(batch).float().cpu() for batch in batches])


def in_bfloat16(network: Network, batches: Sequence[Tensor]) -> Tensor:
    """The same, convolutions and products computed in bfloat16."""
    with torch.autocast(batches[0].device.type, torch.bfloat16):
        return in_float32(network, batches)


@torch.inference_mode()
def pays(network: Network, batch: Tensor) -> bool:
    """Whether bfloat16 is enough faster here, by the quickest of some tries each."""
    seconds: dict[Callable[..., Tensor], list[float]] = {in_float32: [], in_bfloat16: []}
    for _ in range(TRIES):
        for way, found in seconds.items():
            started = time.perf_counter()
            way(network, [batch])
            found.append(time.perf_counter() - started)
    return min(seconds[in_float32]) > PAYS * min(seconds[in_bfloat16])


def _lead(outputs_NC: Tensor) -> Tensor:
    """(N,) by how much the greatest output is above the next; not a number where outputs are none."""
    highest_N2 = outputs_NC.topk(2, dim=1).values
    return highest_N2[:, 0] - highest_N2[:, 1]


def _spread(moves_NC: Tensor) -> Tensor:
    """(N,) the most by which the difference of two outputs has changed."""
    return moves_NC.amax(1) - moves_NC.amin(1)


def _selected(batches: Sequence[Tensor], wanted_N: Tensor) -> Iterator[Tensor]:
    """The images that are wanted, about as many at a time as the batches have."""
    held: list[Tensor] = []
    for batch, wanted in zip(batches, wanted_N.split([len(batch) for batch in batches]), strict=True):
        if wanted.any():
            held.append(batch[wanted.to(batch.device)])
        if sum(map(len, held)) >= len(batch):
            yield torch.cat(held)
            held = []
    if held:
        yield torch.cat(held)


def _as_batched(network: Network, batches: Sequence[Tensor], found_NC: Tensor, ties_N: Tensor) -> Tensor:
    """The outputs, those of batches with ties as these batches give them."""
    sizes = [len(batch) for batch in batches]
    parts = zip(batches, found_NC.split(sizes), ties_N.split(sizes), strict=True)
    return torch.cat([in_float32(network, [batch]) if ties.any() else found for batch, found, ties in parts])
