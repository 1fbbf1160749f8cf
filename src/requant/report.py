"""A run as a table on the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from requant.progress import console
from requant.results import STUDENTS, bytes_of, described, images, measure


def print_result(result: Mapping[str, Any], folder: Path) -> None:
    """The table of one run and the paths of what it wrote."""
    console.print(result_table(result))
    console.print("Written:")
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        if "wandb" not in path.parts:
            console.print(f"  {path}", soft_wrap=True, highlight=False)


def result_table(result: Mapping[str, Any]) -> Table:
    """A line each for teacher, quantized, retrained, conventional."""
    config = result["config"]
    title = f"{config['model']['name']} on {images(config)}"
    if "size" in result:
        title += f": {described(config)}, {config['storage']['method']}"
    table = Table(
        title=title,
        title_justify="left",
        caption_justify="left",
        caption=_caption(result),
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    headings = ("same class", "agrees", "KL") if _unlabeled(result) else ("top-1", "correct", "agrees", "KL", "worst")
    for heading in ("", "bytes", "size", *headings):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    for name in STUDENTS:
        if name in result["accuracy"]:
            figures = _figures(result["accuracy"][name])
            table.add_row(name, *_sizes(result, name), *(figures[1:4] if _unlabeled(result) else figures))
    return table


def _unlabeled(result: Mapping[str, Any]) -> bool:
    return measure(result["config"]) == "agreement"


def _sizes(result: Mapping[str, Any], name: str) -> tuple[str, str]:
    if "size" not in result:
        return "", ""
    count = bytes_of(result["size"], name)
    return f"{count:,}", _percent(count / result["size"]["original_bytes"])


def _figures(accuracy: Mapping[str, Any]) -> tuple[str, ...]:
    worst = accuracy["worst_class"]
    return (
        _percent(accuracy["top1"]),
        f"{accuracy['correct']:,}",
        _percent(accuracy["agreement"]),
        "" if accuracy["kl"] is None else f"{accuracy['kl']:.4f}",
        _percent(worst["top1"]),
    )


def _caption(result: Mapping[str, Any]) -> str:
    n = f"n = {result['accuracy']['teacher']['n']:,}"
    lines = [f"{n} images; in %: top-1, that of the worst class"]
    if _unlabeled(result):
        lines = [f"{n} images without labels, held out; in %: agreement with the teacher"]
    if "size" in result:
        lines[0] += ", size against float32,"
        lines.append("" if _unlabeled(result) else "agreement with the teacher; ")
        lines[-1] += "KL from the teacher in nats"
        lines.append(f"size reduced by {_percent(result['size']['size_reduction'])} %")
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in result["seconds"].items())
    return "\n".join([*lines, seconds])


def _percent(fraction: float | None) -> str:
    """As the columns headed % hold it."""
    return "" if fraction is None else f"{100 * fraction:.2f}"
