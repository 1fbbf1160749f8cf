"""From a composed config to settings, and from settings to plain values and names of keys."""

from dataclasses import fields, is_dataclass
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
