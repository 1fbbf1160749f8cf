"""The examples in docstrings run as they are written."""

import doctest
import importlib
import pkgutil

import pytest

import requant

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(requant.__path__, "requant.")
    if not module.name.endswith("__main__")
)


EXAMPLES = ("assignments", "compression", "hugging_face", "own_code", "parametrization", "plan", "results")
WITH_EXAMPLES = {f"requant.{name}" for name in EXAMPLES}


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported_and_its_examples_run(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0
    assert (tried > 0) == (name in WITH_EXAMPLES)
