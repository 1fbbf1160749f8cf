"""Networks of one's own code: found, made, told apart by what the code says, and never run for an archive."""

from pathlib import Path

import pytest
import torch
from torch import nn

from requant.archive import load, save
from requant.compression import compress
from requant.errors import ArchiveError, ConfigError
from requant.inspection import inspect
from requant.models import Architecture, build, make, preprocessing
from requant.network_names import name_by_content, name_in_file
from requant.own_code import is_own, source

CODE = """
import beside
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(beside.INPUTS, 4))
def number():
    return 4
def broken():
    return nn.Linear("3", 4)
"""
MEAN, STD = (0.5,), (0.25,)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("INPUTS = 64\n")
    path = tmp_path / "nets.py"
    path.write_text(CODE)
    return path


def architecture(name: str, classes: int = 4) -> Architecture:
    return Architecture(name, classes, channels=1, image_size=8, mean=MEAN, std=STD)


def test_a_file_may_import_what_lies_beside_it(code: Path) -> None:
    found = build(architecture(f"own:{code}:net"))
    assert found(torch.zeros(2, 1, 8, 8)).shape == (2, 4)
    wanted = preprocessing(architecture(f"own:{code}:net"))
    assert (wanted.size, wanted.resize, wanted.mean, wanted.std) == (8, 8, MEAN, STD)


def test_a_module_does_as_well_as_a_file() -> None:
    assert source("own:torch.nn:Identity") == Path(nn.__file__)
    assert isinstance(make("own:torch.nn:Identity"), nn.Identity)


def test_the_name_in_a_file_has_no_place_and_the_name_by_content_follows_the_code(code: Path, tmp_path: Path) -> None:
    name = f"own:{code}:net"
    assert is_own(name)
    assert name_in_file(name) == name_in_file(name_in_file(name)) == "own:net"
    assert name_in_file("timm:resnet18") == name_by_content("timm:resnet18") == "timm:resnet18"
    copy, other = tmp_path / "copy.py", tmp_path / "other.py"
    copy.write_text(CODE)
    other.write_text(CODE.replace("64", "32").replace("INPUTS", "INPUTS + 0"))
    assert name_by_content(f"own:{copy}:net") == name_by_content(name) != name_by_content(f"own:{other}:net")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own:{}:nets", r"no function 'nets'; did you mean 'net'\?"),
        ("own:{}:number", "gives a int"),
        ("own:{}:broken", r"cannot be made: TypeError: .*linear\.py, line"),
        ("own:{}.py:net", "there is no file"),
        ("own:no.such.module:net", "there is no module no.such.module"),
        ("own:net", "does not say where the network's code is"),
        ("own:", "does not say where"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(code: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(architecture(name.format(code)))


def test_other_numbers_of_classes_and_unknown_statistics_are_refused(code: Path) -> None:
    with pytest.raises(ConfigError, match=r"puts out \(1, 4\) for one image, not \(1, 5\)"):
        build(architecture(f"own:{code}:net", classes=5))
    with pytest.raises(ConfigError, match=r"model\.mean=\[\.\.\.\]"):
        preprocessing(Architecture(f"own:{code}:net", 4, channels=1, image_size=8))


def test_an_archive_does_not_get_to_run_code(tmp_path: Path) -> None:
    ran, code = tmp_path / "ran", tmp_path / "hostile.py"
    code.write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\nnet = None\n")
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    found = compress(teacher, [{"kind": "weight", "centroids": 4}], torch.zeros(1, 1, 8, 8))
    described = architecture(f"own:{code}:net").to_dict()
    save(tmp_path / "a.h5", found.model, found.codebooks, architecture=described)
    with pytest.raises(ArchiveError, match=r"cannot be built: it is made by its owner's code \(net\)"):
        load(tmp_path / "a.h5")
    inspect(tmp_path / "a.h5")
    assert not ran.exists()
    again = load(tmp_path / "a.h5", teacher)
    assert torch.equal(again[1].weight, found.model[1].weight)
