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


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) >= 2
