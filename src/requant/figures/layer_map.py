"""A study of layers as a picture: what each costs at each k, and how large the file is then."""

from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from requant.figures.style import PAGE, style
from requant.studied import UNITS, changes, is_counted, sizes

ROW = 0.16  # inches
WORST = -20.0  # points that are black, as are greater losses
WHITE = 0.55  # of that, where labels become white


def draw_layer_map(points: pd.DataFrame, title: str, path: Path) -> None:
    """Two maps, layers downwards and k to the right: the change of top-1, the size of the file.

    Args:
        points: rows of points.csv.
        title: of the picture.
        path: the suffix chooses the format.

    """
    lost, size = changes(points), sizes(points)
    several = len(lost.index.unique("kind")) > 1
    labels = [f"{kind} {layers}" if several else layers for kind, layers in lost.index]
    with style():
        figure = Figure(figsize=(PAGE, 1.2 + ROW * len(lost)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        text = {"annot": True, "annot_kws": {"size": 5.5}, "linewidths": 0.3, "yticklabels": labels, "cbar": False}
        sns.heatmap(lost.round(1) + 0.0, ax=left, cmap="gray", vmin=WORST, vmax=0, fmt=".1f", **text)
        for label in left.texts:
            label.set_color("black" if float(label.get_text()) > WHITE * WORST else "white")
        sns.heatmap(size, ax=right, cmap="gray_r", vmin=0, vmax=200, fmt=".1f", **text)
        left.set_title(f"change, {UNITS[is_counted(points)]} (n = {int(points['n'].iloc[0]):,})")
        right.set_title("size of the file, % of float32")
        for axes in (left, right):
            axes.set_xlabel("clusters a tensor, k")
            axes.set_ylabel("")
            axes.tick_params(left=False, bottom=False, labelrotation=0, labelsize=6.5)
        left.set_ylabel("clustered alone" if several else f"{lost.index[0][0]}s of these layers clustered alone")
        figure.suptitle(title, fontsize=9)
        figure.savefig(path)
