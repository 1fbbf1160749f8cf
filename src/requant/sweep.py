"""The end of a sweep (`python run.py -m ...`): one table of all its runs."""

import atexit
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from requant.progress import console
from requant.report import sweep_table


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
        """Print the table."""
        console.print(sweep_table(self.paths))
