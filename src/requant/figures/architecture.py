"""Figures 5 and 10: a network from top to bottom, with the shapes and the number of values of each layer or block."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from requant.figures.style import COLUMN

_FORMS = {"imagenet": ("o", "white"), "cifar10": ("o", "0.25")}


def draw_architecture(table: pd.DataFrame) -> Figure:
    """A row a layer (VGG) or block (ResNet): what it computes, the images it gives, its weights and biases.

    `table` has the columns of `requant.layer_table`, and `form`: imagenet and cifar10.
    """
    ours, large = (_blocks(table[table["form"] == form]) for form in ("cifar10", "imagenet"))
    figure = Figure(figsize=(COLUMN, 0.6 + 0.19 * len(ours)), layout="constrained")
    axes = figure.subplots()
    for form, blocks in (("imagenet", large), ("cifar10", ours)):
        marker, face = _FORMS[form]
        label = {"imagenet": "ImageNet", "cifar10": "CIFAR-10, ¼ width"}[form]
        axes.plot(blocks["values"], range(len(blocks)), marker, color="black", mfc=face, markersize=4, label=label)
    axes.hlines(range(len(ours)), ours["values"], large["values"], color="0.6", linewidth=0.7, zorder=0)
    _label_rows(axes, ours)
    axes.set_xscale("log")
    axes.set_xlabel("weights and biases")
    axes.set_ylim(len(ours) - 0.4, -0.6)
    figure.legend(fontsize=6.5, loc="outside upper right", ncols=2, frameon=False)
    return figure


def _label_rows(axes: Axes, blocks: pd.DataFrame) -> None:
    columns = [blocks[name].str.ljust(blocks[name].str.len().max() + 2) for name in ("layers", "kernels", "output")]
    labels = columns[0] + columns[1] + columns[2].str.strip().str.rjust(columns[2].str.len().max() - 2)
    axes.set_yticks(range(len(blocks)), labels, fontsize=5.5, family="DejaVu Sans Mono")
    axes.tick_params(axis="y", length=0)
    stages = blocks["height"].ne(blocks["height"].shift())
    for row in stages[stages].index[1:]:
        axes.axhline(row - 0.5, color="0.8", linewidth=0.6)


def _blocks(table: pd.DataFrame) -> pd.DataFrame:
    grouped = [rows for _, rows in table.groupby("block", sort=False)]
    return pd.DataFrame([_block(rows) for rows in grouped])


def _block(rows: pd.DataFrame) -> dict[str, object]:
    path = rows[rows["operation"] != "shortcut"]
    first, last = path.iloc[0], path.iloc[-1]
    numbers = f"{first['layer']}" if len(path) == 1 else f"{first['layer']}–{last['layer']}"
    kernels = ", ".join("full" if kernel == 0 else f"{kernel}×{kernel}" for kernel in path["kernel"])
    projected = "+" if len(rows) > len(path) else ""
    shape = f"{last['channels_out']}" if not last["kernel"] else f"{last['channels_out']} @ {last['height']}²"
    return {
        "layers": numbers,
        "kernels": kernels + projected,
        "output": shape,
        "height": last["height"],
        "values": int(rows["weights"].sum() + rows["biases"].sum()),
    }
