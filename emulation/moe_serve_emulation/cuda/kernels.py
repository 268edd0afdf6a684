"""The two stages of a fused MoE in Triton: what the pads skip is not fetched.

Weights are MXFP4 in the storage of `layout.py` (`PACKED`), or plain rows in bf16 or float32.
Activations are bf16; with `EXACT` all is computed in float32 without any rounding of its own, so
that whole numbers give exact results, also in Triton's interpreter.
"""

import triton
import triton.language as tl


@triton.jit
def _codes(packed):
    """Two bf16 for each byte of e2m1 codes, low nibble first, each 2**-126 of its value."""
    return tl.inline_asm_elementwise(
        asm="""
        {
        .reg .b32 a, b, c, d;
        prmt.b32 a, $4, 0, 0x4140;
        prmt.b32 b, $4, 0, 0x4342;
        shl.b32 c, a, 12;  and.b32 c, c, 0x80008000;
        shl.b32 d, a, 6;   and.b32 d, d, 0x01C001C0;
        or.b32 $0, c, d;
        shl.b32 c, b, 12;  and.b32 c, c, 0x80008000;
        shl.b32 d, b, 6;   and.b32 d, d, 0x01C001C0;
        or.b32 $1, c, d;
        shl.b32 c, a, 8;   and.b32 c, c, 0x80008000;
        shl.b32 d, a, 2;   and.b32 d, d, 0x01C001C0;
        or.b32 $2, c, d;
        shl.b32 c, b, 8;   and.b32 c, c, 0x80008000;
        shl.b32 d, b, 2;   and.b32 d, d, 0x01C001C0;
        or.b32 $3, c, d;
        }
        """,
        constraints="=r,=r,=r,=r,r",
        args=[packed],
        dtype=(tl.bfloat16, tl.bfloat16),
        is_pure=True,
        pack=4,
    )


@triton.jit
def _value(code):
    """The float32 value of an e2m1 code, by arithmetic alone."""
    exponent = (code >> 1) & 3
    mantissa = (code & 1).to(tl.float32)
    power = tl.exp2(exponent.to(tl.float32) - 1.0)
    size = tl.where(exponent == 0, mantissa * 0.5, (1.0 + mantissa * 0.5) * power)
    return tl.where((code & 8) != 0, -size, size)


@triton.jit
def _unpacked(codes, scales, BN: tl.constexpr, BK: tl.constexpr, EXACT: tl.constexpr):
    """Codes [BN, BK/2] and scales [BN, BK/32] as two weight tiles [BN, BK/2]."""
    if EXACT:
        factor = tl.exp2(scales.to(tl.float32) - 127.0)
        low, high = _value(codes & 15), _value(codes >> 4)
    else:
        # 2**(s - 127) times the 2**126 that `_codes` leaves out.
        factor = ((scales.to(tl.int16) + 126) << 7).to(tl.bfloat16, bitcast=True)
        low, high = _codes(codes)
    factor = tl.broadcast_to(factor[:, :, None], (BN, BK // 32, 16)).reshape(BN, BK // 2)
    return low * factor, high * factor


@triton.jit
def _add(sums, left, right, EXACT: tl.constexpr):
    """Add left [M, K] @ right [N, K].T to `sums`."""
    if EXACT:
        sums = tl.dot(left, tl.trans(right), sums, input_precision="ieee")
    else:
        sums = tl.dot(left, tl.trans(right), sums)
    return sums


@triton.jit
def _product(
    sums, x_rows, x_live, w, s, row, row_live, k, columns,
    BN: tl.constexpr, BK: tl.constexpr,
    PACKED: tl.constexpr, EXACT: tl.constexpr, SWAP: tl.constexpr,
):  # fmt: skip
    """Add x [BM, BK] @ weights [BN, BK].T at column k to `sums`; `columns` is a row's length.

    With SWAP the sums are [BN, BM]: the weights are then the left operand.
    """
    if PACKED:
        # A piece of 16 rows by 128 columns: 1024 bytes of codes, 64 of scales.
        piece = row // 16 * (columns // 128) + k // 128
        byte, group = tl.arange(0, BK // 2), tl.arange(0, BK // 32)
        codes = tl.load(
            w + (piece * 1024 + row % 16 * 64)[:, None] + byte[None, :],
            mask=row_live[:, None], other=0,
        )  # fmt: skip
        scales = tl.load(
            s + (piece * 64 + row % 16 * 4)[:, None] + group[None, :],
            mask=row_live[:, None], other=0,
        )  # fmt: skip
        low, high = _unpacked(codes, scales, BN, BK, EXACT)
        # A hint to the compiler: columns come in contiguous runs of 16.
        at = tl.max_contiguous(tl.multiple_of(byte // 16 * 32 + byte % 16, 16), 16) + k
        x_low = tl.load(x_rows[:, None] + at[None, :], mask=x_live[:, None], other=0)
        x_high = tl.load(x_rows[:, None] + 16 + at[None, :], mask=x_live[:, None], other=0)
        if EXACT:
            x_low, x_high = x_low.to(tl.float32), x_high.to(tl.float32)
        if SWAP:
            sums = _add(_add(sums, low, x_low, EXACT), high, x_high, EXACT)
        else:
            sums = _add(_add(sums, x_low, low, EXACT), x_high, high, EXACT)
    else:
        at = k + tl.arange(0, BK)
        weights = tl.load(
            w + (row * columns)[:, None] + at[None, :], mask=row_live[:, None], other=0
        )
        x = tl.load(x_rows[:, None] + at[None, :], mask=x_live[:, None], other=0)
        if EXACT:
            x, weights = x.to(tl.float32), weights.to(tl.float32)
        if SWAP:
            sums = _add(sums, weights, x, EXACT)
        else:
            sums = _add(sums, x, weights, EXACT)
    return sums


@triton.jit
def stage1(
    x, w, s, bias, out, sorted_pairs, block_experts, padded_pairs,
    pairs, hidden, inter, gate_limit, up_limit, written, part, steps,
    TOP_K: tl.constexpr, SPLITS: tl.constexpr, INTERLEAVED: tl.constexpr,
    BIAS_INTERLEAVED: tl.constexpr, SWIGLU: tl.constexpr,
    PACKED: tl.constexpr, EXACT: tl.constexpr, SWAP: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Out [pairs, inter] = activation(x[token] @ w[expert].T + bias).

    w [E, 2 * inter, hidden], x [tokens, hidden], bias [E, 2 * inter]. Neurons from `gate_limit`
    (`up_limit`) on have gate (up) weights of zero; those from `written` on are not written. The
    columns are `SPLITS` parts of length `part`; of each, the first `steps` tiles of BK are read.
    """
    block = tl.program_id(1)
    if block * BM >= tl.load(padded_pairs):
        return
    expert = tl.load(block_experts + block).to(tl.int64)
    if expert < 0:
        return
    if tl.program_id(0) * BN >= written:
        return
    pair = tl.load(sorted_pairs + block * BM + tl.arange(0, BM))
    real = pair < pairs
    x_rows = x + (pair // TOP_K).to(tl.int64) * hidden
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    if INTERLEAVED:
        gate_row = n // 16 * 32 + n % 16
        up_row = gate_row + 16
    else:
        gate_row = n
        up_row = n + inter
    w_expert = w + expert * (2 * inter * hidden // (2 if PACKED else 1))
    s_expert = s + expert * (2 * inter * hidden // 32)
    gate_live, up_live = n < gate_limit, n < up_limit
    if SWAP:
        gate = tl.zeros((BN, BM), dtype=tl.float32)
        up = tl.zeros((BN, BM), dtype=tl.float32)
    else:
        gate = tl.zeros((BM, BN), dtype=tl.float32)
        up = tl.zeros((BM, BN), dtype=tl.float32)
    count = tl.where(tl.program_id(0) * BN >= tl.maximum(gate_limit, up_limit), 0, steps * SPLITS)
    for step in range(count):
        if SPLITS == 1:
            k = step * BK
        else:
            k = step // steps * part + step % steps * BK
        gate = _product(
            gate, x_rows, real, w_expert, s_expert, gate_row, gate_live, k, hidden,
            BN, BK, PACKED, EXACT, SWAP,
        )  # fmt: skip
        up = _product(
            up, x_rows, real, w_expert, s_expert, up_row, up_live, k, hidden,
            BN, BK, PACKED, EXACT, SWAP,
        )  # fmt: skip
    if SWAP:
        gate, up = tl.trans(gate), tl.trans(up)
    if BIAS_INTERLEAVED:
        gate_bias = n // 16 * 32 + n % 16
        up_bias = gate_bias + 16
    else:
        gate_bias = n
        up_bias = n + inter
    gate += tl.load(bias + expert * 2 * inter + gate_bias).to(tl.float32)[None, :]
    up += tl.load(bias + expert * 2 * inter + up_bias).to(tl.float32)[None, :]
    if SWIGLU:
        gate = tl.minimum(gate, 7.0)
        up = tl.minimum(tl.maximum(up, -7.0), 7.0)
        value = gate * tl.sigmoid(1.702 * gate) * (up + 1.0)
    else:
        value = gate + 3.0 * up
    where = out + pair[:, None].to(tl.int64) * inter + n[None, :]
    tl.store(where, value.to(out.dtype.element_ty), mask=real[:, None] & (n < written)[None, :])


@triton.jit
def stage2(
    a, w, s, bias, shares, out, sorted_pairs, block_experts, padded_pairs,
    pairs, hidden, inter, columns_limit, steps,
    PACKED: tl.constexpr, EXACT: tl.constexpr, SWAP: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Out [pairs, hidden] = (a[pair] @ w[expert].T + bias) * share.

    w [E, hidden, inter], a [pairs, inter], bias [E, hidden], shares [pairs]. Columns of the output
    from `columns_limit` on have weights of zero; of a row of w the first `steps` tiles are read.
    """
    block = tl.program_id(1)
    if block * BM >= tl.load(padded_pairs):
        return
    expert = tl.load(block_experts + block).to(tl.int64)
    if expert < 0:
        return
    pair = tl.load(sorted_pairs + block * BM + tl.arange(0, BM))
    real = pair < pairs
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    live = n < columns_limit
    w_expert = w + expert * (hidden * inter // (2 if PACKED else 1))
    s_expert = s + expert * (hidden * inter // 32)
    a_rows = a + pair.to(tl.int64) * inter
    if SWAP:
        sums = tl.zeros((BN, BM), dtype=tl.float32)
    else:
        sums = tl.zeros((BM, BN), dtype=tl.float32)
    count = tl.where(tl.program_id(0) * BN >= columns_limit, 0, steps)
    for step in range(count):
        sums = _product(
            sums, a_rows, real, w_expert, s_expert, n, live, step * BK, inter,
            BN, BK, PACKED, EXACT, SWAP,
        )  # fmt: skip
    if SWAP:
        sums = tl.trans(sums)
    sums += tl.load(bias + expert * hidden + n).to(tl.float32)[None, :]
    sums *= tl.load(shares + pair, mask=real, other=0.0).to(tl.float32)[:, None]
    where = out + pair[:, None].to(tl.int64) * hidden + n[None, :]
    tl.store(where, sums.to(out.dtype.element_ty), mask=real[:, None])
