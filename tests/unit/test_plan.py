from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from requant.errors import PlanError
from requant.kinds import KINDS
from requant.layers import TensorInfo
from requant.plan import Assignment, Rule, resolve

TENSORS = [
    TensorInfo("features.0.weight", 1, "weight", (8, 3, 3, 3)),
    TensorInfo("features.0.bias", 1, "bias", (8,)),
    TensorInfo("features.1.weight", 1, "bn_alpha", (8,)),
    TensorInfo("classifier.0.weight", 14, "weight", (32, 8)),
    TensorInfo("classifier.0.bias", 14, "bias", (32,)),
    TensorInfo("classifier.6.weight", 16, "weight", (10, 32)),
]


def chosen(*rules: Rule) -> dict[str, int]:
    return {a.tensor.name: a.centroids for a in resolve(rules, TENSORS, "kmeans")}


def test_the_papers_plan_for_vgg() -> None:
    rules = [Rule(32, layers="14-15", kind="weight"), Rule(1, kind="bias")]
    assert chosen(*rules) == {"features.0.bias": 1, "classifier.0.weight": 32, "classifier.0.bias": 1}


def test_a_range_may_be_open_at_its_end() -> None:
    assert set(chosen(Rule(8, layers="14-", kind="weight"))) == {"classifier.0.weight", "classifier.6.weight"}
    with pytest.raises(PlanError, match="numbers and rising ranges"):
        Rule(8, layers="14 16")


def test_the_first_match_wins_and_the_order_is_the_tensors() -> None:
    rules = [Rule(4, name=r"classifier\.6"), Rule(8, kind="weight")]
    assert list(chosen(*rules).items()) == [
        ("features.0.weight", 8), ("classifier.0.weight", 8), ("classifier.6.weight", 4),
    ]  # fmt: skip


def test_a_rules_method_beats_the_default() -> None:
    rules = [Rule(4, layers="16", method="linear"), Rule(2, layers="14", kind="bias")]
    assert resolve(rules, TENSORS, "equal_population") == [
        Assignment(TENSORS[4], 2, "equal_population"),
        Assignment(TENSORS[5], 4, "linear"),
    ]


def test_a_rules_form_beats_the_default_and_vectors_have_one_table() -> None:
    rules = [
        Rule(4, layers="1", kind="weight"),
        Rule(4, layers="14", kind="weight", method="product"),
        Rule(4, layers="16", granularity="tensor", split=0.0),
    ]
    assert resolve(rules, TENSORS, "kmeans", granularity="channel", split=0.25) == [
        Assignment(TENSORS[0], 4, "kmeans", "channel", split=0.25),
        Assignment(TENSORS[3], 4, "product", "tensor", split=0.25),
        Assignment(TENSORS[5], 4, "kmeans", "tensor", split=0.0),
    ]
    for rank in (0, 1.0, 0.0, True):
        with pytest.raises(PlanError, match="rank must be"):
            Rule(4, kind="weight", rank=rank)


def test_no_rules_choose_nothing() -> None:
    assert resolve([], TENSORS, "kmeans") == []


@pytest.mark.parametrize(
    ("layers", "numbers"),
    [("14", {14}), ("1,16", {1, 16}), (" 2 - 14 , 16", {14, 16}), ("1-999999999", {1, 14, 16})],
)
def test_layer_ranges(layers: str, numbers: set[int]) -> None:
    assert {a.tensor.layer for a in resolve([Rule(2, layers=layers)], TENSORS, "kmeans")} == numbers


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            Rule, st.integers(1, 256), layers=st.sampled_from(["1", "14", "1-16"]), kind=st.sampled_from([*KINDS, None])
        ),
        max_size=4,
    )
)
def test_every_tensor_gets_the_first_rule_that_matches(rules: list[Rule]) -> None:
    expected = [(t, next((r for r in rules if r.matches(t)), None)) for t in TENSORS]
    try:
        found = resolve(rules, TENSORS, "kmeans")
    except PlanError:
        assert any(rule not in [r for _, r in expected] or rules.count(rule) > 1 for rule in rules)
        return
    assert [(a.tensor, a.centroids) for a in found] == [(t, r.centroids) for t, r in expected if r]


def test_from_mapping_takes_what_a_config_gives() -> None:
    assert Rule.from_mapping({"layers": 14, "centroids": 2}, 1) == Rule(2, layers="14")
    data = {"layers": "1-3", "kind": "bias", "name": "x", "method": "linear", "centroids": 256}
    assert Rule.from_mapping(data, 1) == Rule(256, "1-3", "bias", "x", "linear")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kind": "bias", "centroid": 2}, r"rule 3 has an unknown key 'centroid'; did you mean 'centroids'\?"),
        ({"kind": "bias"}, "rule 3 .* lacks centroids"),
        ({"kind": "biases", "centroids": 2}, r"rule 3: there is no kind 'biases'; did you mean 'bias'\?"),
        ({"kind": "bias", "centroids": 2, "method": "Kmeans"}, "no method 'Kmeans'; did you mean 'kmeans'"),
        ({"centroids": 2}, "at least one of layers, kind and name"),
        ({"kind": "bias", "centroids": 0}, "from 1 to 4096, not 0"),
        ({"kind": "bias", "centroids": 4097}, "from 1 to 4096, not 4097"),
        ({"kind": "bias", "centroids": "8"}, "from 1 to 4096, not '8'"),
        ({"kind": "bias", "centroids": True}, "from 1 to 4096, not True"),
        ({"kind": 3, "centroids": 2}, "kind must be text, not 3"),
        ({"layers": True, "centroids": 2}, "layers must be text, not True"),
        ({"layers": "3-1", "centroids": 2}, "rising ranges"),
        ({"layers": "1;2", "centroids": 2}, "rising ranges"),
        ({"layers": "", "centroids": 2}, "rising ranges"),
        ({"name": "(", "centroids": 2}, "no regular expression"),
        ("bias", "must be a mapping"),
    ],
)
def test_malformed_rules_are_refused(data: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Rule.from_mapping(data, 3)


@dataclass
class Unused:
    rules: list[Rule]
    message: str


@pytest.mark.parametrize(
    "case",
    [
        Unused([Rule(2, layers="20")], r"1 \(layers 20: 2 centroids\) matches no tensor.*1 to 16; 3 weight, 2 bias"),
        Unused([Rule(2, layers="1", kind="bn_std")], "layers 1 alone matches 3; kind bn_std alone matches 0"),
        Unused([Rule(2, name="clasifier.6.weight")], "names such as classifier.6.weight"),
        Unused([Rule(2, kind="bias"), Rule(4, layers="14", kind="bias")], r"rule 2 .* taken by rule 1 \(kind bias"),
        Unused([Rule(1, layers="1", kind="bias"), Rule(2, layers="14", kind="bias"), Rule(4, kind="bias")],
               "rule 3 .* taken by rule 1 .*; rule 2 "),
    ],
)  # fmt: skip
def test_a_rule_that_does_nothing_says_why(case: Unused) -> None:
    with pytest.raises(PlanError, match=case.message):
        resolve(case.rules, TENSORS, "kmeans")


def test_unknown_default_method() -> None:
    with pytest.raises(PlanError, match="did you mean 'linear'"):
        resolve([], TENSORS, "liner")


def test_a_network_without_tensors() -> None:
    with pytest.raises(PlanError, match="no tensors at all"):
        resolve([Rule(1, kind="bias")], [], "kmeans")
