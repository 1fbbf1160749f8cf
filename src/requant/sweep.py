"""The end of a sweep (`python run.py -m ...`): one table of all its runs."""

import atexit
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from requant.listing import runs_tables
from requant.progress import console
from requant.results import table


class SweepTable(Callback):
    """Collects each job's result.json and prints them together at the exit: also where a job has failed."""

    def __init__(self) -> None:
        self.paths: list[Path] = []

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:  # noqa: ARG002
        """Hydra does not call `on_multirun_end` after a failure, so the exit it is."""
        atexit.register(self.show)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:  # noqa: ARG002
        """Remember the result of a job that was completed."""
        if job_return.status == JobStatus.COMPLETED:
            self.paths.append(job_return.return_value)

    def show(self) -> None:
        """Print the table, and where each run is."""
        if not self.paths:
            return
        console.print(f"All {len(self.paths)} runs of this sweep:")
        console.print(*runs_tables(table(self.paths), [], console.width), sep="\n")
        for path in self.paths:
            console.print(f"  {path}", soft_wrap=True, highlight=False)
