"""Run a training: a Trainer around `Retraining`, resumable, with progress and an exact curve."""

import logging
import warnings
from collections.abc import Collection, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from requant.outputs import meaning
from requant.recipe import Recipe, choice
from requant.retraining.checkpoint import LAST, AtomicCheckpointIO, every_epoch
from requant.retraining.module import Retraining
from requant.retraining.objectives import Objective
from requant.retraining.progress import CurveFile, EpochProgress
from requant.retraining.trainable import freeze_idle

RISEN, NOTHING = 1.05, 1e-3  # by less epochs differ by the images drawn, and losses below are as good as none


@dataclass(frozen=True)
class History:
    """What a training did: its curve (see `Retraining`), the seconds of its epochs, the images it saw."""

    curve: list[dict[str, float]]
    seconds: float
    images_seen: int
    teacher_seconds: float = 0.0
    """Computing the teacher's outputs beforehand."""
    start_seconds: float = 0.0
    """Reconstructing the network that the first epoch begins with."""
    undone: bool = False
    """It moved a reconstructed network away from the teacher, which was then left as it had been."""

    @property
    def epochs(self) -> int:
        """Epochs done."""
        return len(self.curve)

    def to_dict(self) -> dict[str, Any]:
        """As result.json holds it."""
        return {
            "epochs": self.epochs,
            "seconds": self.seconds + self.teacher_seconds + self.start_seconds,
            "seconds_of_teacher": self.teacher_seconds,
            "seconds_of_start": self.start_seconds,
            "seconds_per_epoch": self.seconds / max(1, self.epochs),
            "images_seen": self.images_seen,
            "curve": self.curve,
            **({"undone": True} if self.undone else {}),
        }


def fit(
    student: nn.Module,
    batches: DataLoader[Any],
    objective: Objective,
    recipe: Recipe,
    *,
    frozen: Collection[str] = (),
    rates: Mapping[str, float] | None = None,
    statistics: str = "keep",
    stochastic: bool = False,
    test: DataLoader[Any] | None = None,
    folder: Path | None = None,
    trainer: Mapping[str, Any] | None = None,
    loggers: Sequence[Logger] = (),
    seed: int = 0,
    label: str = "retrain",
    measure: str = "top-1",
    outputs: str = "softmax",
) -> History:
    """Train the parameters of `student` that require gradients, in place.

    `rates` are those of parameters, by name, that have another than the recipe's. `folder` holds last.ckpt: where it is
    there already, the training goes on from it and ends in the same weights.
    `test` (images, labels; of outputs that are no classes `requant.outputs.Outputs.goal`) adds the accuracy to each
    epoch of the curve, shown as `measure`; `outputs` says what outputs are. `trainer` is passed on to
    Lightning's Trainer.
    Raises UserError where the loss is no longer finite.
    """
    choice("statistics", statistics, ("keep", "update"))
    if (trainer or {}).get("devices", 1) != 1 or (trainer or {}).get("num_nodes", 1) != 1:
        freeze_idle(student, lambda: objective(student, _first_image(batches, student)))
    module = Retraining(
        student,
        objective,
        recipe,
        frozen=frozen,
        rates=rates,
        statistics=statistics,
        stochastic=stochastic,
        seed=seed,
        outputs=meaning(outputs),
    )
    lightning = _trainer(recipe, folder, trainer or {}, loggers, EpochProgress(label, measure))
    checkpoint = folder / LAST if folder is not None and (folder / LAST).exists() else None
    with warnings.catch_warnings():
        _hush()
        _fit(lightning, module, batches, test, checkpoint)
    student.eval()
    if lightning.is_global_zero:
        _say_if_worse(module.curve, recipe)
    seen = recipe.epochs * lightning.world_size * len(cast(Sized, batches.sampler))
    return History(module.curve, sum(entry["seconds"] for entry in module.curve), seen)


def _first_image(batches: DataLoader[Any], student: nn.Module) -> Any:
    """A batch of the first image alone, where the student is."""
    device = next(student.parameters()).device
    batch = cast(Any, batches.dataset).__getitems__([0])
    return batch.to(device) if isinstance(batch, Tensor) else tuple(part.to(device) for part in batch)


def _say_if_worse(curve: Sequence[Mapping[str, float]], recipe: Recipe) -> None:
    """Training that ends further away than it was in its first epoch has done harm, which only the curve shows."""
    if curve and curve[-1]["loss"] > max(RISEN * curve[0]["loss"], NOTHING):
        warnings.warn(
            f"the loss rose from {curve[0]['loss']:.4g} in the first epoch to {curve[-1]['loss']:.4g} in the last: set "
            f"a lower learning_rate (now {recipe.learning_rate:g}) and, where codebooks are trained, lower rates of "
            "these, or train longer",
            stacklevel=3,
        )


def _trainer(
    recipe: Recipe, folder: Path | None, settings: Mapping[str, Any], loggers: Sequence[Logger], progress: EpochProgress
) -> pl.Trainer:
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    keep = [] if folder is None else [CurveFile(folder / "metrics.csv"), every_epoch(folder)]
    with warnings.catch_warnings():
        _hush()
        return pl.Trainer(
            **{"accelerator": "cpu", "devices": 1, **settings},
            max_epochs=recipe.epochs,
            callbacks=[progress, *keep],
            plugins=[AtomicCheckpointIO(), *_cluster()],
            logger=list(loggers) or False,
            enable_checkpointing=folder is not None,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            use_distributed_sampler=False,
            deterministic="warn",
        )


def _cluster() -> list[SLURMEnvironment]:
    """Where Slurm started the processes; jobs go back to the queue by their batch script, not by Lightning."""
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def _hush() -> None:
    """Lightning's advice on choices that are ours and meant, and what it says of torch: nothing a user can do."""
    ours = ("does not have many workers", "module.*in eval mode", "Checkpoint directory .* exists", "`srun` command")
    for about in (*ours, "have no `val_dataloader`", "LeafSpec"):
        warnings.filterwarnings("ignore", message=f".*{about}.*")


def _fit(lightning: pl.Trainer, module: Retraining, train: Any, test: Any, checkpoint: Path | None) -> None:
    """Lightning turns Ctrl-C into an exit of its own: turn it back, so that whoever called can say what to do."""
    try:
        lightning.fit(module, train, test, ckpt_path=checkpoint)
    except SystemExit:
        if lightning.interrupted:
            raise KeyboardInterrupt from None
        raise
