"""Sweeps: which runs are started, with what, how many at a time, and what is said of those that fail."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from made_runs import made_run
from test_config import settings

from requant import sweep as sweeps
from requant.errors import ConfigError
from requant.pool import Command, Outcome
from requant.results import write_result
from requant.runs import run_folder
from requant.sweep import Job, Mistake, figures, run_here, sweep

HYDRA = ["hydra/launcher=process", "hydra.verbose=true", "hydra.sweep.dir=x", "+hydra.launcher.max_parallel=2"]


class Recorded:
    """Runs nothing; the runs end with these codes."""

    def __init__(self, *codes: int) -> None:
        self.codes, self.commands = codes, list[Command]()

    def __call__(self, commands: Sequence[Command]) -> list[Outcome]:
        self.commands += commands
        pairs = zip(commands, self.codes or [0] * len(commands), strict=True)
        return [Outcome(command.name, code, f"a line\n{command.name} ended") for command, code in pairs]


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    """Of three seeds; the first is done."""
    plain = replace(settings(), out=str(tmp_path))
    made = [replace(plain, seed=seed) for seed in range(3)]
    found = [Job(["centroids=4", f"seed={s.seed}"], s, run_folder(s)) for s in made]
    write_result(found[0].folder, made_run(0))
    return found


def test_runs_that_are_not_done_are_started_each_as_it_would_be_alone(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "SLURM_PROCID", "PL_GLOBAL_SEED", "MINE", "SLURM_JOB_ID"):
        monkeypatch.setenv(name, "7")
    run = Recorded()
    assert sweep(jobs, HYDRA, run) is None
    assert [command.name for command in run.commands] == ["seed=1", "seed=2"]
    for command, job in zip(run.commands, jobs[1:], strict=True):
        assert command.arguments == [
            sys.executable,
            sys.argv[0],
            *job.overrides,
            "hydra.verbose=true",
            "hydra.mode=RUN",
        ]
        sevens = {name for name, value in command.environment.items() if value == "7"}
        assert sevens == {"MINE", "SLURM_JOB_ID"}
        assert command.product == job.folder / "result.json"
        assert (command.again, command.gpus) == (("force=false",), 0)
    said = capsys.readouterr().out
    assert "1 of 3 runs are done already" in said
    assert "All 1 runs of this sweep" in said


def test_results_are_shown_in_the_order_of_the_jobs(jobs: list[Job], capsys: pytest.CaptureFixture[str]) -> None:
    for number, job in enumerate(jobs):
        write_result(job.folder, made_run(number))
    backwards = jobs[::-1]
    assert sweep([*backwards, jobs[0]], HYDRA, Recorded()) is None
    said = capsys.readouterr().out.split()
    assert [word for word in said if word.endswith("result.json")] == [str(j.folder / "result.json") for j in backwards]


def test_force_starts_all_over_and_a_dry_run_nothing(jobs: list[Job], capsys: pytest.CaptureFixture[str]) -> None:
    run = Recorded()
    sweep([replace(job, settings=replace(job.settings, force=True)) for job in jobs], [], run)
    assert len(run.commands) == 3
    nothing = Recorded()
    assert sweep([replace(job, settings=replace(job.settings, dry_run=True)) for job in jobs], [], nothing) is None
    assert not nothing.commands
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-3:]] == ["done", "new", "new"]


def test_runs_that_fail_and_mistakes_are_named_and_stop_no_other(jobs: list[Job]) -> None:
    mistake = Mistake(["centroids=4", "seed=x"], ConfigError("seed is no number"))
    for code in (1, -9):
        run = Recorded(0, code)
        error = sweep([*jobs, mistake], [], run)
        assert len(run.commands) == 2
        text = str(error)
        assert text.startswith("2 jobs of the sweep failed")
        assert "seed is no number" in text
        assert "seed=2 ended" in text
        assert "seed=1 ended" not in text


def test_figures_are_those_of_runs_that_are_done(jobs: list[Job]) -> None:
    made = made_run(0)
    assert figures(jobs[0]) == (made["size"]["retrained_bytes"], made["accuracy"]["retrained"]["top1"])
    assert figures(jobs[1]) is None
    assert figures(Mistake([], ConfigError("x"))) is None


@pytest.mark.parametrize(
    ("gpus", "most", "expected"),
    [(0, None, 1), (0, 2, 2), (0, 8, 3), (1, None, 4), (2, None, 2), (2, 1, 1), (2, 8, 2), (3, None, 1), (4, None, 1)],
)
def test_as_many_at_a_time_as_are_asked_for_and_there_are_gpus_for(
    gpus: int, most: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5,7")
    given: list[object] = []
    monkeypatch.setattr(sweeps, "run_all", lambda _, *capacity: given.append(capacity))
    commands = [Command(str(number), [], {}, Path("log"), gpus=gpus) for number in range(3)]
    run_here(commands, most)
    assert given == [(expected, ["2", "3", "5", "7"] if gpus else [])]


def test_more_gpus_than_there_are_and_none_at_a_time_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(sweeps, "run_all", lambda *_: [])
    command = Command("a", [], {}, Path("log"), gpus=3)
    with pytest.raises(ConfigError, match=r"trainer\.devices=3, but there are 2 GPUs"):
        run_here([command])
    with pytest.raises(ConfigError, match="max_parallel=0"):
        run_here([replace(command, gpus=0)], 0)
