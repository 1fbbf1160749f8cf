"""The progress of a training."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich.progress import TaskID, TextColumn

from requant.files import write_text
from requant.progress import bar, console


class CurveFile(Callback):
    """Keeps the whole curve as CSV, resumed epochs included."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epochs that are complete."""
        self._write(trainer, getattr(pl_module, "curve", []))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the last epoch too, also where a training that was killed after its end has no more to do."""
        self._write(trainer, getattr(pl_module, "curve", []))

    def _write(self, trainer: pl.Trainer, curve: list[dict[str, float]]) -> None:
        if trainer.is_global_zero and curve:
            lines = [",".join(curve[0]), *(",".join(str(value) for value in entry.values()) for entry in curve)]
            write_text(self.path, "\n".join(lines) + "\n")


class EpochProgress(Callback):
    """One bar over all the steps of a training, with the last epoch's loss and accuracy beside it."""

    def __init__(self, label: str, measure: str = "top-1"):
        self.label, self.measure = label, measure
        self.progress = bar(TextColumn("{task.fields[note]}"))
        self.task = TaskID(0)
        self.shown = 0

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Open the bar where a resumed training left off."""
        if trainer.is_global_zero:
            total = int(trainer.estimated_stepping_batches)
            self.task = self.progress.add_task(self.label, total=total, completed=trainer.global_step, note="")
            self.progress.start()
            self.shown = trainer.current_epoch

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Advance."""
        if trainer.is_global_zero:
            self.progress.update(self.task, completed=trainer.global_step)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the figures of the epoch before, which are complete only now."""
        self._show(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the last figures and close the bar."""
        self._show(trainer, pl_module)
        self.progress.stop()

    def _show(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        curve = getattr(pl_module, "curve", [])
        if trainer.is_global_zero and len(curve) > self.shown:
            self.shown = len(curve)
            note = _note(curve[-1], self.measure)
            self.progress.update(self.task, note=note)
            if not console.is_terminal:
                console.print(f"{self.label}: epoch {len(curve)}/{trainer.max_epochs} {note}")

    def on_exception(self, *_: Any) -> None:
        """Close the bar, so that the message below it can be read."""
        self.progress.stop()


def _note(epoch: dict[str, float], measure: str) -> str:
    accuracy = f"  {measure} {100 * epoch['top1']:.2f} %" if "top1" in epoch else ""
    return f"loss {epoch['loss']:.4f}{accuracy}"
