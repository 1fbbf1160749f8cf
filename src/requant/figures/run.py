"""One run as a picture: size, accuracy, and the accuracy of each epoch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from requant.figures.style import COLOURS, HATCHES, MARKERS, PAGE, style
from requant.results import STAGES, STUDENTS, described, images, measure

_PARTS = {"indices": "0.25", "codebooks": "0.85", "dense": "0.55", "overhead": "1.0"}
LABEL_HEIGHT = 7.0  # in percent of the axis


def draw_run(result: Mapping[str, Any], path: Path) -> None:
    """Draw a result.json's content to `path` (the suffix chooses the format)."""
    with style():
        figure = Figure(figsize=(PAGE, 2.5), layout="constrained")
        size, parts, accuracy, curve = figure.subplots(1, 4, width_ratios=[0.8, 0.9, 1, 1.4])
        _draw_size(size, result["size"])
        _draw_parts(parts, result["size"])
        config = result["config"]
        _draw_accuracy(accuracy, result["accuracy"], measure(config))
        _draw_curve(curve, result)
        figure.suptitle(f"{config['model']['name']} on {images(config)}, {described(config)}", fontsize=9)
        figure.savefig(path)


def _draw_size(axes: Axes, size: Mapping[str, Any]) -> None:
    scale, unit = (1e6, "MB") if size["original_bytes"] >= 1e6 else (1e3, "kB")
    axes.bar([0], [size["original_bytes"] / scale], color=COLOURS["teacher"], width=0.6)
    stored = size["original_bytes"] * (1 - size["size_reduction"]) / scale
    axes.bar([1], [stored], color=COLOURS["retrained"], width=0.6)
    axes.set_xticks([0, 1], ["original", "stored"])
    axes.set_ylabel(f"size ({unit})")
    reduction = f"−{100 * size['size_reduction']:.1f} %"
    axes.annotate(reduction, (1, stored), (0, 3), textcoords="offset points", ha="center")


def _draw_parts(axes: Axes, size: Mapping[str, Any]) -> None:
    """The stored file's bytes by part; labels that would lie on one another are moved up."""
    total, bottom = sum(size["parts"].values()), 0.0
    lowest = -LABEL_HEIGHT
    for part, grey in _PARTS.items():
        share = 100 * size["parts"][part] / total
        axes.bar([0], [share], bottom=bottom, color=grey, edgecolor="black", linewidth=0.5, width=0.5)
        lowest = max(lowest + LABEL_HEIGHT, bottom + share / 2)
        axes.text(0.4, lowest, f"{part} {share:.1f} %", fontsize=6.5, va="center")
        bottom += share
    axes.set_xlim(-0.3, 2.2)
    axes.set_ylim(0, max(108, lowest + LABEL_HEIGHT))
    axes.set_xticks([0], ["stored"])
    axes.set_ylabel("share of the file (%)")


def _draw_accuracy(axes: Axes, accuracy: Mapping[str, Any], measured: str) -> None:
    names = [name for name in STUDENTS if name in accuracy]
    for x, name in enumerate(names):
        height = 100 * accuracy[name]["top1"]
        axes.bar([x], [height], color=COLOURS[name], hatch=HATCHES[name], edgecolor="white", width=0.7)
        axes.annotate(f"{height:.1f}", (x, max(height, 0)), (0, 2), textcoords="offset points", ha="center", fontsize=7)
    axes.set_xticks(range(len(names)), names, rotation=25, ha="right", rotation_mode="anchor")
    axes.set_ylim(0, 108)  # what is worse than guessing the mean has its number alone
    axes.set_ylabel(f"{measured} (%), n = {accuracy['teacher']['n']:,}")


def _draw_curve(axes: Axes, result: Mapping[str, Any]) -> None:
    accuracy = result["accuracy"]
    start = 100 * accuracy["quantized"]["top1"]
    axes.axhline(100 * accuracy["teacher"]["top1"], color=COLOURS["teacher"], linestyle=":", linewidth=1)
    axes.annotate("teacher", (0, 100 * accuracy["teacher"]["top1"]), (2, 2), textcoords="offset points", fontsize=7)
    for name, key in STAGES.items():
        if key in result:
            curve = result[key]["curve"]
            curve = curve or [{"epoch": 1, "top1": accuracy[name]["top1"]}]  # of a reconstruction: one pass
            epochs = [0, *(entry["epoch"] for entry in curve)]
            top1 = [start, *(100 * entry["top1"] for entry in curve)]
            label = "with labels" if result["config"][key]["method"] == "conventional" else "without labels"
            line = "-" if name == "retrained" else "--"
            axes.plot(epochs, top1, line, color=COLOURS[name], marker=MARKERS[name], markersize=3, label=label)
    axes.plot([0], [start], MARKERS["quantized"], color=COLOURS["quantized"])
    axes.annotate("quantized", (0, start), (6, 0), textcoords="offset points", fontsize=7, va="center")
    axes.set_ylim(bottom=max(axes.get_ylim()[0], 0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch of retraining")
    axes.set_ylabel(f"{measure(result['config'])} (%)")
    if "retrain" in result:
        axes.legend(frameon=False, loc="best", fontsize=7)
