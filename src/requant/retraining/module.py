"""The one LightningModule: a student, an objective, and the curve of its accuracy."""

import time
from collections.abc import Collection, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from requant.errors import UserError
from requant.outputs import SOFTMAX, Outputs
from requant.recipe import Recipe
from requant.retraining.objectives import Objective
from requant.retraining.optimization import optimizer, schedule
from requant.retraining.trainable import set_modes
from requant.suggest import some


class Retraining(pl.LightningModule):
    """Minimises `objective(student, batch)` over the parameters that require gradients.

    `frozen` names the quantized tensors, batch norm's running statistics among them; `rates` are those of parameters,
    by name in the student, that have another than the recipe's. `curve` has one entry an epoch: epoch (from 1), loss
    (mean over the epoch's steps), seconds, and with validation batches (images, goals, see `requant.outputs`) the exact
    counts correct and n, and top1, their ratio (of values the share of their variance that is explained). It travels in
    the checkpoint, so that a resumed training ends with the whole curve.
    """

    def __init__(
        self,
        student: nn.Module,
        objective: Objective,
        recipe: Recipe,
        *,
        frozen: Collection[str] = (),
        rates: Mapping[str, float] | None = None,
        statistics: str = "keep",
        stochastic: bool = False,
        seed: int = 0,
        outputs: Outputs = SOFTMAX,
    ):
        super().__init__()
        self.student = student
        self.objective = objective
        self.recipe = recipe
        self.frozen = frozenset(frozen)
        self.rates = dict(rates or {})
        self.statistics = statistics
        self.stochastic = stochastic
        self.seed = seed
        self.curve: list[dict[str, float]] = []
        self._loss = torch.zeros(())
        self.outputs = outputs
        self._counts = torch.zeros((), dtype=torch.int64)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """The student's outputs."""
        return self.outputs.of(self.student, images_NCHW)

    def configure_optimizers(self) -> Any:
        """Only what requires gradients is handed to the optimizer, so frozen tensors cannot decay either."""
        named = ((name, p) for name, p in self.student.named_parameters() if p.requires_grad)
        trained = optimizer(named, self.recipe, self.rates)
        rates = schedule(trained, self.recipe, int(self.trainer.estimated_stepping_batches))
        if rates is None:
            return trained
        return {"optimizer": trained, "lr_scheduler": {"scheduler": rates, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """Every epoch's random choices follow from seed and epoch alone: a resumed run draws the same."""
        torch.manual_seed(self.seed * 1_000_003 + self.current_epoch)
        set_modes(self.student, self.frozen, statistics=self.statistics, stochastic=self.stochastic)
        self._loss = torch.zeros((), device=self.device)
        self._started = time.perf_counter()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ARG002
        """One step's loss."""
        loss = self.objective(self.student, batch)
        self._loss += loss.detach()
        return loss

    def on_validation_epoch_start(self) -> None:
        """Start counting; the epoch's training time ends here."""
        self._seconds = time.perf_counter() - self._started
        self._counts = torch.zeros((), dtype=torch.int64, device=self.device)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:  # noqa: ARG002
        """Count correct answers."""
        images_NCHW, goals = batch
        self._counts = self._counts + self.outputs.counts(self.outputs.of(self.student, images_NCHW), goals)

    def on_train_epoch_end(self) -> None:
        """Append the epoch to the curve and log it."""
        mean_loss = self.trainer.strategy.reduce(self._loss / self.trainer.num_training_batches, reduce_op="mean")
        if not torch.isfinite(mean_loss):
            raise UserError(
                f"the training diverged: the loss is {float(mean_loss)} in epoch {self.current_epoch + 1}; "
                f"try a lower learning_rate (now {self.recipe.learning_rate})"
            )
        entry: dict[str, float] = {"epoch": self.current_epoch + 1, "loss": float(mean_loss)}
        if self.trainer.val_dataloaders is not None:
            entry |= self.outputs.accuracy(self.trainer.strategy.reduce(self._counts, reduce_op="sum"))
        else:
            self._seconds = time.perf_counter() - self._started
        entry["seconds"] = self._seconds
        self.curve.append(entry)
        self.log_dict({k: float(v) for k, v in entry.items() if k != "epoch"}, rank_zero_only=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The curve, as plain numbers."""
        checkpoint["curve"] = self.curve

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The curve of the epochs that were done.

        Raises:
            UserError: for a checkpoint of another network.

        """
        held = {name: value.shape for name, value in checkpoint["state_dict"].items()}
        here = {name: value.shape for name, value in self.state_dict().items()}
        if different := sorted(name for name in held.keys() | here.keys() if held.get(name) != here.get(name)):
            raise UserError(
                f"last.ckpt holds another network than the one to train ({some(different, 3)}): an earlier version "
                "wrote it, or what training begins with has changed; remove it, or set force=true, to start over"
            )
        self.curve = [dict(entry) for entry in checkpoint["curve"]]
