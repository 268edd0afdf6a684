"""A worker's proof: written typed, read back whole or refused with the wrong value's name."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_serve.telemetry.proof import (
    LONGEST_TEXT,
    BadProof,
    DeviceProof,
    InstrumentationState,
    Proof,
    proof_from_json,
)
from tests.testing import proofs


def test_proof_from_its_own_json_is_equal() -> None:
    proof = proofs.proof(shapes=[proofs.shape(violations=[{"id": "split-k", "message": "no"}])])

    assert proof_from_json(json.loads(json.dumps(proof.to_json()))) == proof


def test_proof_from_json_is_typed() -> None:
    proof = proofs.proof(max_neuron_loss=1, markers=proofs.markers(state="over_budget"))

    assert proof.device == DeviceProof(
        type="hip", name="AMD Instinct MI355X", clock_hertz=100_000_000
    )
    assert proof.markers.state is InstrumentationState.OVER_BUDGET
    assert proof.graphs is not None
    assert proof.graphs.sizes == (1, 2, 4, 64)
    assert str(proof.shapes[0].sent) == "0/128"
    assert type(proof.max_neuron_loss) is float


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"version": 2}, "version: 2 is unknown; this moe-serve reads 1"),
        ({"version": True}, "version: True is unknown"),
        ({"version": None}, "version: None is unknown"),
        ({"colour": "red"}, "'colour': unknown key"),
        ({"policy": None}, "policy: None is not text"),
        ({"policy": "\ud800"}, r"policy: '\\ud800' is not text"),
        ({"policy": "x" * (LONGEST_TEXT + 1)}, "policy: 'xxx"),
        ({"intercepted_calls": True}, "intercepted_calls: True is not a whole number"),
        ({"intercepted_calls": 1.0}, "intercepted_calls: 1.0 is not a whole number"),
        ({"intercepted_calls": -1}, "intercepted_calls: -1 is not a whole number"),
        ({"max_neuron_loss": "some"}, "max_neuron_loss: 'some' is not a number"),
        ({"max_neuron_loss": float("nan")}, "max_neuron_loss: nan is not a number"),
        ({"max_neuron_loss": 10**400}, "max_neuron_loss: 1000"),
        ({"shapes": 5}, "shapes: 5 is not a list"),
        ({"shapes": ["one"]}, r"shapes\[0\]: 'one' is not an object"),
        ({"shapes": [{"safe": True}]}, r"shapes\[0\].padded: missing"),
        ({"shapes": [proofs.shape(safe="false")]}, r"shapes\[0\].safe: 'false' is not true or"),
        (
            {"shapes": [proofs.shape(sent={"hidden": -1, "intermediate": 0})]},
            r"shapes\[0\].sent.hidden: -1 is not",
        ),
        ({"graphs": {"sizes": [1, "2"], "modes": []}}, r"graphs.sizes\[1\]: '2' is not"),
        ({"markers": None}, "markers: None is not an object"),
        ({"markers": proofs.markers(state="asleep")}, "markers.state: 'asleep' is not one of on,"),
        ({"markers": proofs.markers(state=["on"])}, "markers.state: a list is not one of"),
    ],
)
def test_proof_with_one_wrong_value_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(BadProof, match=f"^{named}") as caught:
        proofs.proof(**changes)

    assert "\n" not in str(caught.value)
    assert str(caught.value).isascii()


@pytest.mark.parametrize("key", [key for key in proofs.proof_json() if key != "version"])
def test_proof_without_a_key_is_refused(key: str) -> None:
    found = proofs.proof_json()
    del found[key]

    with pytest.raises(BadProof, match=f"^{key}: missing"):
        proof_from_json(found)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, -(10**400), 5e-324, 1e308, 2**62, "\ud800", "false"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(found=st.dictionaries(st.text(max_size=5) | st.sampled_from([*proofs.proof_json()]), JSON))
def test_proof_from_any_json_is_whole_or_refused(found: dict[str, Any]) -> None:
    try:
        proof = proof_from_json({**proofs.proof_json(), **found})
    except BadProof:
        return

    assert isinstance(proof, Proof)
    assert proof_from_json(json.loads(json.dumps(proof.to_json(), allow_nan=False))) == proof
