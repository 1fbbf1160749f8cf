import operator

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from requant.errors import UserError
from requant.listing import MEASURED, SETTINGS, keys_in, order, runs_tables, select
from requant.results import STUDENTS

SIGNS = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
fractions = st.floats(0, 1) | st.none()


@st.composite
def runs(draw: st.DrawFn, least: int = 1) -> pd.DataFrame:
    """What `requant.results.collect` gives, of any content."""
    return pd.DataFrame(draw(st.lists(_run(), min_size=least, max_size=6)))


def _run() -> st.SearchStrategy[dict[str, object]]:
    names = st.sampled_from(["kmeans", "equal_population", "torchvision:mobilenet_v3_large", "[red]"])
    numbers = {"centroids": st.sampled_from([2, 8, 256]), "seed": st.integers(0, 12)}
    measured = {f"{student}_{key}": fractions for student in STUDENTS for key in ("top1", "kl")}
    return st.fixed_dictionaries(
        {
            **dict.fromkeys(SETTINGS, names),
            **numbers,
            "hash": st.text("0123456789abcdef", min_size=16, max_size=16),
            "path": st.just("outputs/a/result.json"),
            "bytes": st.integers(1, 10**9) | st.none(),
            "size_reduction": fractions,
            **measured,
        }
    )


@given(runs(), st.sampled_from(list(SIGNS)), st.integers(1, 300))
def test_a_condition_on_numbers_is_the_comparison(frame: pd.DataFrame, sign: str, value: int) -> None:
    expected = [row for row, centroids in enumerate(frame["centroids"]) if SIGNS[sign](centroids, value)]
    assert list(select(frame, f"centroids {sign} {value}").index) == expected


@given(runs(), st.floats(0, 1))
def test_a_run_without_the_number_is_not_above_nor_below(frame: pd.DataFrame, value: float) -> None:
    found = select(frame, f"retrained_top1<{value}"), select(frame, f"retrained_top1>={value}")
    assert sum(map(len, found)) == frame["retrained_top1"].notna().sum()


@given(runs())
def test_conditions_all_hold(frame: pd.DataFrame) -> None:
    both = select(frame, "clustering=kmeans, centroids>=8")
    assert both.equals(frame[(frame["clustering"] == "kmeans") & (frame["centroids"] >= 8)])
    assert select(frame, "").equals(frame)
    assert keys_in("clustering=kmeans, centroids>=8") == ["clustering", "centroids"]


@given(runs())
def test_order_is_rising_and_what_is_missing_comes_last(frame: pd.DataFrame) -> None:
    column = list(order(frame, "retrained_kl")["retrained_kl"].astype(float))
    present = [value for value in column if value == value]
    assert present == sorted(present)
    assert column[: len(present)] == present
    assert len(column) == len(frame)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("modle=vgg16", "no key 'modle'; did you mean 'model'"),
        ("centroids", "'centroids' is no condition"),
        ("centroids>=many", "'many' is none"),
        ("model>vgg16", "model is text"),
    ],
)
def test_what_is_no_condition_is_refused(where: str, message: str) -> None:
    frame = pd.DataFrame([{"model": "vgg16", "centroids": 8}])
    with pytest.raises(UserError, match=message):
        select(frame, where)


def test_an_unknown_key_to_sort_by_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'centroids'"):
        order(pd.DataFrame([{"centroids": 8}]), "centroid")


@settings(deadline=None)
@given(runs(), st.sampled_from([80, 100, 1000]))
def test_the_table_fits_and_what_it_shows_is_whole(frame: pd.DataFrame, width: int) -> None:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(*runs_tables(frame, ["centroids"], width), sep="\n")
    text = capture.get()
    assert max(map(len, text.splitlines())) <= width
    missing = "".join(text.partition("no room for")[1:]).partition("all:")[0]
    assert not missing or width < 1000
    for key in MEASURED[1:]:
        common = key == "teacher_top1" and frame[key].nunique(dropna=False) == 1
        if not common and key not in missing:
            for value in frame[key].dropna():
                assert f"{value:.4f}" in text
    for value in frame["hash"]:
        assert value[:8] in text


def test_what_is_the_same_in_all_runs_is_said_once() -> None:
    run = {**dict.fromkeys(SETTINGS, "same"), **dict.fromkeys(MEASURED, 0.5), "hash": "0" * 16}
    table, note = runs_tables(pd.DataFrame([run | {"centroids": k} for k in (4, 8)]), [], 80)
    assert isinstance(table, Table)
    assert [str(column.header).replace("\n", "") for column in table.columns][:3] == ["hash", "centroids", "bytes"]
    assert "model=same" in str(note)
    assert "centroids" not in str(note)


def test_columns_that_have_no_room_are_named_and_the_others_are_whole() -> None:
    rows = [
        {key: f"{key}-{row}-of-a-long-name" for key in SETTINGS}
        | {"centroids": 8, "seed": row, "bytes": 10**9 + row, "hash": f"{row:016x}"}
        | {key: (100 * place + row) / 10_000 for place, key in enumerate(MEASURED[1:], start=1)}
        for row in range(2)
    ]
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(*runs_tables(pd.DataFrame(rows), [], 80), sep="\n")
    text = capture.get()
    missing = "".join(text.partition("no room for")[1:]).partition("all:")[0]
    assert {key for key in MEASURED if key in missing} == set(MEASURED) - {"bytes", "retrained_top1"}
    for row in rows:
        assert f"{row['bytes']:,} {row['retrained_top1']:.4f}" in " ".join(text.split())
