"""The frozen front of a network, computed once: where all that is trained lies at the network's end.

With only the last layer trained, every epoch would compute the same activations in front of it again.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from requant.retraining.objectives import Objective


@dataclass
class OnTail:
    """An objective on the network's end alone: batches hold the end's inputs in the images' place."""

    objective: Objective
    tail: nn.Module

    def __call__(self, student: nn.Module, batch: Any) -> Tensor:  # noqa: ARG002
        """The mean loss of the batch."""
        return self.objective(self.tail, batch)


def trainable_tail(student: nn.Module, images_NCHW: Tensor) -> nn.Module | None:
    """The smallest end of `student` that takes one tensor and holds all that is trained; None: there is none.

    An end is a module whose output is the network's, or what remains of a Sequential from some child on.
    """
    names = [name for name, parameter in student.named_parameters() if parameter.requires_grad]
    for path in _common_modules(names):
        module = student.get_submodule(path)
        if isinstance(module, nn.Sequential):
            first = min(int(name.removeprefix(path).lstrip(".").split(".")[0]) for name in names)
            if first and _ends(student, module, images_NCHW):
                return module[first:]
        if path and _ends(student, module, images_NCHW):
            return module
    return None


def inputs_of(tail: nn.Module, student: nn.Module, images_NCHW: Tensor) -> Tensor:
    """What reaches the `tail` of the student for these images."""
    first = tail[0] if isinstance(tail, nn.Sequential) else tail
    with torch.no_grad(), _calls(first) as calls:
        student(images_NCHW)
    found: Tensor = calls[0][0][0]
    return found


def _common_modules(names: Sequence[str]) -> Iterator[str]:
    """The modules that hold all these parameters, the innermost first."""
    levels = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, levels)]
    for length in range(len(shared), -1, -1):
        yield ".".join(shared[:length])


def _ends(student: nn.Module, module: nn.Module, images_NCHW: Tensor) -> bool:
    """Whether the module, and each part of it, is called once, it with one tensor, and its output is the network's."""
    with torch.no_grad(), ExitStack() as watching:
        calls = [watching.enter_context(_calls(part)) for part in [module, *module.children()]]
        output = student(images_NCHW)
    once = all(len(of_part) == 1 for of_part in calls)
    return once and len(calls[0][0][0]) == 1 and calls[0][0][1] is output


@contextmanager
def _calls(module: nn.Module) -> Iterator[list[list[Any]]]:
    """[inputs, output] of each call; inputs as they come, since a module may write over them."""
    calls: list[list[Any]] = []

    def before(_: nn.Module, inputs: Any) -> None:
        calls.append([tuple(x.clone() if isinstance(x, Tensor) else x for x in inputs)])

    def after(_: nn.Module, __: Any, output: Any) -> None:
        calls[-1].append(output)

    handles = module.register_forward_pre_hook(before), module.register_forward_hook(after)
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
