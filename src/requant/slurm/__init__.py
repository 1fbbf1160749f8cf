"""Commands as jobs of Slurm's: arrays, waited for; what was preempted goes on."""

from requant.slurm.launching import run_all
from requant.slurm.script import Request

__all__ = ["Request", "run_all"]
