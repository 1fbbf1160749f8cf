import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from requant.errors import ConfigError
from requant.search import Figures, Space, search, show, space

WHERE = Space({"centroids": IntDistribution(1, 256)}, ["model=vgg16"])


def parsed(*words: str) -> Space:
    return space(OverridesParser.create().parse_overrides(list(words)))


def centroids(overrides: Sequence[str]) -> int:
    return int(overrides[-1].removeprefix("centroids="))


def measured(runs: list[list[str]]) -> list[Figures]:
    """More centroids: more bytes, more right answers."""
    return [(100 * centroids(run), centroids(run) / 256) for run in runs]


def test_what_has_several_values_is_searched_and_the_rest_is_shared() -> None:
    found = parsed(
        "model=vgg16",
        "centroids=2,4,8",
        "retrain.learning_rate=tag(log, interval(0.001, 0.1))",
        "seed=int(interval(0, 9))",
        "+plan.rules=choice([{kind: weight, centroids: 4}],[{kind: bias, centroids: 1}])",
    )
    assert found.shared == ["model=vgg16"]
    rules = found.keys["+plan.rules"]
    assert isinstance(rules, CategoricalDistribution)
    assert found.keys | {"+plan.rules": rules} == {
        "centroids": CategoricalDistribution(["2", "4", "8"]),
        "retrain.learning_rate": FloatDistribution(0.001, 0.1, log=True),
        "seed": IntDistribution(0, 9),
        "+plan.rules": rules,
    }
    again = OverridesParser.create().parse_overrides([f"+plan.rules={choice}" for choice in rules.choices])
    assert [one.value()[0]["kind"] for one in again] == ["weight", "bias"]


def test_nothing_to_choose_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to search"):
        parsed("centroids=4")


def test_the_front_is_what_no_other_run_beats(tmp_path: Path) -> None:
    draw = random.Random(0)
    seen: list[Figures] = []

    def measure(runs: list[list[str]]) -> list[Figures]:
        seen.extend(found := [(draw.randrange(100), draw.random()) for _ in runs])
        return found

    best = search(tmp_path / "j", WHERE, 12, 3, 0, measure)
    unbeaten = {a for a in seen if not any(b != a and b[0] <= a[0] and b[1] >= a[1] for b in seen)}
    assert {(trial.values[0], trial.values[1]) for trial in best} == unbeaten
    show(best, tmp_path / "j")


@settings(max_examples=5)
@given(trials=st.integers(1, 5), at_once=st.integers(1, 3), cut=st.integers(0, 4))
def test_a_search_that_was_cut_short_goes_on_with_what_it_was_at(
    tmp_path_factory: pytest.TempPathFactory, trials: int, at_once: int, cut: int
) -> None:
    journal = tmp_path_factory.mktemp("search") / "j"
    tried: list[list[str]] = []
    lost: list[list[str]] = []

    def until_cut(runs: list[list[str]]) -> list[Figures]:
        if len(tried) >= cut:
            lost.extend(runs)
            raise KeyboardInterrupt
        tried.extend(runs)
        return measured(runs)

    try:
        search(journal, WHERE, trials, at_once, 0, until_cut)
    except KeyboardInterrupt:
        first: list[list[str]] = []
        search(journal, WHERE, trials, at_once, 0, lambda runs: first.extend(runs) or measured(runs))  # type: ignore[func-returns-value]
        assert first[: len(lost)] == lost
        assert len(tried) + len(first) == trials
    else:
        assert len(tried) == trials
    assert search(journal, WHERE, trials, at_once, 0, lambda _: pytest.fail("all is done"))


def test_a_run_that_fails_counts_and_has_no_figures(tmp_path: Path) -> None:
    journal, tried = tmp_path / "j", list[int]()

    def some_fail(runs: list[list[str]]) -> list[tuple[int, float] | None]:
        tried.extend(map(centroids, runs))
        return [None if centroids(run) > 128 else (1, 0.5) for run in runs]

    best = search(journal, WHERE, 8, 2, 0, some_fail)
    failed = [k for k in tried if k > 128]
    assert len(tried) == 8
    assert failed
    assert best
    assert all(trial.params["centroids"] <= 128 for trial in best)
    tried.clear()
    search(journal, WHERE, 8, 2, 0, some_fail)
    assert tried == failed, "the same command tries again what failed"
    tried.clear()

    def none_fails(runs: list[list[str]]) -> list[tuple[int, float]]:
        tried.extend(map(centroids, runs))
        return [(1, 0.9 if centroids(run) > 128 else 0.5) for run in runs]

    best = search(journal, WHERE, 8, 2, 0, none_fails)
    assert tried == failed
    assert {trial.params["centroids"] for trial in best} <= set(failed)
    search(journal, WHERE, 8, 2, 0, lambda _: pytest.fail("all is done"))


def test_a_journal_is_of_one_space(tmp_path: Path) -> None:
    search(tmp_path / "j", WHERE, 1, 1, 0, measured)
    elsewhere = Space(WHERE.keys, [*WHERE.shared, "out=elsewhere"])
    search(tmp_path / "j", elsewhere, 2, 1, 0, measured)
    with pytest.raises(ConfigError, match="set name="):
        search(tmp_path / "j", Space(WHERE.keys, ["model=resnet50"]), 3, 1, 0, measured)
    with pytest.raises(ConfigError, match="at least 1"):
        search(tmp_path / "j", WHERE, 0, 1, 0, measured)
