"""Building a network whose weights will be overwritten, without drawing random ones: for VGG-16 seconds."""

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

_DRAWN: dict[Any, tuple[Callable[[float, float], float], dict[str, float]]] = {
    Tensor.normal_: (random.Random(0).gauss, {"mean": 0.0, "std": 1.0}),
    Tensor.uniform_: (random.Random(0).uniform, {"from": 0.0, "to": 1.0}),
}
"""How a value is drawn, and from what where nothing is said."""
_RANDOM = {
    *_DRAWN,
    init.normal_,
    init.trunc_normal_,
    init.uniform_,
    init.kaiming_normal_,
    init.kaiming_uniform_,
    init.xavier_normal_,
    init.xavier_uniform_,
}


class Uninitialised(TorchFunctionMode):
    """Within it, filling a parameter with random numbers leaves it as it is, and torch's generators too.

    Other tensors are filled with one number, drawn anew each time: a truncated distribution is drawn from until all
    numbers are within its bounds, and what happens to be in a parameter's memory need not be.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """What torch calls instead of each of its functions."""
        named = kwargs or {}
        if func not in _RANDOM:
            return func(*args, **named)
        tensor = args[0] if args else named["tensor"]
        if func not in _DRAWN or isinstance(tensor, nn.Parameter):
            return tensor
        draw, usual = _DRAWN[func]
        given = usual | dict(zip(usual, args[1:], strict=False)) | {name: named[name] for name in usual & named.keys()}
        return tensor.fill_(draw(*given.values()))
