"""Codebooks in an ONNX graph: packed indices, and a few standard nodes that make the tensor of them.

Indices take the bits that storage `packed` gives them, whatever their number: eight of b bits in b bytes, which are one
of each eighth of the tensor, so that unpacking them is operations on whole rows. A table that several tensors have is
there once. A runtime that folds constants unpacks them once, while it loads the file.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from requant.archive import bitpack
from requant.codebook import Codebook
from requant.codebook_trellis import TrellisCodebook, row_count
from requant.trellis import PERIOD, TAPS

BYTE = 8


class Unpacking:
    """Replaces initializers of one graph by codebooks.

    Args:
        onnx: the package.
        graph: a GraphProto, which is changed.

    """

    def __init__(self, onnx: Any, graph: Any) -> None:
        self._onnx, self._graph = onnx, graph
        self._constants: dict[tuple[Any, ...], str] = {}
        taken = {part.name for part in (*graph.initializer, *graph.input)} | {o for n in graph.node for o in n.output}
        # Short: a network has hundreds of them.
        self._names = (name for number in itertools.count() if (name := f"q{number}") not in taken)
        self._nodes: list[Any] = []

    def store(self, name: str, codebook: Codebook | TrellisCodebook) -> bool:
        """Replace the initializer `name`; False: the graph has none of that name, as it has no use for it."""
        found = [tensor for tensor in self._graph.initializer if tensor.name == name]
        if not found:
            return False
        self._graph.initializer.remove(found[0])
        self._nodes = []
        bits = (len(codebook.counts) - 1).bit_length()
        if bits:
            points = self._whole_numbers(codebook.indices.reshape(-1), bits)
            if isinstance(codebook, TrellisCodebook):
                points = self._on_trellis(points, codebook.shape)
            values = self._node("Gather", self._constant(codebook.centroids.astype(np.float32)), points)
            self._node("Reshape", values, self._numbers(codebook.shape), output=name)
        else:
            self._node("Expand", self._constant(codebook.centroids), self._numbers(codebook.shape), output=name)
        for position, new in enumerate(self._nodes):
            self._graph.node.insert(position, new)
        return True

    def _constant(self, values: NDArray[Any]) -> str:
        """An initializer of these values: the one that is there, or a new one."""
        key = values.dtype.str, values.shape, values.tobytes()
        if key not in self._constants:
            self._constants[key] = next(self._names)
            self._graph.initializer.append(self._onnx.numpy_helper.from_array(values, self._constants[key]))
        return self._constants[key]

    def _numbers(self, values: Sequence[int]) -> str:
        return self._constant(np.array(values, np.int64))

    def _node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or next(self._names)
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [output], **attributes))
        return output

    def _whole_numbers(self, indices: NDArray[np.unsignedinteger], bits: int) -> str:
        """int32 (n,), from indices below 2**bits."""
        int32 = self._onnx.TensorProto.INT32
        if bits == BYTE:
            return self._node("Cast", self._constant(indices), to=int32)
        if bits > BYTE:
            low = self._whole_numbers(indices.astype(np.uint8), BYTE)
            high = self._whole_numbers((indices >> BYTE).astype(np.uint8), bits - BYTE)
            return self._node("Add", low, self._node("Mul", high, self._constant(np.array(1 << BYTE, np.int32))))
        eighths = np.pad(indices, (0, -indices.size % BYTE)).reshape(BYTE, -1)
        packed = bitpack.pack(eighths.T.reshape(-1), bits).reshape(-1, bits)
        begin = np.arange(BYTE) * bits
        first, shift = begin // BYTE, begin % BYTE
        stored = self._constant(np.ascontiguousarray(packed.T))
        numbers = self._shifted(stored, first, shift, "RIGHT")
        if BYTE % bits:  # some lie in two bytes; where one does not, what comes from the next is above its bits
            rest = self._shifted(stored, np.minimum(first + 1, bits - 1), np.minimum(BYTE - shift, BYTE - 1), "LEFT")
            numbers = self._node("BitwiseOr", numbers, rest)
        numbers = self._node("BitwiseAnd", numbers, self._constant(np.array((1 << bits) - 1, np.uint8)))
        flat = self._node("Reshape", numbers, self._numbers([-1]))
        if eighths.size != indices.size:
            flat = self._node("Slice", flat, self._numbers([0]), self._numbers([indices.size]))
        return self._node("Cast", flat, to=int32)

    def _shifted(self, packed: str, rows: NDArray[np.int64], shift: NDArray[np.int64], direction: str) -> str:
        """(8, n / 8) uint8: these of the (b, n / 8) bytes, shifted."""
        chosen = self._node("Gather", packed, self._constant(rows))
        return self._node("BitShift", chosen, self._constant(shift.astype(np.uint8)[:, None]), direction=direction)

    def _on_trellis(self, indices: str, shape: tuple[int, ...]) -> str:
        """Twice each index, and the parity that the low bits before it in its row give (`requant.trellis`)."""
        rows = row_count(shape)
        columns = int(np.prod(shape)) // rows
        periods = -(-columns // PERIOD)
        longest, width = max(TAPS), periods * PERIOD
        one, along = self._constant(np.array(1, np.int32)), self._numbers([1])
        low = self._node("Reshape", self._node("BitwiseAnd", indices, one), self._numbers([rows, columns]))
        padded = self._node("Pad", low, self._numbers([0, longest, 0, width - columns]))
        delayed = [
            self._node("Slice", padded, self._numbers([longest - tap]), self._numbers([longest - tap + width]), along)
            for tap in TAPS
        ]
        total = delayed[0]
        for other in delayed[1:]:
            total = self._node("Add", total, other)
        by_period = self._node("Reshape", total, self._numbers([rows, periods, PERIOD]))
        sums = self._node("CumSum", by_period, self._constant(np.array(1, np.int64)))
        parity = self._node("Reshape", self._node("BitwiseAnd", sums, one), self._numbers([rows, width]))
        kept = self._node("Slice", parity, self._numbers([0]), self._numbers([columns]), along)
        flat = self._node("Reshape", kept, self._numbers([-1]))
        return self._node("Add", self._node("Add", indices, indices), flat)


def share_initializers(onnx: Any, graph: Any) -> None:
    """Keep one of those that are the same, such as the means of batch norms that were taken into their shifts."""
    first: dict[tuple[Any, ...], str] = {}
    instead: dict[str, str] = {}
    for tensor in list(graph.initializer):
        values = onnx.numpy_helper.to_array(tensor)
        name = first.setdefault((values.dtype.str, values.shape, values.tobytes()), tensor.name)
        if name != tensor.name:
            instead[tensor.name] = name
            graph.initializer.remove(tensor)
    for node in graph.node:
        node.input[:] = [instead.get(name, name) for name in node.input]
