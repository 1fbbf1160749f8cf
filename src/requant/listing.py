"""Archives and runs as tables on the terminal; which runs, in which order."""

from __future__ import annotations

import json
import math
import operator
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from requant.errors import UserError
from requant.results import STUDENTS
from requant.suggest import did_you_mean

if TYPE_CHECKING:  # both load torch, which a table of runs does not need
    import pandas as pd

    from requant.archive import Archive
    from requant.inspection import Difference, Form, Inspection, StoredTensor, TensorDifference

PIPE_WIDTH = 1000
SETTINGS = ("experiment", "model", "data", "clustering", "centroids", "storage", "retrain", "unlabeled", "seed")
NARROW = 7  # characters to which headings may be folded, and text of no great length
MEASURED = ("bytes", "size_reduction", *(f"{student}_top1" for student in STUDENTS))


@dataclass(frozen=True)
class Column:
    """Cells of a table; `fold` is the width to which they may be folded, None where they stay whole, as numbers do."""

    cells: Sequence[str]
    left: bool = False
    fold: int | None = None

    def label(self, heading: str, limit: int) -> list[str]:
        """The lines of a heading: cut before underscores, and where longer than `limit` and than all cells."""
        limit = max(limit, self.fold or max(map(len, self.cells), default=0))
        lines = heading.replace("_", "\n_").replace(" ", "\n").split("\n")
        return [line[start : start + limit] for line in lines for start in range(0, max(1, len(line)), limit)]

    def width(self, heading: str) -> int:
        """What it takes with nothing folded."""
        return max(map(len, [*self.label(heading, PIPE_WIDTH), *self.cells]))

    def least_width(self, heading: str) -> int:
        """What it takes with all folded that may be."""
        return self.fold or max(map(len, [*self.label(heading, NARROW), *self.cells]))


def terminal() -> Console:
    """Standard output; in a pipe lines are as long as they need to be, unless COLUMNS says otherwise."""
    wrapped = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if wrapped else PIPE_WIDTH, highlight=False, markup=False, emoji=False)


def inspection_tables(inspection: Inspection, width: int) -> list[Table | Text]:
    """What `requant.inspection.inspect` found, in so many columns: the file, its tensors, its parts."""
    return [_facts(inspection), *_tensors(inspection.tensors, width), Text(_LEGEND), *_parts(inspection)]


def difference_tables(difference: Difference, width: int) -> list[Table | Text]:
    """What `requant.inspection.diff` found, in so many columns: the files, their tensors, their parts, the verdict."""
    before, after = difference.before, difference.after
    files = _pairs([("A:", str(before.report.path)), ("B:", str(after.report.path))])
    return [files, *_compared(difference.tensors, width), *_sides(before, after), _verdict(difference)]


def archive_line(archive: Archive) -> Text:
    """That an archive is whole, and how much it holds."""
    clustered, dense, size = len(archive.codebooks), len(archive.dense), archive.report.bytes
    return _safe(f"ok: {archive.report.path}: {clustered} clustered and {dense} dense tensors, {size:,} bytes")


def runs_tables(runs: pd.DataFrame, more: Iterable[str], width: int) -> list[Table | Text]:
    """A line a run, in so many columns, and what all runs share.

    Shown are the settings in which the runs differ, what was measured, and the keys `more`.
    """
    common = [key for key in (*SETTINGS, "teacher_top1") if runs[key].nunique(dropna=False) == 1]
    shown = [key for key in (*SETTINGS, *MEASURED) if key not in common and runs[key].notna().any()]
    shown += [key for key in dict.fromkeys(more) if key not in (*common, *shown, "hash", "path")]
    columns = {"hash": Column([str(value)[:8] for value in runs["hash"]], left=True)}
    columns |= {key: _run_column(runs[key]) for key in shown}
    shared = ", ".join(f"{key}={runs[key].iloc[0]}" for key in common)
    return [*_table(columns, width), *([_safe(f"all: {shared}")] if shared else [])]


def select(runs: pd.DataFrame, where: str) -> pd.DataFrame:
    """The runs for which all conditions in `where` hold, as "model=vgg16,centroids>=8".

    Raises:
        UserError: what is no condition, a key that runs do not have (the message has the nearest), or a value that
            does not go with the key.

    """
    for condition in filter(None, where.split(",")):
        runs = runs[_holds(runs, *_parsed(condition))]
    return runs


def order(runs: pd.DataFrame, key: str) -> pd.DataFrame:
    """The runs by `key`, rising; those that have no value for it come last.

    Raises:
        UserError: a key that runs do not have (the message has the nearest).

    """
    return runs.sort_values(_known(runs, key), kind="stable", na_position="last")


def keys_in(where: str) -> list[str]:
    """The keys that the conditions in `where` are about."""
    return [_parsed(condition)[0] for condition in filter(None, where.split(","))]


_DISPENSABLE = (  # in this order where there is no room
    *("method", "share", "size_reduction", "teacher_top1", "conventional_top1", "quantized_top1"),
    *("experiment", "seed", "storage", "data"),
)
_CONDITION = re.compile(r"\s*(\w+)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*")
_OPERATORS: dict[str, Callable[[pd.Series, float | str], pd.Series]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _parsed(condition: str) -> tuple[str, str, str]:
    """Key, operator, value."""
    found = _CONDITION.fullmatch(condition)
    if not found:
        raise UserError(f"{condition!r} is no condition: write a key, one of {' '.join(_OPERATORS)}, and a value")
    return found[1], found[2], found[3]


def _holds(runs: pd.DataFrame, key: str, sign: str, value: str) -> pd.Series:
    column = runs[_known(runs, key)]
    if _is_number(column) or column.isna().all():
        return _OPERATORS[sign](column.astype(float), _parsed_number(key, value))
    if sign not in ("=", "!="):
        raise UserError(f"{key} is text, which {sign} does not order: use {key}=... or {key}!=...")
    return _OPERATORS[sign](column.astype(str), value)


def _known(runs: pd.DataFrame, key: str) -> str:
    if key not in runs:
        raise UserError(f"runs have no key {key!r}{did_you_mean(key, map(str, runs))}")
    return key


def _parsed_number(key: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise UserError(f"{key} is a number, and {value!r} is none") from error


def _is_number(column: pd.Series) -> bool:
    return column.dtype.kind in "iuf"


_COLUMNS: dict[str, Callable[[StoredTensor], str]] = {
    "layer": lambda tensor: _count(tensor.layer),
    "kind": lambda tensor: tensor.kind or "",
    "tensor": lambda tensor: tensor.name,
    "shape": lambda tensor: _shape(tensor.shape),
    "k": lambda tensor: _count(tensor.centroids),
    "method": lambda tensor: tensor.method or "",
    "bits": lambda tensor: _bits(tensor.bits_per_weight),
    "entropy": lambda tensor: _bits(tensor.entropy_bits),
    "bytes": lambda tensor: _count(tensor.bytes),
    "share": lambda tensor: _percent(tensor.share),
}
_TEXT = ("kind", "tensor", "shape", "method")
_LEGEND = (
    "k: centroids, where clustered; bits: on disk per weight, with the centroids;\n"
    "entropy: of the indices, in bits per weight; share: of the file, in %\n"
)
_LEFT_OUT_IF_EMPTY = ("layer", "kind", "method")


def _facts(inspection: Inspection) -> Table:
    network = ", ".join(f"{key}={value}" for key, value in (inspection.architecture or {}).items())
    facts = {
        "file": inspection.file,
        "size": f"{inspection.bytes:,} bytes",
        "format": f"{inspection.format}, storage {inspection.storage}",
        "network": network or "the file does not say",
    }
    if inspection.architecture and inspection.layers_unknown:
        facts["layers"] = f"not known: {inspection.layers_unknown}"
    return _pairs([*facts.items(), *_told(inspection.provenance or {})])


def _told(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Provenance but for the methods, which have a column."""
    for key, value in provenance.items():
        if key != "methods":
            yield key, value if isinstance(value, str) else json.dumps(value)


def _tensors(tensors: Sequence[StoredTensor], width: int) -> list[Table | Text]:
    columns = {
        heading: Column([value(tensor) for tensor in tensors], heading in _TEXT, 12 if heading == "tensor" else None)
        for heading, value in _COLUMNS.items()
    }
    return _table(
        {h: column for h, column in columns.items() if any(column.cells) or h not in _LEFT_OUT_IF_EMPTY}, width
    )


def _parts(inspection: Inspection) -> list[Table | Text]:
    parts = inspection.parts | {"file": inspection.bytes}
    sizes, shares = map(_count, parts.values()), (_percent(size / inspection.bytes) for size in parts.values())
    return _table({"part": Column(list(parts), left=True), "bytes": Column(list(sizes)), "share": Column(list(shares))})


def _compared(tensors: Sequence[TensorDifference], width: int) -> list[Table | Text]:
    forms = [_forms(tensor.before, tensor.after) for tensor in tensors]
    columns = {
        "tensor": Column([tensor.name for tensor in tensors], left=True, fold=12),
        "": Column(["equal" if tensor.equal else "differs" for tensor in tensors], left=True),
        "A": Column([before for before, _ in forms], left=True, fold=9),
        "B": Column([after for _, after in forms], left=True, fold=9),
        "largest difference": Column(["" if t.equal or t.largest is None else f"{t.largest:.3g}" for t in tensors]),
        "indices changed %": Column(["" if t.equal else _percent(t.indices_changed) for t in tensors]),
    }
    return _table(columns, width)


def _forms(before: Form | None, after: Form | None) -> tuple[str, str]:
    """With shape and element type only where they differ."""
    whole = before is not None and after is not None and not before.like(after)
    return _form(before, whole), _form(after, whole)


def _form(form: Form | None, whole: bool) -> str:
    if form is None:
        return "not there"
    stored = f"k = {form.centroids}" if form.centroids else "dense"
    return f"{stored}, {_shape(form.shape)} {form.dtype}" if whole else stored


def _sides(before: Archive, after: Archive) -> list[Table | Text]:
    parts = list(before.report.parts)
    sides = {side: _side(archive, parts) for side, archive in (("A", before), ("B", after))}
    return _table({"bytes": Column(["storage", *parts, "file"], left=True), **sides})


def _side(archive: Archive, parts: Sequence[str]) -> Column:
    report = archive.report
    return Column([archive.storage, *(_count(report.parts[part]) for part in parts), _count(report.bytes)])


def _verdict(difference: Difference) -> Text:
    if difference.equal:
        return Text("Equal: both hold the same network.")
    different = sum(not tensor.equal for tensor in difference.tensors)
    text = f"{different} of {len(difference.tensors)} tensors differ."
    if difference.before.architecture != difference.after.architecture:
        described = (json.dumps(side.architecture) for side in (difference.before, difference.after))
        text += "\nThe networks are described differently:\nA: {}\nB: {}".format(*described)
    return Text(text)


def _pairs(pairs: Iterable[tuple[str, str]]) -> Table:
    """A line each: what, and its value."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in pairs:
        table.add_row(_safe(key), _safe(value))
    return table


def _table(columns: Mapping[str, Column], width: int = PIPE_WIDTH) -> list[Table | Text]:
    """The table, so that no number is cut; where `width` does not do, a line says which columns had no room."""
    narrow = sum(column.width(heading) + 2 for heading, column in columns.items()) > width
    shown = _fitting(columns, width) if narrow else columns
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0 if narrow else 1, 0, 0))
    for heading, column in shown.items():
        label = Text("\n".join(column.label(heading, NARROW if narrow else PIPE_WIDTH)))
        justify: Literal["left", "right"] = "left" if column.left else "right"
        table.add_column(label, justify=justify, no_wrap=column.fold is None, overflow="fold")
    for row in zip(*(column.cells for column in shown.values()), strict=True):
        table.add_row(*map(_safe, row))
    missing = ", ".join(heading for heading in columns if heading not in shown)
    return [table, Text(f"no room for: {missing}")] if missing else [table]


def _fitting(columns: Mapping[str, Column], width: int) -> dict[str, Column]:
    """The columns, folded, less as many of the dispensable ones as there is no room for."""
    fitting = dict(columns)
    for heading in _DISPENSABLE:
        if sum(column.least_width(heading) + 1 for heading, column in fitting.items()) > width:
            fitting.pop(heading, None)
    return fitting


def _safe(text: str) -> Text:
    """Text from a file: no markup, and nothing that a terminal would obey."""
    return Text("".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text))


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _count(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


def _bits(bits: float | None) -> str:
    return "" if bits is None else f"{bits:.2f}"


def _run_column(values: pd.Series) -> Column:
    is_text = not _is_number(values)
    return Column([_cell(str(values.name), value) for value in values], is_text, NARROW if is_text else None)


def _cell(key: str, value: Any) -> str:
    """A value in the table of runs, which holds counts as floats, and None as NaN, where a run lacks one."""
    if isinstance(value, str):
        return value
    if value is None or math.isnan(value):
        return ""
    if key in SETTINGS:
        return f"{value:g}"
    whole = float(value).is_integer() and abs(value) > 1
    return f"{value:,.0f}" if whole else f"{value:.4f}"
