"""Where curves and final figures go: CSV always, wandb on request."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger

Mode = Literal["online", "offline", "disabled"]


class Tracker:
    """Loggers for the trainings of one run, and the run's summary."""

    def __init__(self, folder: Path, run: Any | None = None):
        self.folder = folder
        self.run = run

    def loggers(self, name: str) -> list[Logger]:
        """Loggers of the training `name`: <folder>/<name>/metrics.csv, and wandb's keys <name>-<figure>."""
        loggers: list[Logger] = [CSVLogger(self.folder, name=name, version="", flush_logs_every_n_steps=1)]
        if self.run is not None:
            loggers.append(WandbLogger(experiment=self.run, prefix=name))
        return loggers

    def summarise(self, figures: Mapping[str, float]) -> None:
        """The run's final figures, flat."""
        if self.run is not None:
            self.run.summary.update(dict(figures))


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
        yield Tracker(folder)
        return
    import wandb

    run = wandb.init(
        project=project,
        mode=cast("Mode", mode),
        group=group,
        id=identity,
        resume="allow",
        dir=folder,
        config=_flat(settings),
    )
    failed = True
    try:
        yield Tracker(folder, run)
        failed = False
    finally:
        run.finish(exit_code=int(failed))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
