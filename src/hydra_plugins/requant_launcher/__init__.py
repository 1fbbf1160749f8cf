"""Hydra's way to `requant.sweep`: each job of a sweep as a process here, or as a job of Slurm's."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


@dataclass
class ProcessLauncherConf:
    """Settings of hydra/launcher=process."""

    _target_: str = "hydra_plugins.requant_launcher.ProcessLauncher"
    max_parallel: int | None = None
    """Jobs at a time; null: one, or with trainer.accelerator=gpu as many as there are GPUs for."""


@dataclass
class SlurmLauncherConf:
    """Settings of hydra/launcher=slurm; nodes, tasks and GPUs follow from `trainer`."""

    _target_: str = "hydra_plugins.requant_launcher.SlurmLauncher"
    max_parallel: int | None = None
    """Jobs of an array at a time; null: as many as Slurm finds room for."""
    time: str = "24:00:00"
    """Limit of a job, as sbatch's --time; near it the job goes back to the queue, to go on from its checkpoint."""
    memory: str | None = None
    """Of a node, as sbatch's --mem."""
    cpus_per_task: int | None = None
    options: list[str] = field(default_factory=list)
    """More of sbatch's options: ["--partition=gpu", "--account=vision"]."""
    setup: list[str] = field(default_factory=list)
    """Lines of shell before each job: ["module load cuda"]."""
    restarts: int = 20
    """How often a job may go on after its time limit, a preemption or a lost node."""


_STORE = ConfigStore.instance()
_STORE.store(group="hydra/launcher", name="process", node=ProcessLauncherConf, provider="requant")
_STORE.store(group="hydra/launcher", name="slurm", node=SlurmLauncherConf, provider="requant")


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
        """Run all jobs here."""
        del initial_job_idx
        from requant.sweep import run_here  # late: Hydra imports every plugin at every start

        return _launch(self.context, self.config, job_overrides, partial(run_here, max_parallel=self.max_parallel))


class SlurmLauncher(Launcher):
    """Runs each job of a sweep as a job of Slurm's: `srun python run.py <overrides>`."""

    def __init__(self, max_parallel: int | None = None, **request: Any) -> None:
        self.max_parallel = max_parallel
        self.request = request

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's handing over. The task function stays unused: jobs are processes of their own."""
        del task_function
        self.context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit all jobs, and wait for them."""
        del initial_job_idx
        from requant.slurm import Request, run_all

        run = partial(run_all, request=Request(**self.request), max_parallel=self.max_parallel)
        return _launch(self.context, self.config, job_overrides, run)


def _launch(
    context: HydraContext, config: DictConfig, job_overrides: Sequence[Sequence[str]], run: Any
) -> list[JobReturn]:
    """Run all jobs; those that failed carry the error that Hydra raises when it looks at what they returned."""
    from requant.sweep import job, sweep

    jobs = [job(list(overrides), compose(context, config, overrides)) for overrides in job_overrides]
    error = sweep(jobs, list(config.hydra.overrides.hydra), run)
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
