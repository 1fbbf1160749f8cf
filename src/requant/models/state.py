"""State dicts from files: read without running code, and checked against the network they are for."""

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from requant.errors import WeightsError
from requant.suggest import did_you_mean, some

SUFFIXES = (".safetensors", ".pt", ".pth")
NAMES_SHOWN = 3


def read_state(weights: str) -> Mapping[str, Tensor]:
    """The state dict in a file, on the CPU; taken out of "state_dict", and "module." stripped, where so.

    Raises:
        WeightsError: no such file, another format, damaged, or holding anything but tensors.
    """
    path = Path(weights).expanduser()
    _require_file(path)
    content = _load(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds no state dict (a mapping of names to tensors)")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(f"{path} holds no state dict: {name!r} is of type {type(value).__name__}, not a tensor")
    return {name.removeprefix("module."): value for name, value in content.items()}


def _require_file(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise WeightsError(
            f"weights must be published, none, or the path of a {', '.join(SUFFIXES)} file, not {str(path)!r}"
            + did_you_mean(path, ["published", "imagenet", "none"])
        )
    if not path.is_file():
        beside = sorted(str(other) for other in path.parent.glob("*") if other.suffix in SUFFIXES)
        raise WeightsError(f"there is no weights file {path}{did_you_mean(path, beside)}")


def _load(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is no plain state dict: it is damaged, or holds objects that only unpickling could read, which "
            "may run code; save model.state_dict() alone, best as .safetensors"
        ) from error
    except Exception as error:  # damaged bytes make the readers raise whatever they stumble on
        raise WeightsError(
            f"cannot read {path} ({error}): it is damaged or of another format; fetch it again"
        ) from error


def require_fit(state: Mapping[str, Tensor], model: nn.Module, source: str) -> None:
    """Raise unless `state` has the model's tensors, each with its shape and finite values.

    Args:
        state: the tensors to load.
        model: the network to load them into.
        source: what the message calls the state's origin and architecture.

    Raises:
        WeightsError: naming the tensors that do not fit.
    """
    expected = model.state_dict()
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = sorted(name for name in state if name not in expected)
    if missing or unexpected:
        raise WeightsError(
            f"the weights {source} do not fit the network: missing {some(missing, NAMES_SHOWN)}; "
            f"unexpected {some(unexpected, NAMES_SHOWN)}; "
            "check model.name and the other model settings"
        )
    for name, tensor in state.items():
        for problem in _problems(tensor, expected[name]):
            raise WeightsError(f"the weights {source} do not fit the network: {name} {problem}")


def _problems(tensor: Tensor, expected: Tensor) -> Iterator[str]:
    if tensor.shape != expected.shape:
        yield f"has shape {tuple(tensor.shape)}, not {tuple(expected.shape)}; check model.classes, channels and width"
    elif tensor.is_floating_point() != expected.is_floating_point() or tensor.is_complex():
        yield f"has type {tensor.dtype}, not {expected.dtype}"
    elif not tensor.to(expected.dtype).isfinite().all():
        yield f"has values that are NaN or infinite in {expected.dtype}; train or fetch the weights again"
