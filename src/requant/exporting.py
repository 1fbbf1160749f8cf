"""An archive as a file for other runtimes: ONNX, in which weights stay codebooks, or a plain state dict.

In the ONNX graph a clustered tensor is its centroids and its indices, packed 1, 2, 4 or 8 bits each (16 above 256
centroids), and a few standard nodes that unpack and gather them. A runtime that folds constants does so once, while it
loads the file.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from requant.archive import Archive, bitpack, load, read
from requant.codebook import Codebook
from requant.codebook_trellis import TrellisCodebook
from requant.errors import UserError
from requant.files import replacing
from requant.models import Architecture, example_input, preprocessing, save_weights
from requant.outputs import VALUES, main

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
    # Groups, vectors and split channels are exported as the values that they stand for.
    books = {n: b.plain() if isinstance(b, TrellisCodebook) else b for n, b in content.codebooks.items()}
    codebooks = {} if dense else {n: book for n, book in books.items() if isinstance(book, Codebook)}
    for name, codebook in codebooks.items():
        _store_as_codebook(onnx, graph, name, codebook)
    _describe(graph, content, architecture)
    onnx.checker.check_model(graph)
    with replacing(path) as unfinished:
        unfinished.write_bytes(graph.SerializeToString(deterministic=True))
    return Exported(path, path.stat().st_size, len(codebooks))


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


def _store_as_codebook(onnx: Any, graph: Any, name: str, codebook: Codebook) -> None:
    """Replace an initializer by centroids, packed indices and the nodes that make the tensor of them.

    Names are short and constants that tensors share are there once: a network has hundreds of these nodes.
    """
    found = [tensor for tensor in graph.graph.initializer if tensor.name == name]
    if not found:  # the graph has no use for it, as for the statistics of a batch norm in training mode
        return
    graph.graph.initializer.remove(found[0])
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    there = {tensor.name for tensor in graph.graph.initializer}
    nodes: list[Any] = []

    def constant(label: str, values: NDArray[Any]) -> str:
        if label not in there:
            graph.graph.initializer.append(numpy_helper.from_array(values, label))
        return label

    def node(kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{name}.{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    packed, bits = packed_indices(codebook)
    indices = constant(f"{name}.indices", packed)
    if bits < 8:
        shifts = constant(f"shifts.{bits}", np.arange(0, 8, bits, dtype=np.uint8))
        mask = constant(f"mask.{bits}", np.array((1 << bits) - 1, np.uint8))
        indices = node("BitwiseAnd", node("BitShift", indices, shifts, direction="RIGHT"), mask)
        indices = node("Reshape", indices, constant("flat", np.array([-1], np.int64)))
        if codebook.indices.size % (8 // bits):
            size = codebook.indices.size
            ends = [constant(f"number.{at}", np.array([at], np.int64)) for at in (0, size)]
            indices = node("Slice", indices, *ends)
    wide = node("Cast", indices, to=onnx.TensorProto.INT32)
    values = node("Gather", constant(f"{name}.centroids", codebook.centroids.astype(np.float32)), wide)
    shape = constant(f"shape.{'x'.join(map(str, codebook.shape))}", np.array(codebook.shape, np.int64))
    node("Reshape", values, shape, output=name)
    for position, new in enumerate(nodes):
        graph.graph.node.insert(position, new)


def packed_indices(codebook: Codebook) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], int]:
    """Indices at the fewest of 1, 2, 4, 8 or 16 bits that hold them: (bytes, 1) with the first in the lowest bits.

    At 8 and 16 bits they are flat, one an element.
    """
    flat = codebook.indices.reshape(-1)
    bits = next(bits for bits in (1, 2, 4, 8, 16) if codebook.k <= 1 << bits)
    if bits >= 8:
        return flat, bits
    return bitpack.pack(flat, bits)[:, None], bits


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
