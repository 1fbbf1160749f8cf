import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import made_run, write_runs

from requant.__main__ import main
from requant.errors import UserError
from requant.results import flattened, write_result
from requant.webpage import build, write_page
from requant.webpage.building import embedded, run_of

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class Scripts(HTMLParser):
    """What a browser takes for the content of script elements, and what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.fetched: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag == "script"
        self.fetched += [str(value) for key, value in attrs if key in ("src", "href")]
        if self.inside:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.scripts[-1] += data


@pytest.fixture
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("requant.webpage.building._plotly", lambda: "/* plotly */")


def without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@given(values)
def test_whatever_a_run_holds_stays_inside_its_script_and_comes_back(value: Any) -> None:
    parser = Scripts()
    parser.feed(f'<script type="application/json">{embedded(value)}</script><p>')
    assert [json.loads(script) for script in parser.scripts] == [without_nan(value)]


@pytest.mark.usefixtures("_light")
def test_the_page_holds_every_run_and_fetches_nothing(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", 3)
    assert write_page(tmp_path / "runs", tmp_path / "page.html") == 3
    parser = Scripts()
    parser.feed((tmp_path / "page.html").read_text())
    shown, plotly, _ = parser.scripts
    assert "plotly" in plotly
    assert parser.fetched == []
    for number, (run, found) in enumerate(zip(runs, json.loads(shown), strict=True)):
        assert found["id"] == f"made/{number:04}"
        assert found["settings"] == flattened(run["config"])
        assert found["row"]["top1"] == run["accuracy"]["retrained"]["top1"]
        assert found["curves"]["conventional"]["top1"] == [entry["top1"] for entry in run["baseline"]["curve"]]
        assert found["tensors"]["bytes"] == [tensor["bytes"] for tensor in run["plan"]]


@pytest.mark.usefixtures("_light")
def test_marks_and_tags_in_runs_and_folders_are_only_text() -> None:
    page = build([{"id": "@@script@@</script><b>"}], "<i>@@runs@@")
    assert "</script><b>" not in page
    assert "<i>" not in page
    assert page.count('"use strict"') == 1


def test_the_figures_of_a_run_without_retraining_are_the_quantized_networks(tmp_path: Path) -> None:
    run = made_run(1)
    del run["retrain"], run["baseline"], run["accuracy"]["retrained"]
    path = write_result(tmp_path / "a", run)
    found = run_of(path, tmp_path)
    assert found["row"]["top1"] == run["accuracy"]["quantized"]["top1"]
    assert found["curves"] == {}


def test_a_trained_teacher_is_a_run_without_a_size(tmp_path: Path) -> None:
    run = made_run(1)
    only = {key: run[key] for key in ("config", "hash", "seconds")} | {
        "accuracy": {"teacher": run["accuracy"]["teacher"]}
    }
    found = run_of(write_result(tmp_path, only), tmp_path)
    assert found["row"]["top1"] == run["accuracy"]["teacher"]["top1"]
    assert found["row"]["bytes"] is None


def test_no_runs_and_no_plotly_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no result\.json below"):
        write_page(tmp_path, tmp_path / "page.html")
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    with pytest.raises(UserError, match=r"requant\[report\]"):
        build([], "runs")


@pytest.mark.usefixtures("_light")
def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_runs(tmp_path, 2)
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "r.html")]) == 0
    assert "2 runs" in capsys.readouterr().out
