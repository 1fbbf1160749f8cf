"""Checkpoints that cannot be gone on from are refused, and the message says what to do."""

from pathlib import Path

import pytest
from test_retraining import STILL, images, network
from torch import nn

from requant.errors import UserError
from requant.retraining import retrain


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    for content in (b"half a checkpoint", b"", b"PK\x03\x04 and no more"):
        (tmp_path / "last.ckpt").write_bytes(content)
        with pytest.raises(UserError, match=r"last\.ckpt cannot be read .* start this training over"):
            retrain(network(), network(1), images(), recipe=STILL, folder=tmp_path)


def test_a_checkpoint_of_another_network_is_refused_by_name(tmp_path: Path) -> None:
    retrain(network(), network(1), images(), recipe=STILL, folder=tmp_path)
    other = nn.Sequential(*network(), nn.Linear(5, 5))
    with pytest.raises(UserError, match=r"last\.ckpt holds another network .*force=true"):
        retrain(other, network(1), images(), recipe=STILL, folder=tmp_path)
