import subprocess
import sys
from pathlib import Path

import pytest
from test_config import settings

from requant.errors import ConfigError
from requant.runs import claim, provenance, run_folder, settings_hash, teacher_hash


def test_the_hash_is_stable_and_moves_with_what_can_change_the_result() -> None:
    assert settings_hash(settings()) == settings_hash(settings())
    assert settings_hash(settings("seed=1")) != settings_hash(settings())
    assert settings_hash(settings("trainer.devices=2")) != settings_hash(settings())  # batch_size is per device


def test_a_folder_of_images_counts_by_what_it_holds(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(b"12345")
    here, there = (settings("unlabeled=folder", f"unlabeled.root={tmp_path / name}") for name in ("here", "there"))
    assert settings_hash(here) == settings_hash(there)


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


def test_the_folder_tells_the_key_settings() -> None:
    folder = run_folder(settings("centroids=16", "name=study", "out=somewhere"))
    assert folder.parts[:3] == ("somewhere", "study", "vgg_small-mnist5k")
    assert folder.name.startswith("equal_population-k16-packed-proposed-digits-s0-")


def test_a_folder_is_claimed_once(tmp_path: Path) -> None:
    claim(tmp_path, settings())
    claim(tmp_path, settings("data.workers=1"))
    with pytest.raises(ConfigError, match="belongs to settings"):
        claim(tmp_path, settings("seed=9"))


def test_provenance_names_versions_and_machine() -> None:
    found = provenance()
    assert found["versions"]["torch"]
    assert found["machine"]["cpu"]
    assert found["git"] is None or len(found["git"].removesuffix("-dirty")) == 40


def test_the_light_parts_do_not_import_torch() -> None:
    names = "requant, requant.config, requant.plan, requant.results, requant.report, requant.figures.run, requant.cli"
    code = f"import sys, {names}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
