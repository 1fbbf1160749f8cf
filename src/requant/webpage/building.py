"""From result.json files to one HTML page: the runs as JSON, the page's own script and style, and plotly's."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from requant.errors import UserError
from requant.files import write_text
from requant.layout import RESULT
from requant.results import STAGES, final, flattened, read_run

_CURVE = ("epoch", "loss", "top1")
_TENSOR = ("layer", "kind", "name", "values", "centroids", "method", "bytes", "entropy_bits")


def write_page(folder: Path, out: Path) -> int:
    """Write the page of all runs below `folder` to `out`; returns how many runs it shows.

    Raises:
        UserError: there is no run, one cannot be read, or plotly is missing.

    """
    runs = [run_of(path, folder) for path in sorted(folder.rglob(RESULT))]
    if not runs:
        raise UserError(f"there is no result.json below {folder}: name the folder that runs were written to (out=)")
    write_text(out, build(runs, str(folder)))
    return len(runs)


def run_of(path: Path, folder: Path) -> dict[str, Any]:
    """What the page shows of one result.json; `id`, its path below `folder`, tells runs apart."""
    result, row = read_run(path)
    return {
        "id": path.parent.relative_to(folder).as_posix(),
        "row": final(row),
        "curves": {name: _columns(result[key]["curve"], _CURVE) for name, key in STAGES.items() if key in result},
        "tensors": _columns(result.get("plan", []), _TENSOR),
        "parts": result.get("size", {}).get("parts", {}),
        "settings": flattened(result["config"]),
        "made_with": flattened({key: result.get(key) for key in ("git", "versions", "machine", "seconds")}),
    }


def build(runs: Sequence[Mapping[str, Any]], title: str) -> str:
    """The page of these runs (see `run_of`), as text.

    Raises:
        UserError: plotly is not installed.

    """
    page = _asset("page.html")
    for mark, text in {
        "title": escape(title),
        "style": _asset("page.css"),
        "plotly": _plotly(),
        "script": _asset("page.js"),
        "runs": embedded(runs),
    }.items():  # the runs last: whatever is in them, nothing looks for marks there
        before, _, after = page.partition(f"@@{mark}@@")
        page = before + text + after
    return page


def embedded(value: Any) -> str:
    """A value as JSON that stands in a script element as it is: no "<" that could end it, no NaN that JSON lacks."""
    return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _columns(records: Iterable[Mapping[str, Any]], keys: Iterable[str]) -> dict[str, list[Any]]:
    """Records of equal keys as one list a key, which takes a third of the bytes."""
    return {key: [record.get(key) for record in records] for key in keys}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _asset(name: str) -> str:
    return (files("requant.webpage") / name).read_text(encoding="utf-8")


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise UserError("the page is drawn by plotly, which is not installed: pip install 'requant[report]'") from error
    script: str = get_plotlyjs()
    return script
