"""A run as a table on the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from requant.layout import POINTS
from requant.progress import console
from requant.results import STUDENTS, bytes_of, described, images, measure
from requant.studied import changes, read_points, rules
from requant.study_table import study_table


def print_result(result: Mapping[str, Any], folder: Path) -> None:
    """The table of one run, or one study, and the paths of what it wrote."""
    if (folder / POINTS).exists():
        points = read_points(folder / POINTS)
        console.print(study_table(result, points))
        if plan := rules(changes(points)):
            console.print("As a plan, each as it is borne alone (together they cost more):")
            console.print(f"  '{plan}'", soft_wrap=True, highlight=False, markup=False)
    else:
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
    columns = dict(COLUMNS[measure(config)])
    if config["model"].get("outputs") == "sigmoid":
        columns["correct"] = "same yes or no"
    for heading in ("", "bytes", "size", *columns.values()):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    for name in STUDENTS:
        if name in result["accuracy"]:
            figures = _figures(result["accuracy"][name])
            table.add_row(name, *_sizes(result, name), *(figures[column] for column in columns))
    return table


COLUMNS = {
    "top-1": {"top1": "top-1", "correct": "correct", "agreement": "agrees", "kl": "KL", "worst": "worst"},
    "agreement": {"correct": "same class", "agreement": "agrees", "kl": "KL"},
    "variance explained": {"top1": "explained"},
}
"""By what a run measured, the figures that are shown, and their headings."""


def _sizes(result: Mapping[str, Any], name: str) -> tuple[str, str]:
    if "size" not in result:
        return "", ""
    count = bytes_of(result["size"], name)
    return f"{count:,}", _percent(count / result["size"]["original_bytes"])


def _figures(accuracy: Mapping[str, Any]) -> dict[str, str]:
    worst, correct = accuracy["worst_class"], accuracy["correct"]
    return {
        "top1": _percent(accuracy["top1"]),
        "correct": "" if correct is None else f"{correct:,}",
        "agreement": _percent(accuracy["agreement"]),
        "kl": "" if accuracy["kl"] is None else f"{accuracy['kl']:.4f}",
        "worst": "" if worst is None else _percent(worst["top1"]),
    }


def _caption(result: Mapping[str, Any]) -> str:
    shown, distance = CAPTIONS[measure(result["config"])]
    lines = [f"n = {_counted(result)} {shown}"]
    if "size" in result:
        lines[0] += ", size against float32" + ("," if distance else "")
        lines += [distance] if distance else []
        lines.append(f"size reduced by {_percent(result['size']['size_reduction'])} %")
    if result.get("retrain", {}).get("undone"):
        lines.append("training moved the network away and was undone: this is what it began with")
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in result["seconds"].items())
    return "\n".join([*lines, seconds])


CAPTIONS = {
    "top-1": (
        "images; in %: top-1, that of the worst class",
        "agreement with the teacher; KL from the teacher in nats",
    ),
    "agreement": ("images without labels, held out; in %: agreement with the teacher", "KL from the teacher in nats"),
    "variance explained": ("images without labels, held out; in %: variance of the teacher's outputs explained", ""),
}
"""By what a run measured, what the columns hold that are in % and that are not."""


def _counted(result: Mapping[str, Any]) -> str:
    """How many images, and where each has more than one output that counts, of how many of these."""
    n = result["accuracy"]["teacher"]["n"]
    images = result.get("images", {}).get("test", {}).get("n", n)
    return f"{n:,}" if images == n else f"{n:,} outputs of {images:,}"


def _percent(fraction: float | None) -> str:
    """As the columns headed % hold it."""
    return "" if fraction is None else f"{100 * fraction:.2f}"
