"""The workspace draws keys that runs have; nothing here needs a network."""

import importlib.util
import re
import warnings
from pathlib import Path
from types import ModuleType

import pytest
from made_runs import made_run

from requant.results import summary


@pytest.fixture(scope="module")
def dashboard() -> ModuleType:
    path = Path(__file__).parents[2] / "experiments" / "dashboard.py"
    spec = importlib.util.spec_from_file_location("dashboard", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # wandb_workspaces is written for pydantic 1
        spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")
def test_every_section_has_its_panel_and_every_key_is_a_runs(dashboard: ModuleType) -> None:
    drawn = dashboard.workspace("somebody", "requant")._to_model().model_dump_json()
    for panel in ("Scatter Plot", "Run History Line Plot", "Bar Chart", "Run Comparer"):
        assert panel in drawn
    keys = set(summary(made_run(1)))
    assert {f"layer_bytes_{layer:02}" for layer in range(1, 17)} <= keys
    assert set(re.findall(r'"summary:(\w+)"', drawn)) <= keys
    assert {"retrained-top1", "conventional-top1"} <= set(re.findall(r"(?:retrained|conventional)-top1", drawn))


@pytest.mark.filterwarnings("ignore")
def test_without_push_it_is_only_shown(
    dashboard: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["dashboard.py", "somebody"])
    monkeypatch.setattr(dashboard.ws.Workspace, "save", lambda _: pytest.fail("nothing may be saved"))
    dashboard.main()
    assert '"layer_bytes_01"' in capsys.readouterr().out.replace("summary_metrics.", "")
