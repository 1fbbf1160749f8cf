"""The paper's figures, and ours, by name: the folder in experiments/, where its rows come from, how it is drawn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from requant.figures import sensitivity
from requant.figures.architecture import draw_architecture
from requant.figures.epochs import draw_against, draw_epochs
from requant.figures.paper import RESNET50, VGG16, Case
from requant.figures.photographs import by_photographs, draw_photographs
from requant.figures.tables import curves, points
from requant.figures.times import draw_times
from requant.figures.weights import draw_counts

EXPERIMENTS = Path("experiments")
_VGG_LARGE = ("14", "15", "14-15")
_VGG_TELLING = ("1", "2", "8", "14-15")
_VGG_BIASES = ("1", "4", "15", "1-16")
_RESNET_SHOWN = ("2-10", "11-22", "23-40", "41-49", "13-49")
_PHOTOGRAPHS = ("photographs_vgg16", "photographs_resnet50")
_RETRAININGS = ("vgg16_cifar10", "resnet50_cifar10")
_LONG = ("fig15_vgg16", "fig15_resnet50")  # as many epochs as the paper's


@dataclass(frozen=True)
class Study:
    """One figure.

    Attributes:
        folder: in experiments/; it holds results.csv.
        draw: from the rows of results.csv.
        runs: the experiments' names, the folders below outputs/; none: nothing is run.
        collect: the rows of results.csv from such a folder.
        scaled: names of the experiments that belong to it at another scale, but for the suffix, where they are others.

    """

    folder: str
    draw: Callable[[pd.DataFrame], Figure]
    runs: tuple[str, ...] = ()
    collect: Callable[[Path], pd.DataFrame] = points
    scaled: tuple[str, ...] = ()

    def names(self, scale: str | None) -> tuple[str, ...]:
        """The experiments' names at a scale; None: at CIFAR-10's."""
        if scale is None:
            return self.runs
        return tuple(f"{name.removesuffix('_cifar10')}_{scale}" for name in self.scaled or self.runs)


def _weights(table: pd.DataFrame) -> pd.DataFrame:
    return _kind(table, "weight")


def _kind(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    return table[table["kind"] == kind]


def _vgg_size(table: pd.DataFrame) -> Figure:
    return sensitivity.draw_size(_weights(table), _VGG_LARGE, VGG16)


def _vgg_accuracy(table: pd.DataFrame) -> Figure:
    return sensitivity.draw_accuracy(_weights(table), _VGG_TELLING, VGG16, _kind(table, "bias"), _VGG_BIASES)


def _resnet(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of stages, and of layers alone."""
    table = _weights(table)
    stages = table["layers"].isin(_RESNET_SHOWN)
    return table[stages], table[~stages]


def _resnet_size(table: pd.DataFrame) -> Figure:
    return sensitivity.draw_size(_resnet(table)[0], _RESNET_SHOWN, RESNET50)


def _resnet_accuracy(table: pd.DataFrame) -> Figure:
    stages, alone = _resnet(table)
    norms = table[table["kind"].isin(sensitivity.NORM_KINDS)]
    return sensitivity.draw_accuracy_and_layers(stages, _RESNET_SHOWN, RESNET50, alone, norms)


def _both(draw: Callable[[Mapping[str, Case]], Figure], table: pd.DataFrame) -> Figure:
    """Of the networks that there are rows of, at the smallest k: there most is to be won back."""
    cases: dict[str, Case] = {}
    for resnet, rows in table.groupby(table["model"].str.startswith("resnet50")):
        network, reported = ("ResNet-50", RESNET50) if resnet else ("VGG-16", VGG16)
        k = rows["centroids"].min()
        cases[f"{network}, k = {k}"] = rows[rows["centroids"] == k], reported
    return draw(cases)


STUDIES = {
    "fig05": Study("fig05_vgg16_architecture", draw_architecture),
    "fig06": Study("fig06_vgg16_weights", draw_counts),
    "fig07": Study("fig07_vgg16_size", _vgg_size, ("fig07_08_vgg16",)),
    "fig08": Study("fig08_vgg16_accuracy", _vgg_accuracy, ("fig07_08_vgg16",)),
    "fig09": Study("fig09_vgg16_epochs", draw_epochs, ("fig09_vgg16",), curves),
    "fig10": Study("fig10_resnet50_architecture", draw_architecture),
    "fig11": Study("fig11_resnet50_weights", draw_counts),
    "fig12": Study("fig12_resnet50_size", _resnet_size, ("fig12_13_resnet50",)),
    "fig13": Study("fig13_resnet50_accuracy", _resnet_accuracy, ("fig12_13_resnet50",)),
    "fig14": Study("fig14_resnet50_epochs", draw_epochs, ("fig14_resnet50",), curves),
    "fig15": Study(
        "fig15_proposed_conventional", partial(_both, draw_against), _LONG + _RETRAININGS, curves, _RETRAININGS
    ),
    "fig16": Study("fig16_time", partial(_both, draw_times), _RETRAININGS, curves),
    "photographs": Study("photographs", partial(_both, draw_photographs), _PHOTOGRAPHS, by_photographs),
}
"""Every figure that there is, whether or not its results.csv is there yet."""
