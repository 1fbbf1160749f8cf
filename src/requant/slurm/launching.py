"""Commands as job arrays: submitted, watched, submitted again where Slurm took them, adopted by the next start."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from rich.console import Group
from rich.table import Table

from requant.files import write_text
from requant.pool import Command, Outcome, announce, clock, live, said, stage
from requant.progress import console
from requant.slurm.queue import ENDED, TAKEN, State, cancel, states, submit
from requant.slurm.script import Request, batch_script, options

POLL = 5.0  # seconds
FORGOTTEN = State("it is no longer in the queue", 1, "")
MOST_IN_AN_ARRAY = 1000  # Slurm's MaxArraySize is 1001 unless set


@dataclass
class _Job:
    command: Command
    id: str = ""
    """<array>_<number>; "": not submitted."""
    state: State = field(default_factory=lambda: State("", 0, ""))
    tries: int = 0
    started: float = field(default_factory=time.monotonic)
    outcome: Outcome | None = None

    @property
    def record(self) -> Path:
        """Holds the job's id, for the next start of the same sweep."""
        return self.command.log.with_suffix(".slurm")


def run_all(commands: Sequence[Command], request: Request, max_parallel: int | None = None) -> list[Outcome]:
    """Run the commands as jobs of Slurm's, `max_parallel` of an array at once; return how each ended, in their order.

    Commands that need the same make one array. A job that is in the queue already, from an earlier start, is waited
    for, not submitted again. Ctrl-C cancels all; whatever else ends this process leaves them in the queue.
    """
    jobs = [_Job(command) for command in commands]
    try:
        _adopt(jobs)
        _submit([job for job in jobs if not job.id], request, max_parallel)
        with live(lambda: _table(jobs)) as refresh:
            while _unfinished(jobs):
                time.sleep(POLL)
                _look(jobs, request.restarts)
                _submit([job for job in _unfinished(jobs) if not job.id], request, max_parallel)
                refresh()
    except KeyboardInterrupt:
        cancel([job.id for job in _unfinished(jobs) if job.id])
        raise
    return [job.outcome for job in jobs if job.outcome is not None]


def _unfinished(jobs: Iterable[_Job]) -> list[_Job]:
    return [job for job in jobs if job.outcome is None]


def _adopt(jobs: Sequence[_Job]) -> None:
    """Take over the jobs that an earlier start has left in the queue."""
    recorded = {}
    for job in jobs:
        with suppress(FileNotFoundError):
            recorded[id(job)] = job.record.read_text().strip()
    found = states({name.split("_")[0] for name in recorded.values()}) or {}
    adopted = [job for job in jobs if id(job) in recorded and _alive(found.get(recorded[id(job)]))]
    for job in adopted:
        job.id = recorded[id(job)]
    if adopted:
        console.print(f"{len(adopted)} jobs of an earlier start are in Slurm's queue: waiting for them.")


def _alive(state: State | None) -> bool:
    return state is not None and state is not FORGOTTEN and state.name not in ENDED


def _submit(jobs: Sequence[_Job], request: Request, max_parallel: int | None) -> None:
    for array in _arrays(jobs):
        commands = [job.command for job in array]
        script, wanted = batch_script(commands, request), options(commands[0], request)
        for command in commands:
            command.log.parent.mkdir(parents=True, exist_ok=True)
        number = submit(script, wanted, len(array), max_parallel, commands[0].environment)
        for index, job in enumerate(array):
            job.id, job.tries = f"{number}_{index}", job.tries + 1
            write_text(job.record, job.id + "\n")
            if not console.is_terminal:
                console.print(f"submitted as Slurm's job {job.id}: {job.command.name}", soft_wrap=True, highlight=False)


def _arrays(jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """Jobs that need the same."""

    def needs(job: _Job) -> tuple[int, int, int]:
        return job.command.nodes, job.command.tasks, job.command.gpus

    for _, group in groupby(sorted(jobs, key=needs), needs):
        alike = list(group)
        for start in range(0, len(alike), MOST_IN_AN_ARRAY):
            yield alike[start : start + MOST_IN_AN_ARRAY]


def _look(jobs: Sequence[_Job], restarts: int) -> None:
    """See what became of the jobs."""
    waiting = _unfinished(jobs)
    found = states({job.id.split("_")[0] for job in waiting})
    if found is None:
        return  # Slurm's controller does not answer: the jobs may well run
    for job in waiting:
        job.state = found.get(job.id, FORGOTTEN)
        if job.state.name in TAKEN and job.tries <= restarts:
            job.id = ""
            job.command = job.command.restarted()
        elif not _alive(job.state):
            job.outcome = _outcome(job)
            job.record.unlink(missing_ok=True)
            done = len(jobs) - len(_unfinished(jobs))
            announce(job.command.name, job.outcome.code, time.monotonic() - job.started, done, len(jobs))


def _outcome(job: _Job) -> Outcome:
    words, code = said(job.command.log), job.state.code
    if job.state.name not in ("COMPLETED", "FAILED"):
        ended_well = job.state is FORGOTTEN and job.command.product is not None and job.command.product.exists()
        words += "" if ended_well else f"\nSlurm ended job {job.id}: {job.state.name}"
        code = 0 if ended_well else code or 1
    return Outcome(job.command.name, code, words, job.command.log)


def _table(jobs: Sequence[_Job]) -> Group:
    view = Table("job", "Slurm's", "state", "stage", "epoch", "time", box=None, pad_edge=False)
    waiting = _unfinished(jobs)
    for job in waiting:
        if job.state.name == "RUNNING":
            what = stage(said(job.command.log))
            view.add_row(job.command.name, job.id, "running", *what, clock(time.monotonic() - job.started))
    pending = [job.state.reason for job in waiting if job.state.name == "PENDING"]
    failed = sum(job.outcome is not None and job.outcome.code != 0 for job in jobs)
    summary = f"{len(jobs) - len(waiting)} of {len(jobs)} done, {failed} failed, {len(pending)} in the queue"
    if pending:
        summary += f" ({', '.join(sorted(set(pending)))})"
    return Group(view, summary)
