"""Layer numbers and kinds: what each tensor of a network is, as plans and figures name it."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import prod

from torch import Tensor, nn

from requant.calls import first_calls

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
RUNNING_STATISTICS = {"running_mean": "bn_mean", "running_var": "bn_std"}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a network.

    Attributes:
        name: its key in the state dict.
        layer: the paper's number of the layer it belongs to, from 1; 0: of no layer (a ViT's class token).
        kind: one of `requant.kinds.KINDS`. `bn_alpha` and `bn_beta` are the scale and the shift of any normalisation.
            `bn_std` is the paper's name for batch norm's running variance: the tensor holds the variance, not its root.
        shape: its size along each dimension.
    """

    name: str
    layer: int
    kind: str
    shape: tuple[int, ...]

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


def describe(model: nn.Module, example: Tensor) -> list[TensorInfo]:
    """Every parameter and every running statistic of batch norm, once each, with its layer and kind.

    A layer is a module that computes with tensors of two or more dimensions. Layers are numbered from 1 by their first
    call when the model maps `example`, as in Thonglek et al. (IJCNN 2020, figures 5 and 10). What is not plain:

    - a projection shortcut takes no number and carries that of the first layer of its block;
    - a normalisation, or another module of vectors alone, belongs to the layer called last before it;
    - a module that is never called (the output projection in nn.MultiheadAttention) belongs to the one that computes
      with it, the nearest called module around it;
    - what a module owns beside layers that it calls (a ViT's class token) has number 0.

    Args:
        model: left as it was: parameters, buffers, modes and hooks.
        example: images of shape (1, channels, height, width); taken to the model's device (which may be "meta") and
            precision.

    Returns:
        The tensors, sorted by layer, then by the first call of their module, then as they were registered.
    """
    calls = first_calls(model, example)
    tensors = list(_tensors(model, calls))
    numbers = _numbers(tensors, sorted({tensor.caller for tensor in tensors}, key=calls.__getitem__))
    infos = [TensorInfo(t.name, numbers[t.caller], t.kind, tuple(t.tensor.shape)) for t in tensors]
    order = {t.name: (numbers[t.caller], calls[t.caller]) for t in tensors}
    return sorted(infos, key=lambda info: order[info.name])


@dataclass(frozen=True)
class _Owned:
    """A tensor, the module that owns it, and the called module that computes with it (itself, or one around it)."""

    owner: str
    caller: str
    name: str
    kind: str
    tensor: Tensor

    @property
    def makes_a_layer(self) -> bool:
        return self.kind == "weight" and self.tensor.ndim >= 2


def _tensors(model: nn.Module, calls: Collection[str]) -> Iterator[_Owned]:
    """In the order of registration; a tensor that several modules share comes once, under its first name."""
    seen: set[int] = set()
    for owner, module in model.named_modules():
        caller = _nearest_called(owner, calls)
        for key, tensor in _own_tensors(module):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                name = f"{owner}.{key}" if owner else key
                yield _Owned(owner, caller, name, _kind(module, key, tensor), tensor)


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False)
    for key, tensor in module.named_buffers(recurse=False):
        if key in RUNNING_STATISTICS:
            yield key, tensor


def _nearest_called(name: str, calls: Collection[str]) -> str:
    while name not in calls:
        name = name.rpartition(".")[0]
    return name


def _kind(module: nn.Module, key: str, tensor: Tensor) -> str:
    """Vectors that scale or shift channels count as a normalisation's, whatever module they are in."""
    if key in RUNNING_STATISTICS:
        return RUNNING_STATISTICS[key]
    vectors_alone = not any(True for _ in module.children()) and all(p.ndim <= 1 for p in module.parameters())
    normalises = isinstance(module, NORMS) or vectors_alone
    if key.endswith("bias"):
        return "bn_beta" if normalises else "bias" if tensor.ndim <= 1 else "weight"
    return "bn_alpha" if normalises or tensor.ndim <= 1 else "weight"


def _numbers(tensors: Sequence[_Owned], callers: Sequence[str]) -> dict[str, int]:
    """The layer number of each of `callers`, which come in the order of their calls."""
    around = {outer for caller in callers for outer in _modules_around(caller)}
    layers = _layers(tensors, callers, around)
    shortcuts = _shortcuts(layers)
    numbers = {layer: number for number, layer in enumerate((x for x in layers if x not in shortcuts), start=1)}
    numbers |= {shortcut: numbers[first] for shortcut, first in shortcuts.items()}
    last = 0
    for caller in callers:
        last = numbers.get(caller, last)
        numbers.setdefault(caller, 0 if caller in around else last)
    return numbers


def _layers(tensors: Sequence[_Owned], callers: Sequence[str], around: Collection[str]) -> list[str]:
    """Those of `callers` that compute with matrices or kernels.

    A module around other callers is a layer only where it computes with the tensors of modules that it does not call,
    and never if it is the whole model: those would be heads that evaluation leaves out.
    """
    found = {
        tensor.caller
        for tensor in tensors
        if tensor.makes_a_layer and (tensor.caller not in around or (tensor.caller and tensor.owner != tensor.caller))
    }
    return [caller for caller in callers if caller in found]


def _modules_around(name: str) -> Iterator[str]:
    while name:
        name = name.rpartition(".")[0]
        yield name


def _shortcuts(layers: Sequence[str]) -> dict[str, str]:
    """The projection shortcuts among `layers`, each with the first layer of its block's other path."""
    blocks = {layer: block for layer in layers if (block := _block(layer)) is not None}
    paths = [layer for layer in layers if layer not in blocks]
    found = {}
    for shortcut, block in blocks.items():
        first = next((layer for layer in paths if layer.startswith(block)), None)
        # Deeper down it would be the first of a stage's blocks: the stage's downsampling is a layer like any other.
        if first is not None and first.removeprefix(block).count(".") <= 1:
            found[shortcut] = first
    return found


def _block(layer: str) -> str | None:
    """The prefix of the block whose shortcut this layer is, by the names in the ResNets of torchvision and timm."""
    parts = layer.split(".")
    for depth, part in enumerate(parts):
        if part == "downsample" or "shortcut" in part:
            return "".join(f"{outer}." for outer in parts[:depth])
    return None
