from pathlib import Path
from unittest.mock import MagicMock

import pandas as pd
import pytest
import wandb
from made_runs import made_run
from PIL import Image

from requant.results import summary
from requant.tracking import tracking

SETTINGS = {"model": {"name": "vgg16"}, "centroids": 8}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """A run of wandb's that only remembers; `init` is how it was started."""
    made = MagicMock(id="0123456789abcdef", summary={})
    made.init = MagicMock(return_value=made)
    monkeypatch.setattr(wandb, "init", made.init)
    return made


def test_a_run_is_known_by_its_settings_and_goes_on_under_their_hash(run: MagicMock, tmp_path: Path) -> None:
    with tracking(tmp_path, "wandb", "p", "offline", group="study", identity=run.id, settings=SETTINGS):
        run.finish.assert_not_called()
    given = run.init.call_args.kwargs
    assert (given["id"], given["resume"], given["group"]) == (run.id, "allow", "study")
    assert given["config"] == {"model.name": "vgg16", "centroids": 8}
    run.define_metric.assert_any_call("retrained-*", step_metric="retrained-epoch")
    run.finish.assert_called_once_with(exit_code=0)


def test_its_summary_is_flat_and_the_file_goes_with_it_on_request(run: MagicMock, tmp_path: Path) -> None:
    with tracking(tmp_path, "wandb", "p", "offline", group="g", identity=run.id, settings=SETTINGS) as tracker:
        tracker.summarise(summary(made_run(1)))
        tracker.keep(tmp_path / "retrained.h5")
    wanted = {"bytes", "bits_per_weight", "size_reduction", "top1", "agreement", "seconds", "layer_bytes_14"}
    assert wanted <= set(run.summary)
    assert all(isinstance(value, int | float) for value in run.summary.values())
    assert run.summary["top1"] == made_run(1)["accuracy"]["retrained"]["top1"]
    run.log_artifact.assert_called_once_with(str(tmp_path / "retrained.h5"), name=f"retrained-{run.id}", type="network")


def test_a_study_s_rows_and_picture_go_with_it(run: MagicMock, tmp_path: Path) -> None:
    plain = Image.new("L", (4, 4))
    plain.save(tmp_path / "map.png")
    rows = pd.DataFrame({"layers": ["1", "14-15"], "centroids": [4, 16], "kl": [0.5, None]})
    with tracking(tmp_path, "wandb", "p", "offline", group="g", identity=run.id, settings=SETTINGS) as tracker:
        tracker.table("points", rows)
        tracker.picture("summary", tmp_path / "map.png")
    (table,), (picture,) = (call.args for call in run.log.call_args_list)
    assert table["points"].columns == ["layers", "centroids", "kl"]
    assert [row[:2] for row in table["points"].data] == [["1", 4], ["14-15", 16]]
    assert isinstance(picture["summary"], wandb.Image)


def test_a_run_that_fails_is_finished_as_failed(run: MagicMock, tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        tracking(tmp_path, "wandb", "p", "offline", group="g", identity=run.id, settings=SETTINGS),
    ):
        raise KeyboardInterrupt
    run.finish.assert_called_once_with(exit_code=1)


def test_without_wandb_nothing_is_kept(run: MagicMock, tmp_path: Path) -> None:
    with tracking(tmp_path, "csv", "p", "offline", group="g", identity="i", settings={}) as tracker:
        tracker.summarise({"top1": 1.0})
        tracker.keep(tmp_path / "none.h5")
        tracker.table("points", pd.DataFrame())
        tracker.picture("summary", tmp_path / "none.png")
        assert tracker.loggers("retrained") == []
    run.init.assert_not_called()
