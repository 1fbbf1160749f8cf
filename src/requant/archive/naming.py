"""The names of a network's tensors as a tree, in which what they share is written once.

["0.weight", "0.bias", "1.weight"] is {"0": {"weight": 0, "bias": 0}, "1": {"weight": 0}}.
"""

from collections.abc import Iterator, Sequence
from typing import Any


def folded(names: Sequence[str]) -> dict[str, Any] | list[str]:
    """The tree, or the names as they are where it would give others, or the same in another order."""
    tree: dict[str, Any] = {}
    for name in names:
        *path, leaf = name.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
            if not isinstance(branch, dict):
                return list(names)
        branch[leaf] = 0
    return tree if list(_leaves(tree)) == list(names) else list(names)


def unfolded(found: dict[str, Any] | list[str]) -> list[str]:
    """The names that `folded` was given."""
    return list(_leaves(found)) if isinstance(found, dict) else list(found)


def _leaves(tree: dict[str, Any]) -> Iterator[str]:
    for part, branch in tree.items():
        if isinstance(branch, dict):
            yield from (f"{part}.{rest}" for rest in _leaves(branch))
        else:
            yield part
