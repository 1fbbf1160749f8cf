"""Run one experiment, or with -m a grid of them: python run.py --help."""

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from requant.cli import main as run_cli
from requant.settings import parse, register

register()


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(config: DictConfig) -> object:
    """One job."""
    settings = parse(config, in_sweep=HydraConfig.get().mode == RunMode.MULTIRUN)
    from requant.app import run  # torch is imported only once the settings are known to be right

    return run(settings)


if __name__ == "__main__":
    sys.exit(run_cli(main))
