"""The end of a sweep (`python run.py -m ...`): one table of all its runs."""

from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from requant.progress import console
from requant.report import sweep_table


class SweepTable(Callback):
    """Collects each job's result.json as it ends and prints them together."""

    def __init__(self) -> None:
        self.paths: list[Any] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:  # noqa: ARG002
        """Remember the result of a job that was completed."""
        if job_return.status == JobStatus.COMPLETED:
            self.paths.append(job_return.return_value)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:  # noqa: ARG002
        """Print the table."""
        console.print(sweep_table(self.paths))
