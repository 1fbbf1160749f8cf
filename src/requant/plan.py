"""Rules in, assignments out: which tensor gets how many centroids, by which method."""

from __future__ import annotations

import difflib
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from requant.clustering import METHODS, check_granularity
from requant.errors import PlanError, UserError
from requant.kinds import KINDS
from requant.limits import MAX_CENTROIDS
from requant.suggest import did_you_mean

if TYPE_CHECKING:
    from requant.layers import TensorInfo

NAMES_SHOWN = 6


@dataclass(frozen=True)
class Rule:
    """Which tensors get how many centroids; the conditions that are given must all hold, and one must be given.

    Attributes:
        centroids: 1 to 4,096 (of vectors: 1,024).
        layers: numbers and ranges, both ends included: `"14-15"`, `"1,3,7-9"`, `"13-"` (to the last).
        kind: one of `requant.kinds.KINDS`; None: any.
        name: regular expression, searched for anywhere in the tensor's name.
        method: one of `requant.clustering.METHODS`; None: the plan's default.
        granularity: as for `requant.clustering.cluster`; None: the plan's default.
        block: method product: values of a vector; None: chosen by the tensor's shape.
        split: outlier channels to split, as a share of the input channels; None: the plan's default.
        rank: of fully connected layers: cluster two factors of so many columns (below 1: of as many as hold this share
            of the weight's squares) in the weight's place.
        prune: the share of the values, those of smallest magnitude, that become 0 before the others are clustered.

    Raises:
        PlanError: for a value of the wrong type or out of range.

    >>> Rule(centroids=32, layers="14-15", kind="weight")
    Rule(centroids=32, layers='14-15', kind='weight')

    """

    centroids: int
    layers: str | None = None
    kind: str | None = None
    name: str | None = None
    method: str | None = None
    granularity: str | None = None
    block: int | None = None
    split: float | None = None
    rank: float | None = None
    prune: float = 0.0

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise PlanError(problem)

    @classmethod
    def from_mapping(cls, data: Mapping[str, object], position: int) -> Rule:
        """The rule that a config's entry describes; `position` (from 1) is for messages. `layers` may be a number.

        Raises:
            PlanError: for an unknown or missing key, or a value that the class refuses.

        """
        if not isinstance(data, Mapping):
            raise PlanError(f"rule {position} must be a mapping such as {{kind: bias, centroids: 1}}, not {data!r}")
        known = [field.name for field in fields(cls)]
        for key in data:
            if key not in known:
                raise PlanError(f"rule {position} has an unknown key {key!r}{did_you_mean(key, known)}")
        if "centroids" not in data:
            raise PlanError(f"rule {position} ({dict(data)}) lacks centroids: add how many, 1 to {MAX_CENTROIDS}")
        settings: dict[str, Any] = dict(data)
        if type(settings.get("layers")) is int:
            settings["layers"] = str(settings["layers"])
        try:
            return cls(**settings)
        except PlanError as error:
            raise PlanError(f"rule {position}: {error}") from None

    def matches(self, tensor: TensorInfo) -> bool:
        """Whether every condition holds."""
        return all(_holds(condition, str(value), tensor) for condition, value in self.conditions.items())

    @property
    def conditions(self) -> dict[str, str]:
        """Those of layers, kind and name that are given."""
        given = {"layers": self.layers, "kind": self.kind, "name": self.name}
        return {key: value for key, value in given.items() if value is not None}

    def __repr__(self) -> str:
        given = ((field, getattr(self, field.name)) for field in fields(self))
        shown = (f"{field.name}={value!r}" for field, value in given if value is not None and value != field.default)
        return f"Rule({', '.join(shown)})"

    def __str__(self) -> str:
        conditions = (f"{key} {value}" for key, value in self.conditions.items())
        return f"{', '.join(conditions)}: {self.centroids} centroids"


@dataclass(frozen=True)
class Assignment:
    """A tensor that is to be clustered, and how."""

    tensor: TensorInfo
    centroids: int
    method: str
    granularity: str = "tensor"
    block: int | None = None
    split: float = 0.0
    rank: float | None = None
    prune: float = 0.0

    @property
    def described(self) -> str:
        """The method, and what else is not as usual: `kmeans, channel`."""
        more = [f"rank {self.rank:g}"] if self.rank is not None else []
        more += [f"prune {self.prune:g}"] if self.prune else []
        return ", ".join([described(self.method, self.granularity, self.block, self.split), *more])


def described(method: str, granularity: str, block: int | None, split: float) -> str:
    """The method, and what else is not as usual."""
    more = [granularity] if granularity != "tensor" else []
    more += [f"block {block}"] if block is not None else []
    more += [f"split {split:g}"] if split else []
    return ", ".join([method, *more])


def resolve(
    rules: Sequence[Rule],
    tensors: Sequence[TensorInfo],
    default_method: str,
    granularity: str = "tensor",
    split: float = 0.0,
) -> list[Assignment]:
    """Give each tensor the first rule that matches it; tensors that none matches are left out.

    `default_method`, `granularity` and `split` are for rules that say nothing else; vectors (product) have one table a
    tensor, whatever the default granularity.

    Returns:
        The assignments, in the order of `tensors`.

    Raises:
        PlanError: for a rule that matches nothing, or nothing that earlier rules leave, and for an unknown method.

    """
    if default_method not in METHODS:
        raise PlanError(_unknown("method", default_method, METHODS))
    first = [next((i for i, rule in enumerate(rules) if rule.matches(tensor)), None) for tensor in tensors]
    for position in range(len(rules)):
        if position not in first:
            raise PlanError(_why_unused(rules, position, tensors, first))
    chosen = ((tensor, rules[i]) for tensor, i in zip(tensors, first, strict=True) if i is not None)
    return [_assignment(tensor, rule, default_method, granularity, split) for tensor, rule in chosen]


def _assignment(tensor: TensorInfo, rule: Rule, method: str, granularity: str, split: float) -> Assignment:
    method = rule.method or method
    if method == "product" and rule.granularity is None:
        granularity = "tensor"
    if method != "product" and rule.block is not None:
        raise PlanError(f"the rule {rule} has block={rule.block}, which is for method product, not {method}")
    return Assignment(
        tensor,
        rule.centroids,
        method,
        granularity if rule.granularity is None else rule.granularity,
        rule.block,
        split if rule.split is None else rule.split,
        rule.rank,
        rule.prune,
    )


def _holds(condition: str, value: str, tensor: TensorInfo) -> bool:
    if condition == "layers":
        return any(low <= tensor.layer <= high for low, high in _ranges(value))
    return tensor.kind == value if condition == "kind" else re.search(value, tensor.name) is not None


def _ranges(layers: str) -> list[tuple[int, int]]:
    """`"1,7-9"` as [(1, 1), (7, 9)]."""
    ranges = []
    for part in layers.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,9})\s*(-)?\s*([0-9]{1,9})?\s*", part)
        if not found or (found[3] and not found[2]) or int(found[3] or found[1]) < int(found[1]):
            raise PlanError(f"layers must be numbers and rising ranges, as in '1,3,7-9' or '13-', not {layers!r}")
        last = int(found[3]) if found[3] else sys.maxsize if found[2] else int(found[1])
        ranges.append((int(found[1]), last))
    return ranges


def _problems(rule: Rule) -> Iterator[str]:
    k = rule.centroids
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_CENTROIDS:
        yield f"centroids must be a whole number from 1 to {MAX_CENTROIDS}, not {k!r}"
    for key in ("layers", "kind", "name", "method", "granularity"):
        if not isinstance(getattr(rule, key), str | None):
            yield f"{key} must be text, not {getattr(rule, key)!r}"
    if not rule.conditions:
        yield "a rule needs at least one of layers, kind and name, or it says nothing about which tensors it is for"
    if rule.layers is not None:
        _ranges(rule.layers)
    if rule.kind is not None and rule.kind not in KINDS:
        yield _unknown("kind", rule.kind, KINDS)
    if rule.method is not None and rule.method not in METHODS:
        yield _unknown("method", rule.method, METHODS)
    yield from _form_problems(rule)
    yield from _pattern_problems(rule.name)


def _form_problems(rule: Rule) -> Iterator[str]:
    if rule.granularity is not None:
        try:
            check_granularity(rule.granularity, rule.method or "kmeans", "rule")
        except UserError as error:
            yield str(error).removeprefix("rule: ")
    if rule.block is not None and (type(rule.block) is not int or rule.block < 1):
        yield f"block must be a whole number from 1, not {rule.block!r}"
    if rule.split is not None and (type(rule.split) not in (int, float) or not 0 <= rule.split <= 1):
        yield f"split must be a number from 0 to 1, not {rule.split!r}"
    if rule.rank is not None and not _is_rank(rule.rank):
        yield f"rank must be a whole number from 1, or a share between 0 and 1, not {rule.rank!r}"
    if type(rule.prune) not in (int, float) or not 0 <= rule.prune < 1:
        yield f"prune must be a number from 0 to below 1, not {rule.prune!r}"
    if rule.split and (rule.rank is not None or rule.prune):
        yield "split is neither for pruned values nor for factors (rank): leave one of them out"


def _is_rank(rank: object) -> bool:
    return (type(rank) is int and rank >= 1) or (type(rank) is float and 0 < rank < 1)


def _pattern_problems(pattern: str | None) -> Iterator[str]:
    try:
        re.compile(pattern or "")
    except re.error as error:
        yield f"name {pattern!r} is no regular expression: {error}"


def _why_unused(
    rules: Sequence[Rule], position: int, tensors: Sequence[TensorInfo], first: Sequence[int | None]
) -> str:
    rule = rules[position]
    earlier = {i for tensor, i in zip(tensors, first, strict=True) if i is not None and rule.matches(tensor)}
    if not earlier:
        return f"rule {position + 1} ({rule}) matches no tensor. {_what_there_is(rule, tensors)}"
    by = "; ".join(f"rule {i + 1} ({rules[i]})" for i in sorted(earlier))
    return (
        f"rule {position + 1} ({rule}) never applies: all that it matches is taken by {by}. "
        "The first match wins: move the narrower rule up, or delete this one"
    )


def _what_there_is(rule: Rule, tensors: Sequence[TensorInfo]) -> str:
    if not tensors:
        return "The network has no tensors at all"
    alone = (
        f"{key} {value} alone matches {sum(_holds(key, value, tensor) for tensor in tensors)}"
        for key, value in rule.conditions.items()
    )
    layers = [tensor.layer for tensor in tensors]
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(tensor.kind for tensor in tensors).items())
    names = [tensor.name for tensor in tensors]
    shown = ", ".join(difflib.get_close_matches(rule.name or "", names, NAMES_SHOWN) or names[:NAMES_SHOWN])
    return f"{'; '.join(alone)}. There are layers {min(layers)} to {max(layers)}; {kinds}; names such as {shown}"


def _unknown(what: str, value: str, known: Sequence[str]) -> str:
    return f"there is no {what} {value!r}{did_you_mean(value, known)}"
