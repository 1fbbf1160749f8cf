"""What others make of a network, for `benchmarks.frontier`: each writes a file and gives the tensors that it holds.

A function takes the network and where to write, and returns a state dict; what is not in it stays as it was.
"""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

State = Mapping[str, Tensor]


def whole_numbers(bits: int, teacher: nn.Module, path: Path) -> State:
    """Weights as signed integers with a scale for each output channel, two of 4 bits in a byte; the rest float32."""
    stored: dict[str, Tensor] = {}
    for name, value in teacher.state_dict().items():
        if value.ndim < 2:
            stored[name] = value.contiguous()
            continue
        rows = value.reshape(len(value), -1)
        scale = rows.abs().amax(1, keepdim=True).clamp_min(1e-12) / (2 ** (bits - 1) - 1)
        steps = (rows / scale).round().to(torch.int8).flatten()
        if bits == 4:
            steps = torch.cat([steps, steps.new_zeros(len(steps) % 2)])
            steps = (steps[::2] & 15) | (steps[1::2] << 4)
        stored |= {name: steps.contiguous(), f"{name}.scale": scale.contiguous()}
    save_file(stored, path)
    return _from_whole_numbers(bits, teacher, load_file(path))


def _from_whole_numbers(bits: int, teacher: nn.Module, stored: State) -> State:
    state = {}
    for name, value in teacher.state_dict().items():
        steps = stored[name]
        if value.ndim >= 2:
            if bits == 4:
                steps = torch.stack([(steps << 4) >> 4, steps >> 4], 1).flatten()[: value.numel()]
            steps = steps.reshape(len(value), -1) * stored[f"{name}.scale"]
        state[name] = steps.reshape(value.shape)
    return state


def nncodec(qp: int, teacher: nn.Module, path: Path) -> State:
    """NNCodec (ISO/IEC 15938-17), its defaults with dependent quantization; batch norms' counters left out."""
    from nncodec import nnc

    state = {k: v for k, v in teacher.state_dict().items() if not k.endswith("num_batches_tracked")}
    arrays = {name: np.ascontiguousarray(value.numpy()) for name, value in state.items()}
    nnc.compress(arrays, bitstream_path=str(path), qp=qp, use_dq=True)
    found = nnc.decompress(str(path))
    return {name: torch.from_numpy(np.asarray(value)) for name, value in found.items()}


def coremltools(bits: int, channels: int | None, example: Tensor, teacher: nn.Module, path: Path) -> State:
    """Its k-means palettization (PostTrainingPalettizer), one table a tensor, or one for so many output channels.

    The bytes are those of the .mlpackage, which runs on Apple's systems alone: the tensors returned are not read back
    from it but those that were written, on their tables, in float32 (the package holds float16).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.INFO)
        import coremltools as ct
        from coremltools.optimize.torch.palettization import PostTrainingPalettizer, PostTrainingPalettizerConfig

        settings: dict[str, Any] = {"n_bits": bits, "granularity": "per_tensor"}
        if channels:
            settings |= {"granularity": "per_grouped_channel", "group_size": channels}
        config = PostTrainingPalettizerConfig.from_dict({"global_config": settings})
        found = PostTrainingPalettizer(teacher, config).compress()
        _convert_casts(ct)
        image = ct.TensorType(shape=tuple(example.shape))
        traced = torch.jit.trace(found, example)
        target = ct.target.iOS18
        package = ct.convert(traced, inputs=[image], minimum_deployment_target=target, skip_model_load=True)
        package.save(str(path.with_suffix(".mlpackage")))
        logging.disable(logging.NOTSET)
    path.with_suffix(".mlpackage").rename(path)
    return {name: value for name, value in found.state_dict().items() if name in teacher.state_dict()}


def _convert_casts(ct: Any) -> None:
    """Have coremltools 9.0 convert casts to int of one-element arrays, which numpy 2.4 refuses (EfficientNet-Lite0)."""
    from coremltools.converters.mil import register_torch_op
    from coremltools.converters.mil.frontend.torch.ops import _get_inputs

    def cast(context: Any, node: Any) -> None:
        (value,) = _get_inputs(context, node, expected=1)
        builder = ct.converters.mil.Builder
        known = value.val is not None
        found = (
            builder.const(val=int(value.val.item()), name=node.name) if known else builder.cast(x=value, dtype="int32")
        )
        context.add(found, node.name)

    register_torch_op(cast, torch_alias=["int"], override=True)
