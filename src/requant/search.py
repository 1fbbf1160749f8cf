"""Search instead of a grid: Optuna proposes runs of few bytes and many right answers; a journal keeps them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override
from rich.table import Table

from requant.errors import ConfigError, UserError
from requant.files import exclusive
from requant.progress import console

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import FrozenTrial, TrialState
except ImportError as error:
    raise UserError("a search needs optuna, which is not installed: pip install 'requant[search]'") from error

AGAIN = "again"  # marks a run of what failed before
Figures = tuple[int, float]
"""Of a run: bytes on disk and top-1, a fraction."""
Measure = Callable[[list[list[str]]], Sequence[Figures | None]]
"""Does the runs of these overrides; None for one that failed."""


@dataclass(frozen=True)
class Space:
    """What is searched: a distribution for each key, and the overrides that all runs share."""

    keys: Mapping[str, BaseDistribution]
    shared: list[str]

    def overrides(self, parameters: Mapping[str, Any]) -> list[str]:
        """What is typed for one run."""
        return [*self.shared, *(f"{key}={value}" for key, value in parameters.items())]

    def identity(self) -> list[str]:
        """Equal for equal spaces; where results go does not count."""
        keys = [f"{key}={distribution}" for key, distribution in sorted(self.keys.items())]
        return [*sorted(word for word in self.shared if not word.startswith("out=")), *keys]


def space(overrides: Iterable[Override]) -> Space:
    """From Hydra's overrides: a,b,c and choice(...) and range(...) are choices, interval(...) is a range of numbers.

    int(interval(...)) are whole numbers, tag(log, interval(...)) numbers whose logarithm is spread evenly.

    Raises:
        ConfigError: nothing is left to choose.

    """
    overrides = list(overrides)
    keys = {o.get_key_element(): _distribution(o) for o in overrides if o.is_sweep_override()}
    if not keys:
        raise ConfigError(
            "nothing to search: give at least one key several values, e.g. centroids=4,8,16,32 "
            "'retrain.learning_rate=tag(log, interval(0.001, 0.1))'"
        )
    return Space(keys, [str(o.input_line) for o in overrides if not o.is_sweep_override()])


def _distribution(override: Override) -> BaseDistribution:
    sweep = override.value()
    if not isinstance(sweep, IntervalSweep):
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    assert low is not None
    assert high is not None
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)


def search(journal: Path, where: Space, trials: int, at_once: int, seed: int, measure: Measure) -> list[FrozenTrial]:
    """Try runs until there were `trials` of them, so many at once; returns those that no other beats.

    What was tried is read from `journal` and added to it, so that a search that was killed goes on, with the runs first
    that it was at, and those that failed; another search on the same journal waits.

    Raises:
        ConfigError: the journal is of another space, or a number is not positive.

    """
    if trials < 1 or at_once < 1:
        raise ConfigError(f"hydra.sweeper.trials={trials}, {at_once} at once: both must be at least 1")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(journal.with_suffix(".claim")):  # Optuna has a .lock of its own, for each entry
        study = _study(journal, where, seed)
        cut = [(trial.number, trial.params) for trial in study.get_trials(states=[TrialState.RUNNING])]
        for start in range(0, len(cut), at_once):
            _try(study, where, cut[start : start + at_once], measure)
        failed = _failed(study)
        for start in range(0, len(failed), at_once):
            _try_again(study, where, failed[start : start + at_once], measure)
        while (left := trials - sum(AGAIN not in trial.user_attrs for trial in study.trials)) > 0:
            asked = [study.ask(dict(where.keys)) for _ in range(min(at_once, left))]
            _try(study, where, [(trial.number, trial.params) for trial in asked], measure)
    return sorted(study.best_trials, key=lambda trial: trial.values)


def _study(journal: Path, where: Space, seed: int) -> optuna.Study:
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))),
        study_name="requant",
        directions=["minimize", "maximize"],
        load_if_exists=True,
    )
    # A search that goes on must not draw again what its first part drew.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
    if study.user_attrs.setdefault("space", where.identity()) != where.identity():
        raise ConfigError(
            f"{journal} holds a search over {' '.join(study.user_attrs['space'])}: for another one set name=<name>"
        )
    study.set_user_attr("space", where.identity())
    return study


def _try(study: optuna.Study, where: Space, asked: Sequence[tuple[int, Mapping[str, Any]]], measure: Measure) -> None:
    found = measure([where.overrides(parameters) for _, parameters in asked])
    for (number, _), figures in zip(asked, found, strict=True):
        if figures is None:
            study.tell(number, state=TrialState.FAIL)
        else:
            study.tell(number, figures)


def _failed(study: optuna.Study) -> list[dict[str, Any]]:
    """What was chosen for the runs that failed and have not ended since."""
    ended = [trial.params for trial in study.trials if AGAIN in trial.user_attrs]
    return [trial.params for trial in study.get_trials(states=[TrialState.FAIL]) if trial.params not in ended]


def _try_again(study: optuna.Study, where: Space, asked: Sequence[Mapping[str, Any]], measure: Measure) -> None:
    """A trial that has failed stays so: a run that then ends is one more, which does not count."""
    for parameters, figures in zip(asked, measure([where.overrides(p) for p in asked]), strict=True):
        if figures is not None:
            study.add_trial(
                optuna.trial.create_trial(
                    params=dict(parameters),
                    distributions=dict(where.keys),
                    values=list(figures),
                    user_attrs={AGAIN: True},
                )
            )


def show(best: Sequence[FrozenTrial], journal: Path) -> None:
    """The front as a table."""
    keys = list(dict.fromkeys(key for trial in best for key in trial.params))
    table = Table("trial", "bytes", "top-1", *keys, title="No other run is smaller and more accurate than these")
    for trial in best:
        size, top1 = trial.values
        chosen = (str(trial.params.get(key, "")) for key in keys)
        table.add_row(str(trial.number), f"{size:,.0f}", f"{100 * top1:.2f} %", *chosen)
    console.print(table)
    console.print(f"All trials: {journal}", soft_wrap=True, highlight=False)
