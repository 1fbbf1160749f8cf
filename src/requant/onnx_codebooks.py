"""Codebooks in an ONNX graph: packed indices, and a few standard nodes that make the tensor of them.

Indices take the bits that storage `packed` gives them, whatever their number: eight of b bits in b bytes, which are one
of each eighth of the tensor, so that unpacking them is operations on whole rows. A table that several tensors have is
there once. A runtime that folds constants unpacks them once, while it loads the file.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from requant.archive import bitpack
from requant.codebook_factors import FactoredCodebook
from requant.codebook_forms import AnyCodebook, GroupedCodebook, SplitCodebook, Unsplit
from requant.codebook_trellis import TrellisCodebook, row_count
from requant.trellis import stages

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

    def store(self, name: str, codebook: AnyCodebook) -> bool:
        """Replace the initializer `name`; False: the graph has none of that name, as it has no use for it."""
        found = [tensor for tensor in self._graph.initializer if tensor.name == name]
        if not found:
            return False
        self._graph.initializer.remove(found[0])
        self._nodes = []
        self._tensor(codebook, found[0].data_type, name)
        for position, new in enumerate(self._nodes):
            self._graph.node.insert(position, new)
        return True

    def _tensor(self, codebook: AnyCodebook, kind: int, output: str = "") -> str:
        """Of the codebook's shape and this element type."""
        if isinstance(codebook, SplitCodebook):
            return self._merged(codebook, kind, output)
        if isinstance(codebook, FactoredCodebook):
            return self._product(codebook, kind, output)
        values = self._values(codebook)
        if kind != self._onnx.TensorProto.FLOAT:
            values = self._cast(values, kind)
        return self._node("Reshape", values, self._numbers(codebook.shape), output=output)

    def _merged(self, codebook: SplitCodebook, kind: int, output: str) -> str:
        """Input channels, the first parts of those that were split added, then the second, ...; 0 where none is.

        Of half precision in single: runtimes have no other sums.
        """
        channels, axis = codebook.shape[1], self._numbers([1])
        rounds = _rounds(codebook.sources, channels)
        half = kind == self._onnx.TensorProto.FLOAT16
        split = self._tensor(codebook.inner, self._onnx.TensorProto.FLOAT if half else kind)
        first = self._node("Gather", split, self._numbers([0]), axis=1)
        padded = self._node("Concat", split, self._node("Sub", first, first), axis=1)
        found = self._node("Slice", split, self._numbers([0]), self._numbers([channels]), axis)
        for number, places in enumerate(rounds, 1):
            part = self._node("Gather", padded, self._constant(places), axis=1)
            found = self._node("Add", found, part, output=output if number == len(rounds) and not half else "")
        return self._node("Cast", found, to=kind, output=output) if half else found

    def _product(self, codebook: FactoredCodebook, kind: int, output: str) -> str:
        """Summed in double precision."""
        rows, axis = codebook.shape[0], self._numbers([0])
        precise = self._tensor(codebook.inner, self._onnx.TensorProto.DOUBLE)
        left = self._node("Slice", precise, self._numbers([0]), self._numbers([rows]), axis)
        right = self._node("Slice", precise, self._numbers([rows]), self._numbers([sum(codebook.shape)]), axis)
        product = self._node("MatMul", left, self._node("Transpose", right, perm=[1, 0]))
        return self._node("Cast", product, to=kind, output=output)

    def _values(self, codebook: Unsplit | TrellisCodebook) -> str:
        """float32, in the tensor's order."""
        bits = (len(codebook.counts) - 1).bit_length()
        parts = self._bytes(codebook.indices.reshape(-1), bits)
        if isinstance(codebook, GroupedCodebook):
            return self._by_group(self._whole_numbers(parts), codebook)
        if isinstance(codebook, TrellisCodebook):
            points = self._on_trellis(parts, codebook, bits)
        else:
            points = self._whole_numbers(parts)
        return self._node("Gather", self._constant(codebook.centroids), points)

    def _by_group(self, numbers: str, codebook: GroupedCodebook) -> str:
        groups, run, size = codebook.groups, codebook.run, codebook.indices.size
        if groups * run > size:
            numbers = self._node("Pad", numbers, self._numbers([0, groups * run - size]))
        numbers = self._node("Reshape", numbers, self._numbers([groups, run]))
        if codebook.scales is None:
            begins = np.arange(groups, dtype=np.int32)[:, None] * np.int32(codebook.k)
            numbers = self._node("Add", numbers, self._constant(begins))
        values = self._node("Gather", self._constant(codebook.tables.reshape(-1)), numbers)
        if codebook.scales is not None:
            values = self._node("Mul", values, self._constant(codebook.scales[:, None]))
        values = self._node("Reshape", values, self._numbers([-1]))
        return self._node("Slice", values, self._numbers([0]), self._numbers([size])) if groups * run > size else values

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

    def _bytes(self, indices: NDArray[np.unsignedinteger], bits: int) -> list[str]:
        """Indices below 2**bits as uint8 (n,): the low eight bits of each, and those above, if there are any."""
        if bits > BYTE:
            low, high = indices.astype(np.uint8), (indices >> BYTE).astype(np.uint8)
            return [*self._bytes(low, BYTE), *self._bytes(high, bits - BYTE)]
        if bits in (0, BYTE):
            return [self._constant(indices) if bits else self._zeros(indices.size)]
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
        return [flat]

    def _whole_numbers(self, parts: list[str]) -> str:
        """int32 (n,), of what `_bytes` gives."""
        low, *high = (self._cast(part, self._onnx.TensorProto.INT32) for part in parts)
        if not high:
            return low
        return self._node("Add", low, self._node("Mul", high[0], self._constant(np.array(1 << BYTE, np.int32))))

    def _cast(self, values: str, kind: int) -> str:
        return self._node("Cast", values, to=kind)

    def _zeros(self, size: int) -> str:
        return self._node("Expand", self._constant(np.zeros(1, np.uint8)), self._numbers([size]))

    def _shifted(self, packed: str, rows: NDArray[np.int64], shift: NDArray[np.int64], direction: str) -> str:
        """(8, n / 8) uint8: these of the (b, n / 8) bytes, shifted."""
        chosen = self._node("Gather", packed, self._constant(rows))
        return self._node("BitShift", chosen, self._constant(shift.astype(np.uint8)[:, None]), direction=direction)

    def _on_trellis(self, parts: list[str], codebook: TrellisCodebook, bits: int) -> str:
        """int32 (n,): twice each index, and its parity. In bytes as far as they hold it: a runtime keeps all of it."""
        parity = self._parities(parts[0], codebook.shape, codebook.states)
        if bits < BYTE:
            doubled = self._node("BitShift", parts[0], self._constant(np.array(1, np.uint8)), direction="LEFT")
            return self._whole_numbers([self._node("BitwiseOr", doubled, parity)])
        indices = self._whole_numbers(parts)
        return self._node("Add", self._node("Add", indices, indices), self._whole_numbers([parity]))

    def _parities(self, indices: str, shape: tuple[int, ...], states: int) -> str:
        """uint8 (n,): what the low bits before each index in its row give (`requant.trellis`), eight rows a byte."""
        rows = row_count(shape)
        columns, eighth = int(np.prod(shape)) // rows, -(-rows // BYTE)
        one, shifts = (
            self._constant(np.array(1, np.uint8)),
            self._constant(np.arange(BYTE, dtype=np.uint8)[:, None, None]),
        )
        low = self._node("Reshape", self._node("BitwiseAnd", indices, one), self._numbers([rows, columns]))
        whole = self._node("Pad", low, self._numbers([0, 0, BYTE * eighth - rows, 0])) if rows % BYTE else low
        eighths = self._node("Reshape", whole, self._numbers([BYTE, eighth, columns]))
        moved = self._node("BitShift", eighths, shifts, direction="LEFT")
        packed = self._joined("BitwiseOr", [self._part(moved, 0, bit, bit + 1) for bit in range(BYTE)])
        for delays in stages(states, columns):
            packed = self._delayed(packed, [delay for delay in delays if delay < columns] or [columns], columns)
        apart = self._node("BitwiseAnd", self._node("BitShift", packed, shifts, direction="RIGHT"), one)
        flat = self._node("Reshape", apart, self._numbers([-1]))
        return self._part(flat, 0, 0, rows * columns) if rows % BYTE else flat

    def _delayed(self, values: str, delays: list[int], columns: int) -> str:
        """The sum modulo 2 of values (1, R, C), each delayed by so many columns."""
        longest = max(delays)
        padded = self._node("Pad", values, self._numbers([0, 0, longest, 0, 0, 0])) if longest else values
        starts = (longest - delay for delay in delays)
        return self._joined("BitwiseXor", [self._part(padded, 2, start, start + columns) for start in starts])

    def _joined(self, kind: str, parts: list[str]) -> str:
        return functools.reduce(lambda found, other: self._node(kind, found, other), parts)

    def _part(self, values: str, axis: int, begin: int, end: int) -> str:
        return self._node("Slice", values, *(self._numbers([number]) for number in (begin, end, axis)))


def _rounds(sources: NDArray[np.uint32], channels: int) -> list[NDArray[np.int64]]:
    """For each round (channels,) which part is added to each input channel; behind all parts, none."""
    rounds: list[NDArray[np.int64]] = []
    taken = np.zeros(channels, np.int64)
    for extra, source in enumerate(sources.tolist()):
        if taken[source] == len(rounds):
            rounds.append(np.full(channels, channels + sources.size, np.int64))
        rounds[taken[source]][source] = channels + extra
        taken[source] += 1
    return rounds


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
