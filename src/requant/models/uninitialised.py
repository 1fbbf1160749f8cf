"""Building a network whose weights will be overwritten, without drawing random ones: for VGG-16 seconds."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

_RANDOM = {
    Tensor.normal_,
    Tensor.uniform_,
    init.normal_,
    init.trunc_normal_,
    init.uniform_,
    init.kaiming_normal_,
    init.kaiming_uniform_,
    init.xavier_normal_,
    init.xavier_uniform_,
}


class Uninitialised(TorchFunctionMode):
    """Within it, filling a tensor with random numbers leaves it as it is, and torch's generators too."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """What torch calls instead of each of its functions."""
        named = kwargs or {}
        if func in _RANDOM:
            return args[0] if args else named["tensor"]
        return func(*args, **named)
