"""Job arrays against programs that act as Slurm's (tests/slurm has the real one)."""

import os
from pathlib import Path

import pytest

from requant.errors import UserError
from requant.pool import Command
from requant.slurm import Request, launching, queue, run_all

SBATCH = """#!/bin/sh
cat > $FAKE/script; echo "$@" >> $FAKE/asked
for word in "$@"; do case $word in --array=0-*) last=${word#--array=0-};; esac; done
array=$(( $(cat $FAKE/arrays 2> /dev/null || echo 0) + 1 )); echo $array > $FAKE/arrays
for task in $(seq 0 ${last%%%*}); do
  SLURM_ARRAY_TASK_ID=$task SLURM_JOB_ID=$array$task bash $FAKE/script
  echo "${array}_$task $?" >> $FAKE/ended
done
echo $array
"""
SQUEUE = """#!/bin/sh
while read job code; do
  state=COMPLETED; [ $code = 0 ] || state=FAILED
  [ -e $FAKE/$job ] && state=$(cat $FAKE/$job)
  printf '%-40s%-20s%-12s%-60s\\n' $job $state $((code * 256)) None
done < $FAKE/ended
"""
SRUN = """#!/bin/sh
shift; exec "$@"
"""


@pytest.fixture(autouse=True)
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The programs, and the folder of what they were asked and of states to answer with."""
    for name, text in {"sbatch": SBATCH, "squeue": SQUEUE, "srun": SRUN}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(launching, "POLL", 0)
    return tmp_path


def shell(fake: Path, name: str, code: str, **needs: object) -> Command:
    return Command(name, ["sh", "-c", code, "it's"], dict(os.environ), fake / f"{name}.log", **needs)  # type: ignore[arg-type]


def test_what_needs_the_same_makes_one_array_and_each_ends_as_it_did(fake: Path) -> None:
    commands = [
        shell(fake, "a", "echo '1  \"2\"' $0; echo oh >&2"),
        shell(fake, "b", "exit 3", nodes=2, tasks=4, gpus=4),
        shell(fake, "c", "echo $0"),
    ]
    request = Request(time="7:00", memory="3G", cpus_per_task=2, options=["--partition=gpu", "--time=8:00"])
    outcomes = run_all(commands, request, max_parallel=5)
    assert [(outcome.name, outcome.code) for outcome in outcomes] == [("a", 0), ("b", 3), ("c", 0)]
    assert (fake / "a.log").read_text() == '1  "2" it\'s\noh\n'
    two, one = (fake / "asked").read_text().splitlines()
    assert "--array=0-1%5" in two
    assert "--array=0-0%5" in one
    assert "--nodes=2 --ntasks-per-node=4 --gpus-per-node=4" in one
    assert "gpus" not in two
    for option in ("--requeue", "--mem=3G", "--cpus-per-task=2", "--partition=gpu", "--time=8:00"):
        assert option in two
    assert not list(fake.glob("*.slurm"))


@pytest.mark.parametrize(("state", "code"), [("PREEMPTED", 0), ("TIMEOUT", 1)])
def test_what_slurm_took_is_submitted_again_and_what_ran_out_of_time_is_a_failure(
    fake: Path, state: str, code: int
) -> None:
    (fake / "1_0").write_text(state)
    (outcome,) = run_all([shell(fake, "a", "echo run $1 >> $FAKE/runs", again=("again",))], Request())
    assert outcome.code == code
    assert (fake / "runs").read_text() == ("run\nrun again\n" if state == "PREEMPTED" else "run\n")
    assert (state in outcome.said) == (code != 0)


def test_a_job_that_is_forgotten_has_ended_well_if_its_product_is_there(fake: Path) -> None:
    (fake / "squeue").write_text("#!/bin/sh\necho 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1\n")
    commands = [shell(fake, name, "true", product=fake / name) for name in ("sbatch", "missing")]
    good, bad = run_all(commands, Request())
    assert (good.code, bad.code) == (0, 1)
    assert "no longer in the queue" in bad.said


def test_without_slurm_or_where_it_does_not_answer(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fake / "squeue").write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n")
    assert queue.states({"1"}) is None
    (fake / "sbatch").write_text("#!/bin/sh\necho 'invalid account' >&2; exit 1\n")
    with pytest.raises(UserError, match="invalid account"):
        run_all([shell(fake, "a", "true")], Request())
    monkeypatch.setenv("PATH", str(fake / "nowhere"))
    with pytest.raises(UserError, match="hydra/launcher=process"):
        queue.states({"1"})
