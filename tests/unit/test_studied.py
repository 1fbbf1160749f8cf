"""What a study found, as tables and as a picture."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from requant.figures.layer_map import draw_layer_map
from requant.layers import TensorInfo
from requant.plan import Rule
from requant.studied import TOLERANCE, changes, least_centroids, read_points, rules, sizes
from requant.study_table import study_table

TEACHER, N = 900, 1000


def rows(kind: str, layers: str, correct: dict[int, int | None]) -> list[dict[str, Any]]:
    origin = {"kind": kind, "layers": layers, "n": N, "teacher_correct": TEACHER, "original_bytes": 4000}
    return [origin | {"centroids": k, "correct": c, "agreement": 0.98, "bytes": 1000 + k} for k, c in correct.items()]


@pytest.fixture
def points() -> pd.DataFrame:
    return pd.DataFrame(
        [
            *rows("weight", "10", {1: 100, 4: 894, 16: 900}),
            *rows("weight", "2", {16: 896, 1: 850, 4: 910}),
            *rows("weight", "2-10", {1: 100, 4: 500, 16: 700}),
            *rows("bias", "2", {1: 899, 4: 900, 16: 901}),
        ]
    )


def result() -> dict[str, Any]:
    config = {"model": {"name": "vgg_small"}, "data": {"name": "mnist5k"}, "unlabeled": {"name": "digits"}}
    return {"config": config, "accuracy": {"teacher": {"top1": 0.9}}, "seconds": {"points": 1.5}}


def test_layers_are_in_the_networks_order_and_k_rises(points: pd.DataFrame) -> None:
    found = changes(points)
    assert found.index.tolist() == [("weight", "2"), ("weight", "2-10"), ("weight", "10"), ("bias", "2")]
    assert list(found.columns) == [1, 4, 16]
    assert found.loc[("weight", "2")].tolist() == pytest.approx([-5.0, 1.0, -0.4])
    assert sizes(points).loc[("bias", "2")].tolist() == pytest.approx([25.025, 25.1, 25.4])
    assert least_centroids(found) == [4, 0, 16, 1]


def test_where_nothing_is_counted_agreement_is_shown(points: pd.DataFrame) -> None:
    found = changes(points.assign(correct=None))
    assert found.to_numpy() == pytest.approx(-2.0)


@given(st.lists(st.floats(-3, 1), min_size=1, max_size=8))
def test_the_least_k_is_borne_and_so_are_all_above(losses: list[float]) -> None:
    ks = [2**i for i in range(len(losses))]
    (found,) = least_centroids(pd.DataFrame([losses], columns=ks))
    borne = {k: loss >= -TOLERANCE for k, loss in zip(ks, losses, strict=True)}
    assert all(borne[k] for k in ks if found and k >= found)
    assert found == 1 or not borne[found // 2 if found else ks[-1]]


def test_the_plan_is_one_that_the_command_line_takes(points: pd.DataFrame) -> None:
    found = OverridesParser.create().parse_override(rules(changes(points)))
    assert found.get_key_element() == "plan.rules"
    plan = [Rule.from_mapping(entry, position) for position, entry in enumerate(found.value(), 1)]
    wanted = [(Rule(1, "2", "bias")), Rule(4, "2", "weight"), Rule(16, "10", "weight")]  # 2-10 are together: left out
    assert plan == wanted
    assert not rules(changes(points[points["layers"] == "2-10"]))


@given(st.sets(st.integers(1, 40), min_size=1))
def test_layers_of_one_k_are_ranges(numbers: set[int]) -> None:
    table = pd.DataFrame([r for n in sorted(numbers) for r in rows("weight", str(n), {8: TEACHER})])
    (rule,) = OverridesParser.create().parse_override(rules(changes(table))).value()
    parsed = Rule.from_mapping(rule, 1)
    assert {n for n in range(1, 42) if parsed.matches(TensorInfo("w", n, "weight", (2, 2)))} == numbers


def printed(points: pd.DataFrame, width: int = 80) -> str:
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(study_table(result(), points))
    return capture.get()


def test_the_table_says_what_each_layer_bears(points: pd.DataFrame) -> None:
    text = printed(points)
    lines = {line.split()[1]: line.split() for line in text.splitlines() if line.split()[:1] == ["weight"]}
    assert lines["2"] == ["weight", "2", "-5.0", "1.0", "-0.4", "4", "25.1"]
    assert lines["2-10"][-1] == "none"
    assert "n = 1,000, teacher 90.00 %" in text
    assert "-0.0" not in printed(pd.DataFrame(rows("weight", "1", {2: 900})))


def test_one_kind_is_named_once_and_nine_k_fit_eighty_columns() -> None:
    text = printed(pd.DataFrame(rows("weight", "13-49", dict.fromkeys([2**i for i in range(9)], 100))))
    assert "the weights of these layers clustered alone" in text
    assert "13-49" in text
    assert "…" not in text


def test_the_picture_has_a_cell_for_each_point(points: pd.DataFrame, tmp_path: Path) -> None:
    points.to_csv(tmp_path / "points.csv", index=False)
    read = read_points(tmp_path / "points.csv")
    draw_layer_map(read, "a title", tmp_path / "map.svg")
    text = (tmp_path / "map.svg").read_text()
    assert text.count("<path") > 2 * 12
    draw_layer_map(read[read["kind"] == "weight"], "a title", tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes()[1:4] == b"PNG"


def test_a_study_that_was_not_finished_has_empty_cells(points: pd.DataFrame, tmp_path: Path) -> None:
    part = points.iloc[:-1]
    assert np.isnan(changes(part).loc[("bias", "2"), 16])
    assert printed(part)
    draw_layer_map(part, "a title", tmp_path / "map.png")
