"""From a composed config to settings, and from settings to plain values and names of keys."""

from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from requant.config import Config
from requant.errors import ConfigError


def register() -> None:
    """Give Hydra the schema, so that a wrong key or type fails while the config is composed."""
    ConfigStore.instance().store(name="schema", node=Config)


def parse(config: DictConfig, in_sweep: bool = False) -> Config:
    """Resolve and check a composed config. Raises ConfigError."""
    settings = OmegaConf.to_object(config)
    assert isinstance(settings, Config)
    if in_sweep and settings.trainer.devices * settings.trainer.num_nodes > 1:
        raise ConfigError(
            "this launcher runs a sweep's jobs in one process, where several devices a job go wrong: "
            "set hydra/launcher=process (the default)"
        )
    return settings


def result_settings(settings: Any) -> dict[str, Any]:
    """The settings that can change a result, as plain nested values (those marked aside left out)."""
    return {
        f.name: result_settings(value) if is_dataclass(value := getattr(settings, f.name)) else value
        for f in fields(settings)
        if not f.metadata.get("aside", False)
    }


_OF_A_FILE = (
    *("seed", "plan", "target", "storage", "retrain", "unlabeled", "trainer"),
    *("model.mean", "model.std", "model.outputs", "model.quantize"),  # the others are the file's architecture
)
OF_RULES = ("centroids", "clustering")
"""Settings that say nothing to plan=auto, which has grids of its own."""


def settings_of_file(settings: Config) -> dict[str, Any]:
    """What a run's networks were made by, dotted, where it is not as config.py has it; without a path."""
    groups = _OF_A_FILE if settings.plan.method == "auto" else (*_OF_A_FILE, *OF_RULES)
    chosen = {key: value for key, value in _changed(settings, "") if {key, key.partition(".")[0]} & set(groups)}
    chosen.pop("unlabeled.root", None)
    return chosen


def _changed(settings: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of what differs from the schema's defaults and can change a result."""
    for f in fields(settings):
        value = getattr(settings, f.name)
        usual = f.default if f.default_factory is MISSING else f.default_factory()
        if is_dataclass(value):
            yield from _changed(value, f"{prefix}{f.name}.")
        elif value != usual and not f.metadata.get("aside", False):
            yield prefix + f.name, value


def all_settings(settings: Any) -> dict[str, Any]:
    """Every setting, as plain nested values."""
    return {
        f.name: all_settings(value) if is_dataclass(value := getattr(settings, f.name)) else value
        for f in fields(settings)
    }


def all_keys() -> list[str]:
    """Every key that can be set on the command line: groups and settings, dotted."""
    return [*_keys(Config, ""), "experiment"]


def _keys(schema: Any, prefix: str) -> list[str]:
    keys: list[str] = []
    for f in fields(schema):
        keys.append(prefix + f.name)
        if isinstance(f.type, type) and is_dataclass(f.type):
            keys += _keys(f.type, f"{prefix}{f.name}.")
    return keys
