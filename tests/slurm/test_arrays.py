"""Plain commands as jobs of a real Slurm: what they get, how they end, what becomes of those that it takes away."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from requant.errors import UserError
from requant.pool import Command
from requant.slurm import Request, launching, run_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # Slurm waits two minutes before it starts a job again
QUICK = Request(time="5")


@pytest.fixture(autouse=True)
def at_the_cluster(slurm: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "POLL", 0.3)
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, slurm[name])


def shell(tmp_path: Path, name: str, code: str, **needs: object) -> Command:
    return Command(name, ["sh", "-c", code], dict(os.environ), tmp_path / f"{name}.log", **needs)  # type: ignore[arg-type]


def said(tmp_path: Path, name: str) -> list[str]:
    return (tmp_path / f"{name}.log").read_text().split()


def until(true: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def jobs(state: str = "all") -> list[str]:
    command = ["squeue", "-h", "-r", f"--states={state}", "-o", "%i"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_each_gets_its_tasks_and_gpus_and_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    commands = [
        shell(tmp_path, "plain", 'echo "it\'s $SLURM_NTASKS [$SLURM_GPUS_ON_NODE]"'),
        shell(tmp_path, "fails", "echo the reason; exit 7"),
        shell(tmp_path, "gpus", "echo $SLURM_GPUS_ON_NODE", gpus=2),
        shell(tmp_path, "tasks", "echo $SLURM_PROCID", tasks=2),
    ]
    outcomes = run_all(commands, QUICK)
    assert [(outcome.name, outcome.code) for outcome in outcomes] == [
        ("plain", 0),
        ("fails", 7),
        ("gpus", 0),
        ("tasks", 0),
    ]
    assert "the reason" in outcomes[1].said
    assert said(tmp_path, "plain") == ["it's", "1", "[]"]
    assert said(tmp_path, "gpus") == ["2"]
    assert sorted(said(tmp_path, "tasks")) == ["0", "1"]
    assert not list(tmp_path.glob("*.slurm"))


def test_so_many_of_an_array_at_once_with_lines_of_shell_and_cpus(tmp_path: Path) -> None:
    code = "date +%s.%N; sleep 0.7; date +%s.%N; echo $OMP_NUM_THREADS $GREETING"
    request = Request(time="5", cpus_per_task=2, setup=["export GREETING=hello"], options=["--nice=1"])
    run_all([shell(tmp_path, name, code) for name in "abc"], request, max_parallel=1)
    spans = sorted(tuple(map(float, said(tmp_path, name)[:2])) for name in "abc")
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    assert {tuple(said(tmp_path, name)[2:]) for name in "abc"} == {("2", "hello")}


@pytest.mark.parametrize(("partition", "restarts"), [("normal", True), ("taken", False)])
def test_what_a_more_urgent_job_pushed_out_is_started_again(tmp_path: Path, partition: str, restarts: bool) -> None:
    """By Slurm itself where it puts such jobs back into the queue, by us where it ends them."""
    code = f"echo started >> {tmp_path}/starts; [ $(wc -l < {tmp_path}/starts) -gt 1 ] || sleep 100; echo with $0"
    command = Command("low", ["sh", "-c", code], dict(os.environ), tmp_path / "low.log", again=("again",))
    script = f"import time\nwhile not __import__('os').path.exists('{tmp_path}/starts'): time.sleep(0.1)\n"
    script += "__import__('os').system('sbatch -p urgent --exclusive -t 1 -o /dev/null --wrap \"sleep 1\"')"
    urgent = subprocess.Popen([sys.executable, "-c", script])
    (outcome,) = run_all([command], Request(time="5", options=[f"--partition={partition}"]))
    assert urgent.wait() == 0
    assert outcome.code == 0
    assert (tmp_path / "starts").read_text() == "started\n" * 2
    assert said(tmp_path, "low")[-2:] == ["with", "again"]
    assert ("Slurm starts this job again" in (tmp_path / "low.log").read_text()) == restarts


def test_near_its_time_limit_a_job_goes_back_to_the_queue(tmp_path: Path) -> None:
    code = f"echo started >> {tmp_path}/starts; [ $(wc -l < {tmp_path}/starts) -gt 1 ] || sleep 200; echo done"
    (outcome,) = run_all([shell(tmp_path, "long", code)], Request(time="2"))
    assert outcome.code == 0
    assert "near its time limit: back to the queue" in (tmp_path / "long.log").read_text()
    assert (tmp_path / "starts").read_text() == "started\n" * 2


def test_a_cancelled_job_is_a_failure(tmp_path: Path) -> None:
    waiting = shell(tmp_path, "cancelled", "sleep 100")
    script = "import subprocess, time, glob\n"
    script += f"while not glob.glob('{tmp_path}/*.slurm'): time.sleep(0.1)\n"
    script += f"time.sleep(1); subprocess.run(['scancel', open('{tmp_path}/cancelled.slurm').read().strip()])"
    canceller = subprocess.Popen([sys.executable, "-c", script])
    outcomes = run_all([waiting, shell(tmp_path, "other", "echo fine")], QUICK)
    assert canceller.wait() == 0
    assert [outcome.code != 0 for outcome in outcomes] == [True, False]
    assert "CANCELLED" in outcomes[0].said


def test_what_slurm_does_not_take_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="invalid partition"):
        run_all([shell(tmp_path, "a", "echo")], Request(options=["--partition=nowhere"]))


STARTER = """\
import os, sys
from pathlib import Path
from requant.pool import Command
from requant.slurm import Request, launching, run_all
launching.POLL = 0.3
folder = Path(sys.argv[1])
code = f"echo run >> {folder}/runs; until [ -e {folder}/go ]; do sleep 0.1; done"
commands = [Command(name, ["sh", "-c", code], dict(os.environ), folder / f"{name}.log") for name in "ab"]
print([outcome.code for outcome in run_all(commands, Request(time="5"))])
"""


def start(tmp_path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", STARTER, tmp_path], stdout=subprocess.PIPE, text=True)


def test_the_next_start_waits_for_the_jobs_that_a_killed_one_left_in_the_queue(tmp_path: Path) -> None:
    first = start(tmp_path)
    until(lambda: (tmp_path / "runs").exists())
    first.kill()
    first.communicate()
    second = start(tmp_path)
    assert second.stdout is not None
    assert "2 jobs of an earlier start are in Slurm's queue" in second.stdout.readline()
    (tmp_path / "go").touch()
    printed, _ = second.communicate()
    assert "[0, 0]" in printed
    assert (tmp_path / "runs").read_text() == "run\n" * 2


def test_an_interrupt_cancels_all(tmp_path: Path) -> None:
    first = start(tmp_path)
    until(lambda: (tmp_path / "runs").exists())
    first.send_signal(signal.SIGINT)
    first.communicate()
    until(lambda: not jobs("pending,running,completing"), 20)
