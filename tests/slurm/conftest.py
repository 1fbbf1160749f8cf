import sys
from collections.abc import Iterator
from pathlib import Path

import cluster
import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "integration"))


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster of one node, started for these tests and ended after them; the environment for its commands."""
    if absent := cluster.missing():
        pytest.skip(f"needs {', '.join(absent)}: apt-get install slurm-wlm munge")
    with cluster.running(tmp_path_factory.mktemp("cluster")) as environment:
        yield environment
