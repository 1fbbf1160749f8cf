"""What a run is computed on."""

import ctypes
import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables that set how many CPU threads a process starts with."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def machine() -> dict[str, Any]:
    """System, processor, CPU threads and GPUs."""
    import torch  # late: a sweep does without it

    return {"system": platform.platform(), "cpu": cpu(), "threads": torch.get_num_threads(), "gpus": gpus()}


def provenance() -> dict[str, Any]:
    """The commit, the versions of what computes, and the machine."""
    packages = ("requant", "torch", "torchvision", "pytorch-lightning", "numpy", "h5py")
    return {
        "git": _commit(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "machine": machine(),
    }


def hardware() -> dict[str, str]:
    """What a table of the machine shows: processor, cores, memory, GPUs, system and versions."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    packages = ("torch", "torchvision", "pytorch-lightning", "numpy", "h5py")
    return {
        "processor": cpu(),
        "cores": str(cores()),
        "memory": f"{pages / 2**30:.0f} GiB",
        "GPUs": ", ".join(gpus()) or "none",
        "system": platform.platform(),
        "Python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_threads() -> int:
    """As many as torch and BLAS would take: OMP_NUM_THREADS, which a sweep's launcher sets, or the cores."""
    asked = os.environ.get(THREADS[0], "")
    return int(asked) if asked.isdecimal() and int(asked) else cores()


def use_threads(number: int | None) -> None:
    """Use so many CPU threads, and the processes that are started from here too; None: leave it."""
    import torch

    if number is not None:
        torch.set_num_threads(number)
        os.environ |= dict.fromkeys(THREADS, str(number))


def keep_memory() -> None:
    """Let memory that was freed stay with this process, where the C library is glibc; elsewhere nothing is done.

    Else it gives each step's activations back to the system and gets them again page by page, every page zeroed, which
    takes as long as the computing does.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)


def cpu() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"model name\s*:\s*(.+)", info.read_text())):
        return found.group(1)
    return platform.processor() or platform.machine()


def gpus() -> list[str]:
    """The names of the GPUs."""
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _commit() -> str | None:
    """The checkout's, where this file is part of one: an environment may lie within another repository."""
    here = Path(__file__)

    def git(*words: str) -> str:
        command = ["git", *words]
        return subprocess.run(command, cwd=here.parent, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
