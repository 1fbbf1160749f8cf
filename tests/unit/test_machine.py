"""What a run is computed on."""

import platform
import subprocess
import sys

import pytest

PAGES = """
import resource
import numpy as np
from requant.machine import keep_memory
{call}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(1 << 25, np.uint8)  # 32 MiB
before = faults()
for _ in range(8):
    np.ones(1 << 25, np.uint8)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, whose memory is kept")
def test_memory_that_was_freed_is_not_asked_for_again() -> None:
    def faults(call: str) -> int:
        command = [sys.executable, "-c", PAGES.format(call=call)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("keep_memory()") < faults("") / 10
