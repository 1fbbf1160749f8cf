"""Slurm's own commands: sbatch, squeue, scancel. What became of a job squeue tells too, for some minutes."""

import os
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from requant.errors import UserError

TAKEN = frozenset({"PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "REVOKED"})
"""States of jobs that Slurm ended for reasons of its own."""
ENDED = TAKEN | {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE"}
_WIDTHS = {"JobArrayID": 40, "State": 20, "exit_code": 12, "Reason": 60}


@dataclass(frozen=True)
class State:
    """Of a job: Slurm's name for it, the exit code (0 while it runs), and why it waits."""

    name: str
    code: int
    reason: str


def submit(script: str, options: Sequence[str], size: int, at_once: int | None, environment: Mapping[str, str]) -> str:
    """Submit an array of so many jobs, so many at once; returns its id. Raises UserError with what sbatch says."""
    throttle = "" if at_once is None else f"%{at_once}"
    command = ["sbatch", "--parsable", f"--array=0-{size - 1}{throttle}", *options]
    done = _called(command, script, environment)
    if done.returncode != 0:
        raise UserError(f"Slurm takes no such job: {done.stderr.strip()}\n  ({' '.join(command)})")
    return done.stdout.strip().split(";")[0]  # <id>;<cluster>


def states(arrays: Collection[str]) -> dict[str, State] | None:
    """The state of each job of these arrays, by id; those that Slurm has forgotten are left out; None: no answer."""
    if not arrays:
        return {}
    columns = ",".join(f"{name}:{width}" for name, width in _WIDTHS.items())
    done = _called(["squeue", "--noheader", "--states=all", "--array", f"--jobs={','.join(arrays)}", "-O", columns])
    if done.returncode != 0:
        return {} if "Invalid job id" in done.stderr else None
    return dict(_parsed(line) for line in done.stdout.splitlines() if line.strip())


def cancel(jobs: Collection[str]) -> None:
    """End jobs, those too that wait."""
    if jobs:
        _called(["scancel", *jobs])


def _parsed(line: str) -> tuple[str, State]:
    cells = []
    for width in _WIDTHS.values():
        cells.append(line[:width].strip())
        line = line[width:]
    job, name, code, reason = cells
    return job, State(name, os.waitstatus_to_exitcode(int(code)), reason)


def _called(
    command: Sequence[str], said: str | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, input=said, env=environment)
    except FileNotFoundError as error:
        raise UserError(
            f"hydra/launcher=slurm needs Slurm's {command[0]}, which is not here: start the sweep on a machine of the "
            "cluster, or use hydra/launcher=process"
        ) from error
