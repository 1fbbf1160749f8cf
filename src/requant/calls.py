"""The order in which a network calls its modules."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from requant.modes import evaluating


def first_calls(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Names of the called modules and their positions in the order of first calls; the model itself is "" at 0.

    Args:
        model: left as it was: parameters, buffers, modes and hooks.
        example: one batch; taken to the model's device (which may be "meta") and precision.
    """
    first = next(model.parameters(), example)
    calls: dict[str, int] = {}
    with evaluating(model), _recording(model, calls), torch.no_grad():
        model(example.to(first.device, first.dtype))
    return calls


@contextmanager
def _recording(model: nn.Module, calls: dict[str, int]) -> Iterator[None]:
    def record(name: str) -> None:
        calls.setdefault(name, len(calls))

    handles = [
        module.register_forward_pre_hook(lambda _module, _inputs, name=name: record(name))
        for name, module in model.named_modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
