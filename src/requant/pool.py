"""Commands as processes, some at a time, with a live view; Ctrl-C ends them all."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table

from requant.machine import THREADS, cores
from requant.progress import console

POLL = 0.2  # seconds
PATIENCE = 30.0  # seconds that an interrupted process has to end by itself
_EPOCH = re.compile(r"^(.+): epoch (\d+)/(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """What to run: its output goes to `log`; it gets `gpus` of the GPUs, as CUDA_VISIBLE_DEVICES.

    The rest is for a cluster: it runs on so many nodes, as so many tasks on each (`gpus` are those of a node); `again`
    is added to its arguments where it is started anew; `product` is there once it has ended well.
    """

    name: str
    arguments: list[str]
    environment: dict[str, str]
    log: Path
    gpus: int = 0
    nodes: int = 1
    tasks: int = 1
    again: tuple[str, ...] = ()
    product: Path | None = None

    def restarted(self) -> "Command":
        """The command as it is started anew."""
        return replace(self, arguments=[*self.arguments, *self.again], again=())


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code (None: it was not started) and the last of what it said."""

    name: str
    code: int | None
    said: str
    log: Path | None = None


@dataclass
class _Running:
    command: Command
    process: subprocess.Popen[bytes]
    gpus: list[str]
    started: float = field(default_factory=time.monotonic)


def run_all(commands: Sequence[Command], max_parallel: int = 1, gpus: Sequence[str] = ()) -> list[Outcome]:
    """Run the commands, at most `max_parallel` at a time; return how each ended, in their order.

    With several at a time the CPU's threads are divided among them. On Ctrl-C all are interrupted, and once they have
    ended KeyboardInterrupt is raised; on SIGTERM likewise, and SystemExit.
    """
    waiting, running, outcomes = list(commands), list[_Running](), dict[int, Outcome]()
    free, times = list(gpus), list[float]()
    threads = max(1, cores() // max_parallel) if max_parallel > 1 else None
    with _terminable(), live(lambda: _table(commands, running, outcomes, times, max_parallel)) as refresh:
        try:
            while waiting or running:
                while waiting and len(running) < max_parallel and len(free) >= waiting[0].gpus:
                    command = waiting.pop(0)
                    taken, free = free[: command.gpus], free[command.gpus :]
                    running.append(_start(command, taken, threads))
                for job in [job for job in running if job.process.poll() is not None]:
                    running.remove(job)
                    free += job.gpus
                    times.append(time.monotonic() - job.started)
                    outcomes[id(job.command)] = _outcome(job)
                    announce(job.command.name, job.process.returncode, times[-1], len(outcomes), len(commands))
                refresh()
                time.sleep(POLL)
        finally:
            _end(running)
    return [outcomes[id(command)] for command in commands]


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM as an exception, so that what was started is ended too."""

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _start(command: Command, gpus: list[str], threads: int | None) -> _Running:
    environment = dict(command.environment)
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    if threads is not None:
        environment |= dict.fromkeys(THREADS, str(threads))
    command.log.parent.mkdir(parents=True, exist_ok=True)
    with command.log.open("wb") as log:
        # A session of its own: a Ctrl-C reaches the sweep alone, which then interrupts each job, its ranks included.
        process = subprocess.Popen(
            command.arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    if not console.is_terminal:
        console.print(f"started: {command.name}", soft_wrap=True, highlight=False)
    return _Running(command, process, gpus)


def _outcome(job: _Running) -> Outcome:
    return Outcome(job.command.name, job.process.returncode, said(job.command.log), job.command.log)


def announce(name: str, code: int | None, seconds: float, done: int, total: int) -> None:
    """One line for a command that has ended."""
    how = "done" if code == 0 else f"FAILED with exit code {code}"
    console.print(f"{how} ({done}/{total}): {name}, {seconds:.0f} s", soft_wrap=True, highlight=False)


def _end(running: Sequence[_Running]) -> None:
    """Interrupt what still runs, and where that does not help in time, kill it."""
    for number, patience in ((signal.SIGINT, PATIENCE), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        alive = [job for job in running if job.process.poll() is None]
        for job in alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.process.pid, number)
        deadline = time.monotonic() + patience
        for job in alive:
            with contextlib.suppress(subprocess.TimeoutExpired):
                job.process.wait(max(0.0, deadline - time.monotonic()))


def said(log: Path, most: int = 8192) -> str:
    """The end of a log."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - most))
        return file.read().decode(errors="replace")
    return ""


@contextmanager
def live(table: Callable[[], RenderableType]) -> Iterator[Callable[[], None]]:
    """Gives what redraws the table; nothing is drawn where the output is no terminal."""
    if not console.is_terminal:
        yield lambda: None
        return
    with Live(table(), console=console, auto_refresh=False, transient=True) as live:
        yield lambda: live.update(table(), refresh=True)


def _table(
    commands: Sequence[Command],
    running: Sequence[_Running],
    outcomes: dict[int, Outcome],
    times: Sequence[float],
    max_parallel: int,
) -> Group:
    waiting = len(commands) - len(running) - len(outcomes)
    view = Table("job", "stage", "epoch", "time", "left", box=None, pad_edge=False)
    mean = sum(times) / len(times) if times else None
    for job in running:
        elapsed = time.monotonic() - job.started
        left = "" if mean is None else clock(max(0.0, mean - elapsed))
        view.add_row(job.command.name, *stage(said(job.command.log)), clock(elapsed), left)
    failed = sum(outcome.code != 0 for outcome in outcomes.values())
    summary = f"{len(outcomes)} of {len(commands)} done, {failed} failed, {waiting} waiting"
    if mean is not None:
        summary += f"; about {clock(mean * (waiting + len(running) / 2) / max_parallel)} left"
    return Group(view, summary)  # not as the table's caption, which wraps where the table is narrow


def stage(said: str) -> tuple[str, str]:
    """The stage that a log tells of last, and its epoch."""
    found = _EPOCH.findall(said)
    return (found[-1][0], f"{found[-1][1]}/{found[-1][2]}") if found else ("start", "")


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
