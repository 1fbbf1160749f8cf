"""Commands as processes: how many at a time, with what, and how they end."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from requant import pool
from requant.pool import Command, run_all


def command(tmp_path: Path, name: str, code: str, gpus: int = 0) -> Command:
    return Command(name, [sys.executable, "-c", code], dict(os.environ), tmp_path / "logs" / f"{name}.log", gpus)


def said(tmp_path: Path, name: str) -> list[str]:
    return (tmp_path / "logs" / f"{name}.log").read_text().split()


def test_one_that_fails_stops_no_other_and_its_last_words_are_kept(tmp_path: Path) -> None:
    commands = [
        command(tmp_path, "a", "print('fine')"),
        command(tmp_path, "b", "print('first'); raise SystemExit('the reason')"),
        command(tmp_path, "c", "print('fine too')"),
    ]
    outcomes = run_all(commands)
    assert [(outcome.name, outcome.code) for outcome in outcomes] == [("a", 0), ("b", 1), ("c", 0)]
    assert "the reason" in outcomes[1].said
    assert outcomes[1].log == tmp_path / "logs" / "b.log"


SPAN = "import time; print(time.monotonic(), flush=True); time.sleep(0.6); print(time.monotonic())"


@pytest.mark.parametrize("most", [1, 2])
def test_so_many_at_a_time(tmp_path: Path, most: int) -> None:
    names = ["a", "b", "c"]
    run_all([command(tmp_path, name, SPAN) for name in names], max_parallel=most)
    spans = [tuple(map(float, said(tmp_path, name))) for name in names]
    together = max(sum(begin <= other < end for begin, end in spans) for other, _ in spans)
    assert together == most


def test_a_terminal_shows_what_runs_and_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(pool, "console", screen)
    long = "import time; print('training: epoch 3/9', flush=True); time.sleep(2)"
    run_all([command(tmp_path, "a", "print('done')"), command(tmp_path, "b", long)], max_parallel=1)
    seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.file.getvalue())  # type: ignore[attr-defined]
    assert re.search(r"job +stage +epoch +time +left", seen)
    assert re.search(r"b +training +3/9 +\d:\d\d +\d:\d\d", seen)
    assert "\nwaiting" not in seen  # the summary stays on its line, however narrow the table
    assert re.search(r"1 of 2 done, 0 failed, 0 waiting; about \d:\d\d left", seen)


def test_gpus_are_dealt_out_and_threads_divided(tmp_path: Path) -> None:
    code = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['OMP_NUM_THREADS']); time.sleep(0.6)"
    commands = [command(tmp_path, name, code, gpus=2) for name in "abc"]
    run_all(commands, max_parallel=2, gpus=["3", "5", "6", "7"])
    assert {said(tmp_path, "a")[0], said(tmp_path, "b")[0]} == {"3,5", "6,7"}
    assert said(tmp_path, "c")[0] in ("3,5", "6,7")
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert {said(tmp_path, name)[1] for name in "abc"} == {str(share)}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_all_of_them(tmp_path: Path, number: signal.Signals, code: int) -> None:
    script = tmp_path / "pool.py"
    script.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "from requant.pool import Command, run_all\n"
        "code = 'import os, time; print(os.getpid(), flush=True); time.sleep(100)'\n"
        "logs = [Path(sys.argv[1]) / name for name in 'ab']\n"
        "run_all([Command(l.name, [sys.executable, '-c', code], dict(os.environ), l) for l in logs], max_parallel=2)\n"
    )
    pool = subprocess.Popen([sys.executable, script, tmp_path], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    logs = [tmp_path / name for name in "ab"]
    while not all(log.exists() and log.read_text().endswith("\n") for log in logs):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pool.send_signal(number)
    pool.communicate(timeout=60)
    assert pool.returncode in (code, -number)  # Python ends by the signal itself where nobody catches Ctrl-C
    for log in logs:
        with pytest.raises(ProcessLookupError):
            os.kill(int(log.read_text().split()[0]), 0)
