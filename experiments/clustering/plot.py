"""Draw the figures: python experiments/clustering/plot.py.

error_against_k.png and error_against_bits.png from results.csv, accuracy_by_form.png from forms.csv.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from requant.figures.style import PAGE, style

HERE = Path(__file__).parent
METHODS = {
    "equal_population": ("equal population (the paper's)", "s"),
    "linear": ("linear", "^"),
    "faiss": ("faiss.Kmeans, all points", "D"),
    "kmeans": ("kmeans", "o"),
    "exact": ("exact", "+"),
    "entropy": ("entropy", "v"),
}
COLOURS = dict(zip(METHODS, sns.color_palette("colorblind"), strict=False)) | {"exact": "black"}
FORMS = {
    "tensor": ("k-means, a table a tensor", "o"),
    "channel": ("a table a channel", "s"),
    "channel_scale": ("a factor a channel", "^"),
    "group:4096": ("a table for 4,096 values", "D"),
    "group_scale:128": ("a factor for 128 values", "v"),
    "product": ("vectors", "P"),
    "linear": ("equal cells, a table a tensor", "x"),
    "linear, split 2 %": ("equal cells, 2 % of inputs split", "+"),
}
LEAST = 4  # rows that a network's panel needs
SHOWN = 30.0  # points below the original
AT_BITS = ("equal_population", "linear", "kmeans", "entropy")


def main() -> None:
    results = pd.read_csv(HERE / "results.csv")
    with style():
        draw(results[(results.method != "entropy") & (results.k <= 256)], "k", "error_against_k")
        draw(results[results.method.isin(AT_BITS) & (results.bits <= 8)], "bits", "error_against_bits")
        draw_forms(pd.read_csv(HERE / "forms.csv"))


def draw_forms(results: pd.DataFrame) -> None:
    """Top-1 against the file's size, one panel a network."""
    networks = [network for network, rows in results.groupby("network", sort=False) if len(rows) >= LEAST]
    figure, axes = plt.subplots(1, len(networks), figsize=(PAGE, 3.2), layout="constrained", squeeze=False)
    colours = sns.color_palette("colorblind", len(FORMS))
    for axis, network in zip(axes[0], networks, strict=True):
        found = results[results.network == network]
        n, teacher = found.n.iloc[0], 100 * found.teacher_correct.iloc[0] / found.n.iloc[0]
        axis.axhline(teacher, color="0.4", ls=":", lw=1)
        axis.annotate("original", (1, teacher), (-2, 2), xycoords=("axes fraction", "data"),
                      textcoords="offset points", ha="right", fontsize=6.5)  # fmt: skip
        for (form, (label, marker)), colour in zip(FORMS.items(), colours, strict=True):
            curve = found[found.form == form].sort_values("bytes")
            axis.plot(curve.bytes / 1e6, 100 * curve.correct / n, marker=marker, color=colour, label=label, ms=4, lw=1)
        axis.set_ylim(teacher - SHOWN, teacher + 0.07 * SHOWN)
        axis.set_title(f"{network}, n = {n:,}")
        axis.set_xlabel("file, MB")
        axis.grid(alpha=0.3, lw=0.5)
    axes[0][0].set_ylabel("top-1 (%)")
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=7
    )
    figure.savefig(HERE / "accuracy_by_form.png")
    plt.close(figure)


def draw(results: pd.DataFrame, across: str, name: str) -> None:
    layers = results.layer.unique()
    figure, axes = plt.subplots(1, len(layers), figsize=(PAGE, 2.9), sharey=True, layout="constrained")
    for axis, layer in zip(axes, layers, strict=True):
        for method, (label, marker) in METHODS.items():
            curve = results[(results.layer == layer) & (results.method == method)].sort_values(across)
            line, size = ("none", 7.0) if method == "exact" else ("-", 3.5)
            if len(curve):
                axis.plot(curve[across], curve.error, line, marker=marker, color=COLOURS[method], label=label, ms=size)
        axis.set_title(layer)
        axis.set_yscale("log")
        axis.grid(alpha=0.3, lw=0.5)
        label_across(axis, across)
    if across == "bits":
        explain(axes[0], results[results.layer == layers[0]])
    axes[0].set_ylabel("squared error / variance")
    axes[0].legend(frameon=False, fontsize=7, loc="lower left")
    figure.savefig(HERE / f"{name}.png")
    plt.close(figure)


def label_across(axis: Axes, across: str) -> None:
    if across == "k":
        axis.set_xscale("log", base=2)
        axis.set_xlabel("centroids k")
    else:
        axis.set_xlabel("entropy of the indices, bits a weight")


def explain(axis: Axes, results: pd.DataFrame) -> None:
    """Where equal populations stand."""
    at = results[(results.method == "equal_population") & (results.k == 64)].iloc[0]
    axis.annotate(
        "every index equally likely:\nlog2 k bits, nothing left to code;\nfew centroids for the tails",
        (at.bits, at.error),
        (0.5, 0.82),
        textcoords="axes fraction",
        fontsize=6.5,
        arrowprops={"arrowstyle": "-", "lw": 0.6},
    )


if __name__ == "__main__":
    main()
