"""Codebooks of other forms, as tensors that every storage knows: a table of indices, and what they stand for.

In the manifest such a tensor is clustered, its `shape` that of its indices, and has a key `codes`:

{"kind": "table", "shape": [8, 4], "dtype": "float32", "run": null, "split": false}

`shape` and `dtype` are those of the network's tensor. Beside it stand other entries, named after it:

- `kind` grouped: `<name>:tables`, (G, k) float32, the centroids of each `run` of values (row-major order); the last
  run may be shorter;
- scaled: `<name>:scales`, (G,) float32, the factor of each run's centroids;
- vectors: `<name>:vectors`, (k, d) float32; an index stands for d values;
- trellis (version 3): none; an index stands for one of two values, as `requant.codebook_trellis` says; where the
  trellis has more than 8 states, a key `states` says how many (version 6);
- table: none; it is there for another element type, or where the tensor is split;
- split: true: `<name>:sources`, (E,) int32: all that was said is true of a tensor with E more input channels (dimension
  1) at the end, each to be added to the one that `sources` names.

A key `factored`, true where it is there, says that all that was said is true of two factors (O + I, r), one above the
other, of a tensor of `shape` (O, I): the first O rows times the transposed last I are its values, summed in float64.

Of grouped and vectors the centroids of the entry itself mean nothing: they are ranks about 0.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from requant.archive.manifest import DTYPES, STATES, TRELLIS, Manifest
from requant.archive.report import TensorBytes
from requant.codebook import Codebook
from requant.codebook_factors import FactoredCodebook
from requant.codebook_forms import AnyCodebook, GroupedCodebook, SplitCodebook, Unsplit, VectorCodebook
from requant.codebook_trellis import TrellisCodebook
from requant.errors import ArchiveError
from requant.trellis import CODES, FEWEST

PARTS = {"table": "", "grouped": "tables", "scaled": "scales", "vectors": "vectors", TRELLIS: ""}
SOURCES = "sources"
FACTORED = "factored"
KEYS = {"kind": str, "shape": list, "dtype": str, "run": int | None, "split": bool}

Form: TypeAlias = dict[str, Any] | None


@dataclass(frozen=True)
class Lowered:
    """A tensor as a storage sees it, and its form; `sides` are the entries beside it, by what follows the colon."""

    tensor: Codebook | NDArray[Any]
    form: Form
    sides: dict[str, NDArray[Any]]


def lowered(tensor: AnyCodebook | NDArray[Any]) -> Lowered:
    """What is to be stored of a tensor."""
    if isinstance(tensor, np.ndarray) or (isinstance(tensor, Codebook) and tensor.dtype == np.float32):
        return Lowered(tensor, None, {})
    inner = tensor.inner if isinstance(tensor, SplitCodebook | FactoredCodebook) else tensor
    kind, codes, sides = _parts(inner)
    if isinstance(tensor, SplitCodebook):
        sides[SOURCES] = tensor.sources.astype(np.int32)
    run = inner.run if isinstance(inner, GroupedCodebook) else None
    split = isinstance(tensor, SplitCodebook)
    form = {"kind": kind, "shape": list(tensor.shape), "dtype": tensor.dtype.name, "run": run, "split": split}
    form |= {FACTORED: True} if isinstance(tensor, FactoredCodebook) else {}
    form |= {STATES: inner.states} if isinstance(inner, TrellisCodebook) and inner.states != FEWEST else {}
    return Lowered(codes, form, sides)


def _parts(book: Unsplit | TrellisCodebook) -> tuple[str, Codebook, dict[str, NDArray[Any]]]:
    if isinstance(book, Codebook):
        return "table", Codebook(book.centroids, book.indices), {}
    if isinstance(book, TrellisCodebook):
        return TRELLIS, Codebook(book.table, book.indices), {}
    if isinstance(book, VectorCodebook):
        return "vectors", Codebook(_ranks(book.k), book.indices), {"vectors": book.centroids}
    if book.scales is None:
        return "grouped", Codebook(_ranks(book.k), book.indices), {"tables": book.tables}
    return "scaled", Codebook(book.tables[0], book.indices), {"scales": book.scales}


def _ranks(k: int) -> NDArray[np.float32]:
    """About 0, so that a probability model finds the outer indices rare; exact in 16 bits."""
    return (np.arange(k) - k // 2).astype(np.float32)


def to_arrays(book: AnyCodebook) -> dict[str, NDArray[Any]]:
    """The codebook as named arrays, its form as JSON in one of them."""
    found = lowered(book)
    assert isinstance(found.tensor, Codebook)
    form = np.frombuffer(json.dumps(found.form).encode(), np.uint8).copy()
    return {"centroids": found.tensor.centroids, "indices": found.tensor.indices, "form": form, **found.sides}


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> AnyCodebook:
    """Back from `to_arrays`."""
    codes: Any = Codebook(arrays["centroids"], arrays["indices"])
    form = json.loads(arrays["form"].tobytes())
    book: AnyCodebook = codes
    return book if form is None else _raised("", codes, form, {f":{part}": side for part, side in arrays.items()})


def raised(manifest: Manifest, stored: Mapping[str, Codebook | NDArray[Any]]) -> dict[str, AnyCodebook | NDArray[Any]]:
    """The network's tensors from those of the manifest.

    Raises:
        ArchiveError: for forms that are none, or that do not fit what stands beside them.

    """
    sides = _side_names(manifest)
    found: dict[str, AnyCodebook | NDArray[Any]] = {}
    for entry in manifest.tensors:
        if entry.name in sides:
            continue
        tensor = stored[entry.name]
        found[entry.name] = tensor if entry.codes is None else _raised(entry.name, tensor, entry.codes, stored)
    return found


def _raised(name: str, codes: Any, form: dict[str, Any], stored: Mapping[str, Any]) -> AnyCodebook:
    dtype, shape = np.dtype(DTYPES[form["dtype"]].type), tuple(form["shape"])
    sources = np.empty(0, np.uint32)
    if form["split"]:
        if stored[f"{name}:{SOURCES}"].dtype != np.int32:
            raise ArchiveError(f"its split channels of {name} are no whole numbers")
        sources = stored[f"{name}:{SOURCES}"].astype(np.uint32)
        shape = (shape[0], shape[1] + sources.size, *shape[2:])
    side: Any = stored.get(f"{name}:{PARTS[form['kind']]}")
    factored = FACTORED in form
    try:
        if factored:
            shape = (sum(shape), codes.indices.shape[1] * (side.shape[1] if form["kind"] == "vectors" else 1))
        inner: Any = _built(form, codes, side, shape, dtype)
        book: AnyCodebook = SplitCodebook(inner, sources) if form["split"] else inner
        book = FactoredCodebook(inner, tuple(form["shape"])) if factored else book
    except (ValueError, IndexError) as error:
        raise ArchiveError(f"its tensor {name} does not fit its form: {error}") from error
    if list(book.shape) != form["shape"]:
        raise ArchiveError(f"its tensor {name} has shape {book.shape}, and its form {form['shape']}")
    return book


def _built(
    form: dict[str, Any], codes: Codebook, side: Any, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Unsplit | TrellisCodebook:
    kind, run = form["kind"], form["run"]
    if kind == TRELLIS:
        return TrellisCodebook(codes.centroids, codes.indices, dtype, form.get(STATES, FEWEST))
    if kind == "vectors":
        return VectorCodebook(side, codes.indices, shape, dtype)
    if kind == "table":
        return Codebook(codes.centroids, codes.indices, dtype)
    if kind == "grouped":
        return GroupedCodebook(side, codes.indices, run or 1, None, dtype)
    return GroupedCodebook(codes.centroids[None], codes.indices, run or 1, side, dtype)


def check_forms(manifest: Manifest) -> None:
    """Raise ArchiveError for forms that are none, or lack what must stand beside them."""
    for entry in manifest.tensors:
        if entry.codes is not None:
            _check_form(entry.name, entry.codes)
    _side_names(manifest)


def _check_form(name: str, form: dict[str, Any]) -> None:
    """Raise ArchiveError for what is no form."""
    known = set(KEYS) | ({FACTORED} if form.get(FACTORED) is True and not form.get("split") else set())
    known |= {STATES} if form.get("kind") == TRELLIS and _are_more(form.get(STATES)) else set()
    fits = set(form) == known and all(isinstance(form[key], kind) for key, kind in KEYS.items())
    if not fits or form["kind"] not in PARTS or form["dtype"] not in ("float16", "float32", "float64"):
        raise ArchiveError(f"its manifest gives {name} codes of no known form")
    if not all(type(size) is int and 0 <= size < 1 << 48 for size in form["shape"]):
        raise ArchiveError(f"its manifest gives {name} the shape {form['shape']}")
    if (form["run"] is None) == (form["kind"] in ("grouped", "scaled")) or (
        form["run"] is not None and form["run"] < 1
    ):
        raise ArchiveError(f"its manifest gives {name} groups of {form['run']} values")
    if form["kind"] == TRELLIS and (form["split"] or FACTORED in form):
        raise ArchiveError(f"its manifest gives {name} a trellis in parts")
    if form["split"] and len(form["shape"]) < 2:
        raise ArchiveError(f"its manifest gives {name} split channels, and it has none")


def _are_more(states: object) -> bool:
    return type(states) is int and states in CODES and states != FEWEST


def _sides(name: str, form: dict[str, Any]) -> Iterator[str]:
    """The entries that stand beside one of this form."""
    if part := PARTS[form["kind"]]:
        yield f"{name}:{part}"
    if form["split"]:
        yield f"{name}:{SOURCES}"


def _side_names(manifest: Manifest) -> dict[str, str]:
    """Each side entry, with the tensor it stands beside."""
    owners = {side: entry.name for entry in manifest.tensors if entry.codes for side in _sides(entry.name, entry.codes)}
    names = {entry.name for entry in manifest.tensors if entry.centroids is None}
    if missing := [side for side in owners if side not in names]:
        raise ArchiveError(f"its manifest lacks {missing[0]}")
    return owners


def merged(manifest: Manifest, measured: Mapping[str, TensorBytes]) -> dict[str, TensorBytes]:
    """Bytes by the network's tensors: what stands beside one counts as its codebook."""
    owners = _side_names(manifest)
    found = {name: size for name, size in measured.items() if name not in owners}
    for side, owner in owners.items():
        own = found[owner]
        found[owner] = TensorBytes(own.indices, own.codebooks + measured[side].total, own.dense)
    return found
