"""Where curves and final figures go beside the run's folder: wandb, on request."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import pandas as pd
from pytorch_lightning.loggers import Logger, WandbLogger

from requant.results import flattened

Mode = Literal["online", "offline", "disabled"]


class Tracker:
    """Loggers for the trainings of one run, and the run's summary."""

    def __init__(self, run: Any | None = None):
        self.run = run

    def loggers(self, name: str) -> list[Logger]:
        """Loggers of the training `name`, beside its metrics.csv: wandb's keys are <name>-<figure>."""
        return [] if self.run is None else [WandbLogger(experiment=self.run, prefix=name)]

    def summarise(self, figures: Mapping[str, float]) -> None:
        """The run's final figures, flat."""
        if self.run is not None:
            self.run.summary.update(dict(figures))

    def table(self, name: str, rows: pd.DataFrame) -> None:
        """Rows to filter and plot there."""
        if self.run is not None:
            import wandb

            self.run.log({name: wandb.Table(dataframe=rows)})

    def picture(self, name: str, path: Path) -> None:
        """A drawing of the run."""
        if self.run is not None:
            import wandb

            self.run.log({name: wandb.Image(str(path))})

    def keep(self, path: Path) -> None:
        """Upload a file with the run, as the artifact <name of the file>-<run id>."""
        if self.run is not None:
            self.run.log_artifact(str(path), name=f"{path.stem}-{self.run.id}", type="network")


@contextmanager
def tracking(
    folder: Path,
    name: str,
    project: str,
    mode: str,
    *,
    group: str,
    identity: str,
    settings: Mapping[str, Any],
) -> Iterator[Tracker]:
    """A tracker; where `name` is wandb, its run has id `identity`, group `group`, and is finished whatever happens."""
    if name != "wandb":
        yield Tracker()
        return
    import wandb

    run = wandb.init(
        project=project,
        mode=cast("Mode", mode),
        group=group,
        id=identity,
        resume="allow",
        dir=folder,
        config=flattened(settings),
    )
    for training in ("retrained", "conventional", "teacher"):  # a resumed run logs its steps anew, its epochs only once
        run.define_metric(f"{training}-*", step_metric=f"{training}-epoch")
    failed = True
    try:
        yield Tracker(run)
        failed = False
    finally:
        run.finish(exit_code=int(failed))
