"""Conformance of the GPU's emulated kernel, on a device or in Triton's interpreter.

    TRITON_INTERPRET=1 python -m tests.emulation.interpreted_cuda_kernel named

`tests/gpu/test_emulated_kernel.py` calls the same functions on a GPU.
"""

import sys
from dataclasses import replace

import torch
from moe_serve_emulation.cuda.tiles import Tiles

from tests.emulation import cuda_cases as cases

# Small, so that the interpreter is quick; on a GPU the kernel's own launch is taken as well.
LAUNCHES = (Tiles(rows=16, width=64),)
DRAWN, SEED = 8, 7
# Of the named cases, those that the interpreter also takes with plain weights: it is slow.
PLAIN = (1, 2, 5)


def same(case: cases.Case, device: str, launch: Tiles | None, *, packed: bool) -> None:
    """Both kernels answer alike, NaN where the other has NaN."""
    made = cases.layer(case)
    wanted = cases.expected(case, made)
    got = cases.answered(case, made, device, packed=packed, launch=launch)
    largest = float(wanted.nan_to_num().abs().max())
    assert largest < cases.EXACT_BELOW, f"{case}: {largest} is beyond what float32 holds exactly"
    assert torch.equal(got.isnan(), wanted.isnan()), f"{case}, packed {packed}: NaN elsewhere"
    assert torch.equal(got.nan_to_num(), wanted.nan_to_num()), f"{case}, packed {packed}: differs"


def named(device: str = "cpu") -> None:
    """The situations of the CPU kernel's own tests, poison of unwritten columns among them."""
    found = cases.named()
    for number, case in enumerate(found):
        same(case, device, LAUNCHES[0], packed=True)
        if device != "cpu" or number in PLAIN:
            same(case, device, LAUNCHES[0], packed=False)
    assert any(cases.expected(case, cases.layer(case)).isnan().any() for case in found)


def drawn(device: str = "cpu", count: int = DRAWN) -> None:
    """Random sizes, pads and kernel builds."""
    for number, case in enumerate(cases.drawn(count, SEED)):
        same(case, device, LAUNCHES[0], packed=number % 3 > 0)


def swapped(device: str = "cpu") -> None:
    """The same with the weights as the left operand."""
    for case in cases.named()[1:3]:
        same(case, device, replace(LAUNCHES[0], swap=True), packed=True)


def poisoned(device: str = "cpu") -> None:
    """What a plan does not read is not used: NaN in plain weights there changes nothing."""
    for case in (cases.named()[1], cases.named()[9]):
        made = cases.layer(case)
        weights = cases.plain_weights(case, made, device)
        clean = cases.answered(case, made, device, packed=False, launch=LAUNCHES[0])
        plan = _plan(case)
        read = torch.zeros(weights.w1.shape[1:], dtype=torch.bool)
        for low, high in plan.rows:
            for begin, end in plan.k1:
                read[low:high, begin:end] = True
        w1, w2 = made.w1.clone(), made.w2.clone()
        w1[:, ~read] = float("nan")
        w2[:, plan.columns :] = float("nan")
        w2[:, :, plan.k2[0][1] :] = float("nan")
        assert bool(w1.isnan().any() & w2.isnan().any())
        dirty = replace_weights(made, w1, w2)
        got = cases.answered(case, dirty, device, packed=False, launch=LAUNCHES[0])
        assert torch.equal(got, clean), f"{case}: poisoned weights were used"


def replace_weights(made: cases.Layer, w1: torch.Tensor, w2: torch.Tensor) -> cases.Layer:
    """The same layer with other weights."""
    return replace(made, w1=w1, w2=w2)


def sharded(device: str = "cpu") -> None:
    """Experts of two ranks: their answers add up to those of one, and neither counts the bias."""
    case = cases.named()[1]
    made = cases.layer(case)
    whole = cases.answered(case, made, device, packed=True, launch=LAUNCHES[0])
    total = torch.zeros_like(whole)
    for mine in ([0], [1, 2]):
        local = torch.full((cases.EXPERTS,), -1, dtype=torch.int32)
        local[mine] = torch.arange(len(mine), dtype=torch.int32)
        part = replace(
            made, w1=made.w1[mine], w2=made.w2[mine], bias1=made.bias1[mine], bias2=made.bias2[mine]
        )
        total += cases.answered(
            case, part, device, packed=True, launch=LAUNCHES[0], local=local.to(device)
        )
    assert torch.equal(total, whole)


def _plan(case: cases.Case) -> cases.Reads:
    return cases.reads(
        hidden=case.hidden,
        inter=case.inter,
        hidden_pad=case.hidden_pad,
        intermediate_pad=case.intermediate_pad,
        config=case.config,
    )


TESTS = {test.__name__: test for test in (named, drawn, swapped, poisoned, sharded)}

if __name__ == "__main__":
    TESTS[sys.argv[1]]()
