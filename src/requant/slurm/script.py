"""The batch script of a job array."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from requant.pool import Command

WARNING = 60  # seconds before its time limit at which a job is told


@dataclass(frozen=True)
class Request:
    """What a job asks Slurm for, beside the nodes, tasks and GPUs that its command needs."""

    time: str = "24:00:00"
    """Of a job, until it is put in the queue again: as sbatch's --time."""
    memory: str | None = None
    """Of a node, as sbatch's --mem; None: the partition's default."""
    cpus_per_task: int | None = None
    """None: the partition's default."""
    options: Sequence[str] = ()
    """More of sbatch's, as they are typed there; they win over those above: ["--partition=gpu"]."""
    setup: Sequence[str] = ()
    """Lines of shell before each job, such as `module load cuda`."""
    restarts: int = 20
    """How often a job may go on after its time limit, a preemption or a lost node."""


def batch_script(commands: Sequence[Command], request: Request) -> str:
    """The script of an array of commands that all need the same; it gets its options from `options`.

    Near its time limit a job goes back to the queue, which Slurm does by itself after a preemption; either way it
    starts again with what `Command.again` adds.
    """
    parts = ["#!/bin/bash", _choices(commands), _LOG, *request.setup, _RUN.format(restarts=request.restarts)]
    return "\n".join(parts)


def options(command: Command, request: Request) -> list[str]:
    """The options of sbatch for an array of such commands."""
    found: dict[str, str | int | None] = {
        "job-name": "requant",
        "output": "/dev/null",  # the script writes its command's log
        "nodes": command.nodes,
        "ntasks-per-node": command.tasks,
        "gpus-per-node": command.gpus or None,
        "cpus-per-task": request.cpus_per_task,
        "mem": request.memory,
        "time": request.time,
        "signal": f"B:USR1@{WARNING}",
    }
    named = (f"--{name}={value}" for name, value in found.items() if value is not None)
    return ["--requeue", *named, *request.options]


def _choices(commands: Sequence[Command]) -> str:
    """Sets log, command and again by the task's number."""
    cases = [
        f"{index})\n  log={shlex.quote(str(command.log.absolute()))}\n"
        f"  command=({shlex.join(command.arguments)})\n  again=({shlex.join(command.again)});;"
        for index, command in enumerate(commands)
    ]
    return "\n".join(['case "$SLURM_ARRAY_TASK_ID" in', *cases, "esac"])


_LOG = """\
restarts=${SLURM_RESTART_COUNT:-0}
[ "$restarts" -gt 0 ] || : > "$log"
exec >> "$log" 2>&1"""

# srun runs in the background: bash would otherwise see the signal only after it. Each signal ends one `wait`.
_RUN = """\
if [ "$restarts" -gt 0 ]; then
  command+=("${{again[@]}}")
  echo "Slurm starts this job again (restart $restarts)."
fi
near_the_limit() {{
  if [ "$restarts" -lt {restarts} ]; then
    echo "The job is near its time limit: back to the queue."
    scontrol requeue "$SLURM_JOB_ID"
  fi
}}
trap near_the_limit USR1
if [ -n "$SLURM_CPUS_PER_TASK" ]; then
  export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
fi
srun --kill-on-bad-exit=1 "${{command[@]}}" < /dev/null &
wait $!; code=$?
while kill -0 $! 2> /dev/null; do wait $!; code=$?; done
exit $code
"""
