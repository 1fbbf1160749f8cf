"""Figures 6 and 11: how many weights and biases each layer has, on a linear and on a logarithmic axis."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from requant.figures.style import COLUMN

FORMS = {"imagenet": ("ImageNet form", "0.65"), "cifar10": ("CIFAR-10 form, ¼ width", "0.2")}


def draw_counts(table: pd.DataFrame) -> Figure:
    """Weights of both forms of a network, linear above, logarithmic with the biases below.

    `table` has the columns of `requant.layer_table`, and `form`: imagenet and cifar10.
    """
    figure = Figure(figsize=(COLUMN, 3.6), layout="constrained")
    linear, logarithmic = figure.subplots(2, 1, sharex=True)
    for form, (label, grey) in FORMS.items():
        layers = table[table["form"] == form].groupby("layer")[["weights", "biases"]].sum()
        linear.bar(layers.index, layers["weights"] / 1e6, color=grey, label=label, width=0.8)
        logarithmic.bar(layers.index, layers["weights"], color=grey, width=0.8)
        _draw_biases(logarithmic, layers["biases"], grey)
    linear.set_ylabel("weights (millions)")
    linear.legend(frameon=False, fontsize=7, loc="upper left")
    logarithmic.set_yscale("log")
    logarithmic.set_ylabel("weights (bars)\nbiases (diamonds)")
    logarithmic.set_xlabel("layer")
    logarithmic.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _draw_biases(axes: Axes, biases: pd.Series, grey: str) -> None:
    some = biases[biases > 0]
    axes.plot(some.index, some, "D", color="white", markeredgecolor="black", mfc="white" if grey > "0.5" else "black",
              markersize=3)  # fmt: skip
