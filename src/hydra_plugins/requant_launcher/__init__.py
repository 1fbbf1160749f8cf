"""Hydra's way to `requant.sweep`: hydra/launcher=process, one operating-system process a job."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


@dataclass
class ProcessLauncherConf:
    """Settings of the launcher."""

    _target_: str = "hydra_plugins.requant_launcher.ProcessLauncher"
    max_parallel: int | None = None
    """Jobs at a time; null: one, or with trainer.accelerator=gpu as many as there are GPUs for."""


ConfigStore.instance().store(group="hydra/launcher", name="process", node=ProcessLauncherConf, provider="requant")


class ProcessLauncher(Launcher):
    """Runs each job of a sweep as `python run.py <overrides>`, as if it had been typed."""

    def __init__(self, max_parallel: int | None = None) -> None:
        self.max_parallel = max_parallel

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's handing over. The task function stays unused: jobs are processes of their own."""
        del task_function
        self.context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs; those that failed carry the error that Hydra raises when it looks at what they returned."""
        del initial_job_idx
        from requant.sweep import job, sweep  # late: Hydra imports every plugin at every start

        jobs = [job(list(overrides), compose(self.context, self.config, overrides)) for overrides in job_overrides]
        error = sweep(jobs, list(self.config.hydra.overrides.hydra), self.max_parallel)
        status = JobStatus.COMPLETED if error is None else JobStatus.FAILED
        return [
            JobReturn(overrides=list(overrides), status=status, _return_value=error, working_dir=".")
            for overrides in job_overrides
        ]


def compose(context: HydraContext, config: DictConfig, overrides: Sequence[str]) -> Any:
    """The config of one job of a sweep, or the error that composing it raised."""
    try:
        composed = context.config_loader.load_sweep_config(config, list(overrides))
    except Exception as error:  # whatever it is, it is this job's alone
        return error
    with open_dict(composed):
        del composed["hydra"]
    return composed
