"""The wandb workspace of a project: size against accuracy, accuracy per epoch by k, bytes by layer, runs compared.

    python experiments/dashboard.py <entity> [<project>]            # shows what it would be, without a network
    python experiments/dashboard.py <entity> [<project>] --push     # saves it there; needs `wandb login`

It draws what `logger=wandb` wrote (requant.results.summary; requant.tracking for the curves).
"""

import argparse
import json

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

LAYERS = 50  # ResNet-50's; a bar that no run has is not drawn


def workspace(entity: str, project: str) -> ws.Workspace:
    """The workspace, not saved."""
    sections = [
        ws.Section(name="Size against accuracy", panels=[size_against_accuracy()], is_open=True),
        ws.Section(
            name="Accuracy per epoch, by k", panels=[per_epoch("retrained"), per_epoch("conventional")], is_open=True
        ),
        ws.Section(name="Bytes by layer", panels=[bytes_by_layer()], is_open=True),
        ws.Section(name="Runs compared", panels=[wr.RunComparer(diff_only="split")], is_open=True),
    ]
    return ws.Workspace(entity=entity, project=project, name="requant", sections=sections)


def size_against_accuracy() -> wr.ScatterPlot:
    """A point a run; the line is the best accuracy that so many bytes have reached."""
    x, y = wr.SummaryMetric("bytes"), wr.SummaryMetric("top1")
    return wr.ScatterPlot(title="bytes against top-1", x=x, y=y, log_x=True, running_ymax=True)


def per_epoch(training: str) -> wr.LinePlot:
    """A line for each k: the mean over the runs of that k."""
    x, y = wr.Metric(f"{training}-epoch"), [wr.Metric(f"{training}-top1")]
    return wr.LinePlot(title=f"top-1, {training}", x=x, y=y, groupby=wr.Config("centroids"), groupby_aggfunc="mean")


def bytes_by_layer() -> wr.BarPlot:
    """A bar for each clustered layer."""
    keys = [wr.SummaryMetric(f"layer_bytes_{layer:02}") for layer in range(1, LAYERS + 1)]
    return wr.BarPlot(title="bytes by layer", metrics=keys, orientation="v", max_bars_to_show=LAYERS)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entity", help="the wandb user or team")
    parser.add_argument("project", nargs="?", default="requant", help="the project (default: requant)")
    parser.add_argument("--push", action="store_true", help="save it")
    chosen = parser.parse_args()
    made = workspace(chosen.entity, chosen.project)
    if chosen.push:
        print(made.save().url)
    else:
        print(json.dumps(made._to_model().model_dump(mode="json"), indent=1))


if __name__ == "__main__":
    main()
