"""What a run takes from its start to its first training step, and how fast a sweep of 16 runs is, 1 and 2 at a time.

python -m benchmarks.job_start [starts | sweeps]. The embedded data (the defaults of conf/config.yaml, small); the
teacher is trained beforehand. A start is measured three times with an empty cache of shared work and three times with a
full one, in computing time, which other work on the machine changes little; a sweep once each, by the clock and in
computing time.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.table import Table

from benchmarks.arguments import command_line, print_table

ROOT = Path(__file__).parents[1]
SMALL = ("data.train_limit=600", "data.limit=200", "unlabeled.limit=200", "teacher.epochs=2", "retrain@baseline=none")
STARTS = 3
IMPORTS = ("hydra", "torch", "torchvision", "pytorch_lightning", "requant.app")


class FirstStep(BaseException):
    """The run has got there; not an Exception, so that nothing on the way takes it for an error."""


def main(what: str) -> None:
    """Measure, show."""
    with TemporaryDirectory() as folder:
        environment = os.environ | {"REQUANT_CACHE": f"{folder}/cache", "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
        _run(environment, "task=teacher", f"out={folder}/teacher")
        if what != "sweeps":
            table = Table("from start to first step, s", "first run", "others of its sweep")
            found = [_starts(environment, Path(folder), fresh) for fresh in (True, False)]
            for part in found[0]:
                table.add_row(part, *(f"{starts[part]:.2f}" for starts in found))
            print_table(table)
        if what != "starts":
            table = Table("16 runs", "seconds", "runs an hour", "computing, s")
            for at_once in (1, 2):
                seconds, computing = _sweep(environment, f"{folder}/sweep{at_once}", at_once)
                table.add_row(
                    f"{at_once} at a time", f"{seconds:.0f}", f"{3600 * 16 / seconds:.0f}", f"{computing:.0f}"
                )
            print_table(table)


def _starts(environment: dict[str, str], folder: Path, fresh: bool) -> dict[str, float]:
    """The median of each part, over several starts."""
    starts = []
    for number in range(STARTS):
        if fresh:
            subprocess.run(["rm", "-rf", folder / "cache" / "shared"], check=True)
        overrides = [*SMALL, f"out={folder}/{fresh}{number}"]
        command = [sys.executable, "-m", "benchmarks.job_start", "one", *overrides]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        starts.append(json.loads(done.stdout.splitlines()[-1]))
    return {part: statistics.median(start[part] for start in starts) for part in starts[0]}


def _sweep(environment: dict[str, str], out: str, at_once: int) -> tuple[float, float]:
    """Seconds by the clock, and of computing."""
    started, before = time.perf_counter(), os.times()
    overrides = ("centroids=2,4,8,16", "seed=0,1,2,3", "retrain.epochs=2", f"hydra.launcher.max_parallel={at_once}")
    _run(environment, "-m", *overrides, f"out={out}")
    after = os.times()
    computing = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, computing


def _run(environment: dict[str, str], *overrides: str) -> None:
    command = [sys.executable, "run.py", *overrides, *SMALL]
    subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)


def one(overrides: list[str]) -> dict[str, float]:
    """In a process of its own: the seconds of each part of a start."""
    parts = {"Python": time.process_time()}
    for name in IMPORTS:
        begin = time.process_time()
        import_module(name)
        parts[f"import {name}"] = time.process_time() - begin
    begin = time.process_time()
    settings = _settings(overrides)
    parts["settings"] = time.process_time() - begin
    begin = time.process_time()
    _until_the_first_step(settings)
    parts["data, teacher, clusters, counts, Lightning"] = time.process_time() - begin
    return parts | {"all": time.process_time()}


def _settings(overrides: list[str]) -> Any:
    from hydra import compose, initialize_config_dir

    from requant.settings import parse, register

    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return parse(compose("config", overrides))


def _until_the_first_step(settings: Any) -> None:
    from requant import app
    from requant.retraining.module import Retraining

    def step(*_: Any) -> None:
        raise FirstStep

    Retraining.training_step = step  # type: ignore[assignment, method-assign]
    with suppress(FirstStep):
        app.run(settings)


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        print(json.dumps(one(sys.argv[2:])))
    else:
        parser = command_line(__doc__)
        parser.add_argument("what", nargs="?", choices=("starts", "sweeps", "both"), default="both")
        main(parser.parse_args().what)
