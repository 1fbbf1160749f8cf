"""An archive as a file for other runtimes: ONNX, in which weights stay codebooks, or a plain state dict.

In the ONNX graph a clustered tensor is its centroids and its packed indices (`onnx_codebooks`).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from requant.archive import Archive, load, read
from requant.codebook_forms import AnyCodebook
from requant.errors import UserError
from requant.files import replacing
from requant.models import Architecture, example_input, preprocessing, save_weights
from requant.onnx_codebooks import Unpacking, share_initializers
from requant.outputs import VALUES, main

NODES = 400  # bytes of those that unpack a vector
OPSET = 18  # BitwiseAnd came with it; onnxruntime reads it since 1.14 (2023)


@dataclass(frozen=True)
class Exported:
    """A file that was written: where, how many bytes, and how many tensors of it are codebooks."""

    path: Path
    bytes: int
    codebooks: int


def export_safetensors(archive: Path, path: Path, model: nn.Module | None = None) -> Exported:
    """Write an archive's network as an ordinary state dict; `model` as for `requant.load`."""
    _check_suffix(path, ".safetensors")
    save_weights(path, load(archive, model), {"made_from": archive.name})
    return Exported(path, path.stat().st_size, 0)


def export_onnx(
    archive: Path, path: Path, *, dense: bool = False, opset: int = OPSET, model: nn.Module | None = None
) -> Exported:
    """Write an archive's network as ONNX: `images` (N, C, H, W), normalised, in; `logits` (N, classes) out; N is free.

    Outputs that are values go by that name; where each position of an image has its own they are (N, classes, ...).

    Args:
        archive: a file that `requant.save` wrote with the network's architecture.
        path: the .onnx file.
        dense: store ordinary float32 weights instead of codebooks.
        opset: version of ONNX's operators, at least 18.
        model: as for `requant.load`: given for a network of one's own code.

    Raises:
        UserError: another suffix or too old an opset, or the packages of the extra `onnx` are missing.
        ArchiveError: as `requant.load`.

    """
    _check_suffix(path, ".onnx")
    if opset < OPSET:
        raise UserError(f"opset {opset} lacks what unpacks indices: use {OPSET} or above")
    try:
        import onnx
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ImportError as error:
        raise UserError(f"ONNX export needs {error.name}: pip install 'requant[onnx]'") from error
    content, model = read(archive), load(archive, model)
    if content.architecture is None:
        raise UserError(
            f"{archive} does not say what images its network takes: save it with an architecture, such as "
            'Architecture("own:net", classes, channels, image_size, mean=mean, std=std).to_dict()'
        )
    architecture = Architecture.from_dict(content.architecture)
    graph = _graph(model, architecture, opset)
    unpacking = Unpacking(onnx, graph.graph)
    stored = sum(unpacking.store(name, book) for name, book in content.codebooks.items() if not dense and _pays(book))
    if not dense:
        share_initializers(onnx, graph.graph)
    _describe(graph, content, architecture)
    onnx.checker.check_model(graph)
    with replacing(path) as unfinished:
        unfinished.write_bytes(graph.SerializeToString(deterministic=True))
    return Exported(path, path.stat().st_size, stored)


def _pays(book: AnyCodebook) -> bool:
    """Whether a codebook is smaller than the values that it stands for."""
    bits = (len(book.counts) - 1).bit_length()
    return len(book.shape) > 1 or 4 * book.k + book.indices.size * bits / 8 + NODES < 4 * book.indices.size


def _check_suffix(path: Path, suffix: str) -> None:
    if path.suffix != suffix:
        raise UserError(f"{path} must end in {suffix}")


def _graph(model: nn.Module, architecture: Architecture, opset: int) -> Any:
    """The network as an ONNX ModelProto whose initializers bear the state dict's names."""
    model = model.to(memory_format=torch.contiguous_format)
    example = example_input(architecture).expand(2, -1, -1, -1)
    with _one_output(model):
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=opset,
            optimize=False,  # it would fold batch norms into clustered weights, which then are clustered no longer
            input_names=["images"],
            output_names=[VALUES.name if architecture.outputs == VALUES.name else "logits"],
            dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
        )
    assert program is not None
    graph = program.model_proto
    for part in (*graph.graph.node, *graph.graph.initializer, *graph.graph.input, *graph.graph.output):
        del part.metadata_props[:]  # stack traces of the source: more bytes than the weights of a small network
    del graph.graph.value_info[:], graph.graph.metadata_props[:]
    return graph


@contextmanager
def _one_output(model: nn.Module) -> Iterator[None]:
    """Of a network that gives its outputs by name, those that count alone. A module around it would rename weights."""
    forward = model.forward
    model.forward = lambda images: main(forward(images))
    try:
        yield
    finally:
        del model.forward


def _describe(graph: Any, content: Archive, architecture: Architecture) -> None:
    """What a user of the file has to know: the network, its provenance, and what its input images must look like."""
    wanted = preprocessing(architecture)
    facts = {
        "architecture": architecture.to_dict(),
        "preprocessing": asdict(wanted),
        "provenance": content.provenance,
    }
    for key, value in facts.items():
        graph.metadata_props.add(key=f"requant.{key}", value=json.dumps(value, sort_keys=True))
    graph.producer_name = "requant"
