import os
import signal

import hypothesis
import pytest
import torch

# A test may be slow on a busy machine; the same examples on every machine of CI, new ones elsewhere.
hypothesis.settings.register_profile("requant", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("requant")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Also for processes that tests start: there is a test on every core already, and OpenMP's threads wait busily."""
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """A shell starts background jobs with SIGINT ignored, and processes that tests start would inherit it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def imagenet_root() -> str:
    """An ImageNet validation tree, from REQUANT_IMAGENET."""
    return _folder("REQUANT_IMAGENET", "an ImageNet tree <wnid>/<images>")


@pytest.fixture(scope="session")
def photographs_root() -> str:
    """A folder of photographs, from REQUANT_PHOTOS."""
    return _folder("REQUANT_PHOTOS", "a folder of photographs")


def _folder(variable: str, what: str) -> str:
    root = os.environ.get(variable)
    if not root:
        pytest.skip(f"needs {what}: set {variable}")
    return root
