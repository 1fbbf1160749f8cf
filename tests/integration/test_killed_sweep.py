"""A sweep that is killed, jobs and all, again and again, ends in what one that never was ends in."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
JOBS = 6
KILLS = 20
QUICK = ("teacher.epochs=2", "data.train_limit=600", "data.limit=200", "unlabeled.limit=200", "retrain.epochs=3")
SWEEP = ("-m", *QUICK, "centroids=2,4,8", "seed=0,1", "hydra.launcher.max_parallel=2")


def start(place: Path, sweep: Sequence[str] = SWEEP) -> subprocess.Popen[bytes]:
    """The sweep, with outputs and a cache of its own, so that the teacher's training is killed too."""
    place.mkdir(exist_ok=True)
    command = [sys.executable, str(ROOT / "run.py"), *sweep, f"out={place / 'outputs'}"]
    environment = os.environ | {"REQUANT_CACHE": str(place / "cache")}
    with (place / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)


def finish(place: Path, sweep: Sequence[str] = SWEEP) -> float:
    """Run it to its end; returns the seconds."""
    started = time.monotonic()
    assert start(place, sweep).wait() == 0, (place / "log").read_text()
    return time.monotonic() - started


def kill(sweep: subprocess.Popen[bytes]) -> None:
    """SIGKILL for it and all below it; it is stopped first, so that it starts nothing meanwhile."""
    sweep.send_signal(signal.SIGSTOP)
    for process in [sweep.pid, *descendants(sweep.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    sweep.wait()


def descendants(pid: int) -> list[int]:
    """The processes below a process, from /proc."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
        return [found for child in children for found in (child, *descendants(child))]
    return []


def left_behind(place: Path) -> dict[str, Any]:
    """What the sweep wrote, by path: results and curves less seconds, paths and commit; archives as bytes."""
    outputs = place / "outputs"
    found = {path.relative_to(outputs).as_posix(): path for path in outputs.rglob("*") if path.is_file()}
    others = (".log", ".png", ".yaml")  # what the jobs said, with times; pictures; Hydra's record of the command
    return {name: content(path) for name, path in found.items() if path.suffix not in others}


def content(path: Path) -> Any:
    if path.suffix == ".json":
        return lasting(json.loads(path.read_text()))
    if path.suffix == ".csv":
        return [line.rsplit(",", 1)[0] for line in path.read_text().splitlines()]  # the last column: seconds
    return path.read_bytes()


def lasting(value: Any) -> Any:
    """Less what another time, place or commit changes."""
    if isinstance(value, dict):
        passing = [key for key in value if key.startswith("seconds") or key in ("out", "git")]
        return {key: lasting(inner) for key, inner in value.items() if key not in passing}
    return [lasting(inner) for inner in value] if isinstance(value, list) else value


def test_a_sweep_killed_twenty_times_ends_in_the_same_bits(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    a_round = 2 * finish(whole) / JOBS  # of two jobs at a time
    draws, kills = random.Random(0), 0
    while kills < KILLS:
        sweep, seconds = start(cut), draws.uniform(0, a_round)
        with contextlib.suppress(subprocess.TimeoutExpired):
            sweep.wait(seconds)
            break
        kill(sweep)
        kills += 1
        with (cut / "log").open("a") as log:
            print(f"--- killed after {seconds:.0f} s (kill {kills})", file=log)
    finish(cut)
    assert kills == KILLS
    expected, found = left_behind(whole), left_behind(cut)
    assert len([name for name in expected if name.endswith("/result.json")]) == JOBS
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
