import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from test_config import settings

from requant import app, machine
from requant.errors import ConfigError
from requant.files import exclusive
from requant.layout import RESULT
from requant.machine import provenance
from requant.results import described
from requant.runs import claimed, run_folder, settings_hash, state, teacher_hash
from requant.settings import all_settings


def test_the_hash_is_stable_and_moves_with_what_can_change_the_result() -> None:
    assert settings_hash(settings()) == settings_hash(settings())
    assert settings_hash(settings("seed=1")) != settings_hash(settings())
    assert settings_hash(settings("trainer.devices=2")) != settings_hash(settings())  # batch_size is per device


def test_what_a_task_does_not_look_at_does_not_move_its_hash() -> None:
    plain = settings()
    linear, study = replace(plain.clustering, method="linear"), replace(plain.sensitivity, centroids=[4])
    alone, auto = replace(plain, task="sensitivity"), settings("plan=auto")
    longer, fewer = replace(plain.retrain, epochs=99), replace(plain.unlabeled, limit=9)
    hashed = settings_hash
    assert hashed(replace(plain, sensitivity=study)) == hashed(plain)
    plan = replace(plain.plan, rules=[{"kind": "weight", "centroids": 3}])
    unseen = replace(alone, centroids=9, plan=plan, retrain=longer, unlabeled=fewer)
    assert hashed(unseen) == hashed(alone)
    assert len({hashed(alone), hashed(plain), hashed(replace(alone, sensitivity=study))}) == 3
    assert hashed(replace(alone, clustering=linear)) != hashed(alone)
    assert hashed(replace(auto, centroids=9, clustering=linear)) == hashed(auto)
    others = ({"plan": plan}, {"centroids": 9}, {"clustering": linear}, {"retrain": longer}, {"unlabeled": fewer})
    assert len({hashed(plain), hashed(auto), *(hashed(replace(plain, **other)) for other in others)}) == 7


def test_a_folder_of_images_counts_by_what_it_holds(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(b"12345")
    here, there = (settings("unlabeled=folder", f"unlabeled.root={tmp_path / name}") for name in ("here", "there"))
    assert settings_hash(here) == settings_hash(there)


@pytest.mark.parametrize("key", ["rotate", "balance"])
def test_what_plans_of_their_own_do_moves_their_hashes_alone(key: str) -> None:
    assert settings_hash(settings(f"plan.{key}=false")) == settings_hash(settings())
    auto = ("plan=auto", "retrain=reconstruct")
    assert settings_hash(settings(*auto, f"plan.{key}=false")) != settings_hash(settings(*auto))


def test_statistics_that_are_not_given_leave_hashes_as_they_were() -> None:
    assert settings_hash(settings("model.mean=null")) == settings_hash(settings())
    assert settings_hash(settings("model.mean=[0.5]", "model.std=[0.5]")) != settings_hash(settings())
    assert teacher_hash(settings("model.mean=[0.5]", "model.std=[0.5]")) != teacher_hash(settings())


def test_no_dreams_leave_hashes_as_they_were() -> None:
    plain = ("retrain=reconstruct",)
    assert settings_hash(settings(*plain, "retrain.dreams=0")) == settings_hash(settings(*plain))
    assert settings_hash(settings(*plain, "retrain.dreams=9")) != settings_hash(settings(*plain))


def test_without_labels_the_unlabeled_images_are_measured_on() -> None:
    study = ("task=sensitivity", "model.weights=none")
    assert settings_hash(settings(*study, "unlabeled.limit=9")) == settings_hash(settings(*study))
    none = (*study, "data=none")
    assert settings_hash(settings(*none, "unlabeled.limit=9")) != settings_hash(settings(*none))


def test_a_file_of_weights_counts_by_its_bytes(tmp_path: Path) -> None:
    for name, content in (("a", b"1234"), ("b", b"1234"), ("c", b"1235")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.safetensors").write_bytes(content)
    a, b, c = (settings_hash(settings(f"model.weights={tmp_path / n / 'net.safetensors'}")) for n in "abc")
    assert a == b != c


def test_a_teacher_does_not_depend_on_how_it_is_compressed() -> None:
    assert teacher_hash(settings("centroids=16", "plan=weights", "seed=3", "data.limit=10")) == teacher_hash(settings())
    assert teacher_hash(settings("teacher.epochs=9")) != teacher_hash(settings())
    assert teacher_hash(settings("data.train_limit=10")) != teacher_hash(settings())
    assert teacher_hash(settings("trainer.precision=bf16-mixed")) != teacher_hash(settings())


def test_the_folder_tells_the_key_settings() -> None:
    folder = run_folder(settings("centroids=16", "name=study", "out=somewhere"))
    assert folder.parts[:3] == ("somewhere", "study", "vgg_small-mnist5k")
    assert folder.name.startswith("equal_population-k16-packed-proposed-digits-s0-")
    plain = settings()
    solved, left = (replace(plain, retrain=replace(plain.retrain, method=how)) for how in ("reconstruct", "none"))
    for found, start in (
        (solved, "equal_population-k4-packed-reconstruct-digits"),
        (left, "equal_population-k4-packed-none"),
        (replace(plain, task="teacher"), "teacher"),
        (replace(plain, task="sensitivity"), "sensitivity-weight-equal_population-packed"),
    ):
        assert run_folder(found).name == f"{start}-s0-{settings_hash(found)}"


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    (tmp_path / "retrained").mkdir()
    for name in (".quantized.h5.123.tmp", "retrained/.last.ckpt.123.tmp", "retrained/last.ckpt"):
        (tmp_path / name).touch()
    with claimed(tmp_path, settings()):
        assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"last.ckpt", "settings.json", ".lock"}


def test_a_folder_belongs_to_one_set_of_settings(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert state(folder) == "new"
    with claimed(folder, settings()):
        assert state(folder) == "unfinished"
    with claimed(folder, settings("data.workers=1")):
        pass
    with pytest.raises(ConfigError, match="belongs to settings"), claimed(folder, settings("seed=9")):
        pass
    (folder / "result.json").write_text("{}")
    assert state(folder) == "done"


def test_starting_over_empties_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with claimed(folder, settings()):
        (folder / "result.json").write_text("{}")
        (folder / "retrained").mkdir()
        (folder / "retrained" / "last.ckpt").write_text("x")
    with claimed(folder, settings("force=true")):
        assert {path.name for path in folder.iterdir()} == {".lock", "settings.json"}


def test_a_second_process_waits_for_the_first(tmp_path: Path) -> None:
    """Also where the first is killed: a lock dies with its process."""
    lock = tmp_path / ".lock"
    code = (
        "import time\nfrom pathlib import Path\nfrom requant.files import exclusive\n"
        f"with exclusive(Path({str(lock)!r})):\n    print('in', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "in\n"
        threading.Timer(0.5, first.kill).start()
        with exclusive(lock):
            assert first.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("target", "named", "titled"),
    [
        (["target.size_mb=1.5"], "auto-1.5mb-", "auto, 1.5 MB"),
        (["target.reduction=0.95"], "auto-0.95-", "auto, -95 %"),
        (["target.reduction=null", "target.max_drop=0.01"], "auto-drop0.01-", "auto, drop 1 %"),
    ],
)
def test_an_automatic_plan_is_named_by_its_target(target: list[str], named: str, titled: str) -> None:
    found = settings("plan=auto", *target)
    assert run_folder(found).name.startswith(named)
    assert described(all_settings(found)) == titled


def test_a_repository_around_an_environment_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "machine.py").touch()
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "machine.py"))
    assert provenance()["git"] is None


def test_provenance_names_versions_and_machine() -> None:
    found = provenance()
    assert found["versions"]["torch"]
    assert found["machine"]["cpu"]
    assert found["git"] is None or len(found["git"].removesuffix("-dirty")) == 40


def test_the_light_parts_do_not_import_torch() -> None:
    names = "requant, requant.config, requant.plan, requant.results, requant.report, requant.figures.run, requant.cli"
    code = f"import sys, {names}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_other_processes_of_a_run_do_nothing_where_nothing_is_to_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def task(_: object, folder: Path) -> Path:
        started.append(folder)
        return folder

    started: list[Path] = []
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setitem(app._TASKS, "compress", task)
    given = (f"out={tmp_path}", "trainer=ddp_cpu")
    folder = run_folder(settings(*given))
    app.run(settings(*given, "dry_run=true"))
    assert started == []
    app.run(settings(*given))
    folder.mkdir(parents=True)
    (folder / RESULT).touch()
    app.run(settings(*given))
    assert started == [folder]
    app.run(settings(*given, "force=true"))
    assert started == [folder, folder]
