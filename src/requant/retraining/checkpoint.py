"""Checkpoints that a kill cannot tear: written beside, synced, renamed; read without unpickling."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint

from requant.errors import UserError
from requant.files import replacing

LAST = "last.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint plugin with an atomic write and a load that only takes tensors and plain values."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write to a temporary file beside `path`, sync it, rename it."""
        assert storage_options is None
        with replacing(Path(path)) as unfinished, unfinished.open("wb") as file:  # so that a full disk is an OSError
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; anything but tensors and plain values is refused."""
        assert weights_only is not False
        try:
            checkpoint: dict[str, Any] = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
            raise UserError(f"{path} cannot be read ({error}): remove it to start this training over") from error
        return checkpoint


def every_epoch(folder: Path) -> ModelCheckpoint:
    """Keep the newest epoch's state as `folder`/last.ckpt."""
    return ModelCheckpoint(
        dirpath=folder, filename=Path(LAST).stem, enable_version_counter=False, save_on_train_epoch_end=True
    )
