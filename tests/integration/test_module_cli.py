"""`python -m requant`: what it prints and returns."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from requant import progress
from requant.__main__ import main
from requant.results import row

ROOT = Path(__file__).parents[2]
PACKED, GZIP = (ROOT / "tests" / "golden" / f"archive_{storage}_1.h5" for storage in ("packed", "gzip"))
ACCURACY = {"n": 50, "correct": 40, "top1": 0.8, "agreement": 0.85, "kl": 0.1}


def result(model: str, centroids: int) -> dict[str, Any]:
    names = {key: {"method": "kmeans"} for key in ("clustering", "storage", "retrain")}
    config = {"name": "e", "model": {"name": model}, "data": {"name": "d"}, "unlabeled": {"name": "u"}, "seed": 0}
    size = {"original_bytes": 4000, "quantized_bytes": 100 * centroids, "size_reduction": 0.75}
    accuracy = {"teacher": ACCURACY, "quantized": ACCURACY}
    return {"config": {**config, **names, "centroids": centroids}, "hash": "f" * 16, "size": size, "accuracy": accuracy}


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    for number, (model, centroids) in enumerate([("vgg16", 16), ("vgg16", 4), ("resnet50", 8)]):
        folder = tmp_path / "outputs" / str(number)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(result(model, centroids)))
    return tmp_path / "outputs"


def damaged(folder: Path) -> Path:
    content = bytearray(PACKED.read_bytes())
    content[-1] ^= 1
    (folder / "damaged.h5").write_bytes(content)
    return folder / "damaged.h5"


def test_verify_counts_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(PACKED)]) == 0
    assert capsys.readouterr().out == f"ok: {PACKED}: 4 clustered and 10 dense tensors, 1,817 bytes\n"


def test_names_of_files_are_printed_as_they_are(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "of [old] :x: files"
    folder.mkdir()
    file = folder / "packed.h5"
    file.write_bytes(PACKED.read_bytes())
    assert main(["verify", str(file)]) == 0
    assert str(file) in capsys.readouterr().out
    assert main(["runs", str(outputs), "--csv", str(folder / "runs.csv")]) == 0
    assert str(folder / "runs.csv") in capsys.readouterr().out
    assert main(["verify", str(damaged(folder))]) == 1
    assert str(folder / "damaged.h5") in capsys.readouterr().err
    progress.console.print(f"  {file}", soft_wrap=True)
    assert str(file) in capsys.readouterr().out


def test_verify_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(damaged(tmp_path))]) == 1
    streams = capsys.readouterr()
    assert not streams.out
    assert "damaged.h5 is damaged: its checksum does not match" in streams.err
    assert main(["verify", str(tmp_path / "none.h5")]) == 1


def test_a_damaged_file_is_an_error_of_the_other_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(damaged(tmp_path))
    for command in (["inspect", file], ["diff", str(PACKED), file]):
        assert main(command) == 2
        assert "checksum" in capsys.readouterr().err


def test_diff_returns_what_diff_returns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from archives import saved

    saved(tmp_path / "other.h5", seed=1)
    assert main(["diff", str(PACKED), str(GZIP)]) == 0
    assert main(["diff", str(PACKED), str(tmp_path / "other.h5")]) == 1
    assert "tensors differ" in capsys.readouterr().out


def test_inspect_prints_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(PACKED)]) == 0
    table = capsys.readouterr().out
    assert main(["inspect", str(PACKED), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["bytes"] == PACKED.stat().st_size
    for tensor in data["tensors"]:
        (line,) = [line for line in table.splitlines() if line.split()[:1] == [tensor["name"]]]
        assert f"{tensor['bytes']:,}" in line.split()


def test_runs_are_selected_and_ordered(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--where", "model=vgg16", "--sort", "centroids", "--csv", str(tmp_path / "runs.csv")]
    assert main(["runs", str(outputs), *chosen]) == 0
    assert "2 of 3 runs" in capsys.readouterr().out
    with (tmp_path / "runs.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [run["centroids"] for run in table] == ["4", "16"]
    assert set(table[0]) == {*row(result("vgg16", 4)), "path"}


def test_no_run_that_fits_is_no_error(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(outputs), "--where", "centroids>1000"]) == 0
    assert capsys.readouterr().out == "0 of 3 runs\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--sort", "centroid"], "did you mean 'centroids'"), (["--where", "bytes>=few"], "bytes is a number")],
)
def test_wrong_keys_and_values(
    outputs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["runs", str(outputs), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_no_runs_and_no_place_for_the_table(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path / "empty")]) == 2
    assert "no result.json below" in capsys.readouterr().err
    assert main(["runs", str(outputs), "--csv", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("Error:")


def test_every_key_of_a_run_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["runs", "--help"])
    words = capsys.readouterr().out.split()
    for key in row(result("vgg16", 4)):
        student, _, figure = key.partition("_")
        assert key in words or {student, f"NETWORK_{figure}"} <= set(words), key


def test_a_table_of_runs_needs_no_torch_and_fits_the_terminal(outputs: Path) -> None:
    code = "import sys; from requant.__main__ import main; sys.exit(main(sys.argv[1:]) or 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "runs", str(outputs)],
        env=os.environ | {"COLUMNS": "80"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "3 of 3 runs" in done.stdout


def test_as_a_module_errors_have_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "requant", "runs", str(tmp_path)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not done.stdout
