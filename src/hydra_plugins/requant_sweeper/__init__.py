"""Hydra's way to `requant.search`: hydra/sweeper=optuna, over what has several values on the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class OptunaSweeperConf:
    """Settings of the sweeper."""

    _target_: str = "hydra_plugins.requant_sweeper.OptunaSweeper"
    trials: int = 20
    """Runs in all, those of earlier calls counted."""
    seed: int = 0
    """Of the search; that of the runs is `seed`."""


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="requant")


class OptunaSweeper(Sweeper):
    """Asks Optuna for as many runs as the launcher does at a time, and tells it their bytes and top-1."""

    launcher: Launcher
    hydra_context: HydraContext
    config: DictConfig

    def __init__(self, trials: int, seed: int) -> None:
        self.trials = trials
        self.seed = seed

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's handing over."""
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Search, and show what no other run beats. Raises ConfigError, and at the end what failed."""
        from requant.errors import ConfigError  # late: Hydra imports every plugin at every start
        from requant.search import search, show, space

        if self.config.dry_run:
            raise ConfigError("dry_run=true lists a grid's runs; a search chooses each when those before it are done")
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        journal = Path(self.config.out) / self.config.name / "search.journal"
        self.failures: list[Exception] = []
        at_once = self.config.hydra.launcher.get("max_parallel") or 1
        best = search(journal, space(parser.parse_overrides(arguments)), self.trials, at_once, self.seed, self._measure)
        if best:
            show(best, journal)
        if self.failures:
            raise self.failures[-1]
        return best

    def _measure(self, overrides: list[list[str]]) -> list[tuple[int, float] | None]:
        from hydra_plugins.requant_launcher import compose
        from requant.sweep import figures, job

        returned = self.launcher.launch(overrides, initial_job_idx=0)
        errors = [one._return_value for one in returned]
        self.failures += [error for error in errors[:1] if isinstance(error, Exception)]
        return [figures(job(words, compose(self.hydra_context, self.config, words))) for words in overrides]
