"""What all tasks share."""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from requant.config import Config
from requant.machine import provenance
from requant.runs import settings_hash
from requant.settings import all_settings
from requant.tracking import Tracker, tracking


def is_main() -> bool:
    """Whether this process is the first of the run's: DDP, torchrun and Slurm start the others alike."""
    return all(os.environ.get(rank, "0") == "0" for rank in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def header(settings: Config, seconds: dict[str, float]) -> dict[str, Any]:
    """What every result begins with."""
    config = {"config": all_settings(settings), "hash": settings_hash(settings)}
    return {**config, **provenance(), "seconds": seconds}


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the time of a stage."""
    started = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started


def forms(settings: Config) -> dict[str, Any]:
    """How whole tensors are clustered, where a rule does not say."""
    return {"granularity": settings.clustering.granularity, "split": settings.clustering.split}


def tracker_of(settings: Config, folder: Path) -> AbstractContextManager[Tracker]:
    """Where a run's curves and figures go beside its folder; of several processes the first's."""
    if not is_main():
        return nullcontext(Tracker())
    logger = settings.logger
    return tracking(
        folder,
        logger.name,
        logger.project,
        logger.mode,
        group=settings.name,
        identity=settings_hash(settings),
        settings=all_settings(settings),
    )
