"""A sweep: many runs, each in an operating-system process of its own, some at a time; one that fails stops no other.

Processes, since Lightning's DDP and Hydra's multirun do not mix in one: its ranks would run the whole sweep again.
"""

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from requant.cli import explain
from requant.config import Config
from requant.errors import ConfigError, UserError
from requant.layout import RESULT
from requant.listing import runs_tables
from requant.pool import Command, Outcome, run_all
from requant.progress import console
from requant.results import final, read_run, table
from requant.runs import run_folder, state
from requant.settings import parse

_RANKS = re.compile(
    r"(LOCAL_|NODE_|GROUP_|GLOBAL_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|SLURM_(PROCID|LOCALID|NODEID|NTASKS)|PL_.*"
)
_OF_THE_SWEEP = re.compile(r"[+~]{0,2}hydra(/launcher|/sweeper|\.mode|\.launcher|\.sweeper|\.sweep)\b")
_TAIL = 6  # lines of a failed job's log that are shown


Run = Callable[[Sequence[Command]], Sequence[Outcome]]
"""Runs commands, and tells how each ended, in their order."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep: what was typed for it, and what that means."""

    overrides: list[str]
    settings: Config
    folder: Path

    @property
    def gpus(self) -> int:
        """How many it takes."""
        return 0 if self.settings.trainer.accelerator == "cpu" else self.settings.trainer.devices


@dataclass(frozen=True)
class Mistake:
    """A run that cannot be started, and why."""

    overrides: list[str]
    error: Exception


def job(overrides: list[str], config: DictConfig | Exception) -> Job | Mistake:
    """The run of these overrides, from what they compose to, or from the error that composing them raised."""
    if isinstance(config, Exception):
        return Mistake(overrides, config)
    try:
        settings = parse(config)
        return Job(overrides, settings, run_folder(settings))
    except Exception as error:  # whatever it is, it is this run's alone
        return Mistake(overrides, error)


def figures(found: Job | Mistake) -> tuple[int, float] | None:
    """Bytes on disk and top-1 of the network that a run ended with; None where it did not end."""
    if isinstance(found, Mistake) or state(found.folder) != "done":
        return None
    row = final(read_run(found.folder / RESULT)[1])
    return row["bytes"], row["top1"]


def sweep(found: Sequence[Job | Mistake], hydra: Sequence[str], run: Run) -> UserError | None:
    """Start the runs that are not done, and end with one table; returns an error where some failed.

    `hydra` are the overrides of Hydra's own settings, handed on to each run; `run` runs commands.
    """
    names = _names([job.overrides for job in found])
    pairs = list(zip(names, found, strict=True))
    mistakes = [Outcome(name, None, explain(m.error, m.overrides)) for name, m in pairs if isinstance(m, Mistake)]
    jobs = [(name, job) for name, job in pairs if isinstance(job, Job)]
    if any(job.settings.dry_run for _, job in jobs):
        _show_states(jobs)
        return _failures(mistakes)
    todo = [(name, job) for name, job in jobs if job.settings.force or state(job.folder) != "done"]
    if len(todo) < len(jobs):
        console.print(f"{len(jobs) - len(todo)} of {len(found)} runs are done already (force=true starts them over).")
    outcomes = run([_command(name, job, hydra) for name, job in todo])
    _show_results([job for _, job in jobs])
    return _failures([*mistakes, *(outcome for outcome in outcomes if outcome.code != 0)])


def _names(overrides: Sequence[Sequence[str]]) -> list[str]:
    """What tells the jobs apart: the overrides that not all of them have."""
    common = set.intersection(*map(set, overrides)) if len(overrides) > 1 else set()
    return [" ".join(word for word in words if word not in common) or "the only job" for words in overrides]


def _command(name: str, job: Job, hydra: Sequence[str]) -> Command:
    forwarded = [override for override in hydra if not _OF_THE_SWEEP.match(override)]
    arguments = [sys.executable, sys.argv[0], *job.overrides, *forwarded, "hydra.mode=RUN"]
    environment = {key: value for key, value in os.environ.items() if not _RANKS.fullmatch(key)}
    return Command(
        name,
        arguments,
        environment,
        log=job.folder.with_name(f"{job.folder.name}.log"),
        gpus=job.gpus,
        nodes=job.settings.trainer.num_nodes,
        tasks=job.settings.trainer.devices,
        again=("force=false",),
        product=job.folder / RESULT,
    )


def run_here(commands: Sequence[Command], max_parallel: int | None = None) -> list[Outcome]:
    """Run commands as processes of this machine: one at a time by default, or as many as there are GPUs for."""
    return run_all(commands, *_capacity(commands, max_parallel))


def _capacity(commands: Sequence[Command], max_parallel: int | None) -> tuple[int, list[str]]:
    """How many jobs at a time, and the GPUs that they share."""
    if max_parallel is not None and max_parallel < 1:
        raise ConfigError(f"hydra.launcher.max_parallel={max_parallel}: must be at least 1, or null")
    needed = max((command.gpus for command in commands), default=0)
    gpus = _gpus() if needed else []
    if needed > len(gpus):
        raise ConfigError(
            f"trainer.devices={needed}, but there are {len(gpus)} GPUs here: set trainer.devices, or trainer=cpu"
        )
    fitting = len(gpus) // needed if needed else None
    return min(max_parallel or fitting or 1, fitting or len(commands) or 1), gpus


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _show_states(jobs: Sequence[tuple[str, Job]]) -> None:
    console.print(f"{len(jobs)} runs (dry_run=true: nothing was started):")
    for name, job in jobs:
        console.print(f"  {state(job.folder):<10}  {name}  {job.folder}", soft_wrap=True, highlight=False)


def _show_results(jobs: Sequence[Job]) -> None:
    paths = list(dict.fromkeys(job.folder / RESULT for job in jobs if (job.folder / RESULT).exists()))
    if not paths:
        return
    console.print(f"All {len(paths)} runs of this sweep:")
    console.print(*runs_tables(table(paths), [], console.width), sep="\n")
    for path in paths:
        console.print(f"  {path}", soft_wrap=True, highlight=False)


def _failures(outcomes: Sequence[Outcome]) -> UserError | None:
    if not outcomes:
        return None
    blocks = [f"{len(outcomes)} jobs of the sweep failed; the same command runs them again, and only what is not done."]
    for outcome in outcomes:
        lines = outcome.said.strip().splitlines()[-_TAIL:]
        where = "" if outcome.log is None else f" (exit code {outcome.code}; {outcome.log})"
        blocks.append("\n".join([f"{outcome.name}{where}", *(f"  {line}" for line in lines)]))
    return UserError("\n\n".join(blocks))
