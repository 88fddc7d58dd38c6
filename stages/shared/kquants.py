"""ggml's block quantization in torch: the same bytes as llama.cpp's quantizer, on a CPU or a GPU.

Format and algorithm: llama.cpp, ggml/src/ggml-common.h (block layouts) and ggml/src/ggml-quants.c (the
reference quantizers, those without an importance matrix). A file quantized here and one quantized by
llama.cpp are equal because every float32 operation here is ggml's, in ggml's order: sums run over the weights
of a group one after the other, products are rounded before they are added (torch's `addcmul` fuses the two),
and no division becomes a multiplication by the reciprocal. The bytes are those of ggml's x86-64 build on all
that the tests try; a ggml compiled to fuse multiply and add differs from that build in a few blocks, and so
from this.

Layout: a *group* of 16 or 32 weights shares a scale. Tensors are [weights of a group, groups], so that one
step of every group's sum is one addition of two long rows. Rows stay in a CPU's second-level cache; torch
runs with one thread, since to coordinate several costs more than so short a step, and stalls on a busy CPU.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_GROUPS_AT_ONCE = {"cpu": 1 << 14, "cuda": 1 << 19}
_ROUNDING = 12582912.0  # 1.5 * 2**23: adding it leaves the nearest integer in the mantissa's low bits
_NO_SCALE_BELOW = 1e-15  # ggml's GROUP_MAX_EPS


def _nearest_int(t: Tensor) -> Tensor:
    """What ggml's nearest_int returns: half to even within ±2**22; outside, the bits that ggml gets there.

    Returns:
        int32 of the shape of t; 0 for NaN, -2**22 for both infinities.

    """
    shifted = torch.nan_to_num(t, nan=0.0, posinf=torch.inf, neginf=-torch.inf) + _ROUNDING
    bits = shifted.view(torch.int32)
    return (bits & 0x7FFFFF) - 0x400000


def _round_to(t: Tensor, low: int, high: int) -> Tensor:
    """t, overwritten by its nearest integers, none below low or above high; float32, as ggml rounds."""
    smallest, largest = torch.aminmax(t)
    if smallest.item() > -(2**22) and largest.item() < 2**22:
        return t.round_().clamp_(low, high)
    return _nearest_int(t).clamp_(low, high).float()


def _sum_in_order(rows: Tensor) -> Tensor:
    """rows[0] + rows[1] + ... from the left, each addition rounded to float32."""
    total = torch.zeros_like(rows[0])
    for row in rows:
        total.add_(row)
    return total


def _quotient(dividend: float, divisor: Tensor) -> Tensor:
    """A correctly rounded dividend / divisor: torch would multiply a Python number by the reciprocal."""
    return torch.full_like(divisor, dividend).div_(divisor)


def _divided(dividend: Tensor, divisor: float) -> Tensor:
    return dividend / torch.full_like(dividend, divisor)


def _first_peak(x: Tensor) -> tuple[Tensor, Tensor]:
    """The largest magnitude along dim 0 (NaN is none) and the first value that has it, sign and all."""
    magnitude = torch.nan_to_num(x.abs(), nan=0.0, posinf=torch.inf)
    largest = magnitude.amax(0)
    places = torch.arange(x.shape[0], device=x.device, dtype=torch.int64).view(-1, *[1] * (x.dim() - 1))
    first = torch.where(magnitude == largest, places, x.shape[0] - 1).amin(0)
    return largest, torch.where(largest > 0, x.gather(0, first.unsqueeze(0)).squeeze(0), 0)


def _half_bytes(value: Tensor) -> Tensor:
    """[blocks] float32 as [blocks, 2] bytes of float16."""
    return value.half().unsqueeze(1).view(torch.uint8)


def _by_block(levels: Tensor, groups: int) -> Tensor:
    """[weights of a group, blocks * groups] integers as [blocks, groups, weights of a group] uint8."""
    return levels.to(torch.uint8).view(levels.shape[0], -1, groups).permute(1, 2, 0).contiguous()


def _nibbles(low: Tensor, high: Tensor) -> Tensor:
    return (low & 15) | (high << 4)


def _bits(flags: Tensor) -> Tensor:
    """[blocks, 8, n] zeros and ones as [blocks, n] bytes, the first of the eight in the lowest bit."""
    shifts = torch.arange(8, device=flags.device, dtype=torch.uint8).view(1, 8, 1)
    return (flags << shifts).sum(1, dtype=torch.uint8)


def _pairs_of_bits(levels: Tensor) -> Tensor:
    """[blocks, 256] values below 4 as 64 bytes, each of the values l, l + 32, l + 64, l + 96 of one half."""
    quarters = levels.view(-1, 2, 4, 32)
    shifts = torch.arange(0, 8, 2, device=levels.device, dtype=torch.uint8).view(1, 1, 4, 1)
    return (quarters << shifts).sum(2, dtype=torch.uint8).flatten(1)


# ---- Q4_K and Q5_K: weight = scale * level - minimum, groups of 32 ----


def _fit_scale_and_minimum(
    x: Tensor, top: int, first: float, steps: int, keep_levels: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """make_qkx2_quants: try `steps` + 1 scales, each time with the least-squares minimum, and keep the best.

    Args:
        x: [32, groups] float32, finite.
        top: the largest level, 15 or 31.
        first: what the first trial adds to `top`; each further one adds 0.1 more.
        steps: number of trials, less one.
        keep_levels: also return the best trial's levels.

    Returns:
        scale [groups], minimum [groups] (subtracted, so not negative), levels [32, groups] or None.

    """
    lowest, high = torch.aminmax(x, dim=0)
    low = lowest.clamp(max=0)
    flat = high == low
    # Far outside ±2**22 ggml's rounding wraps around. That takes a group (nearly) without positive weights.
    wraps = not bool((flat | (high > (lowest.abs() * 1e-5).clamp_min_(1e-30))).all())

    sum_x2, sum_w, sum_x, sum_l, sum_l2, sum_xl, error, term, product = x.new_zeros(9, x.shape[1]).unbind(0)
    weights, levels = torch.empty_like(x), torch.empty_like(x)
    rows = list(zip(x, weights, levels, strict=True))
    for value, _, _ in rows:
        sum_x2.add_(torch.mul(value, value, out=term))
    # float32 sqrt is not correctly rounded in every build of torch; by way of float64 it is.
    root_mean_square = sum_x2.div_(32).double().sqrt_().float()
    for value, weight, _ in rows:
        torch.abs(value, out=weight).add_(root_mean_square)
        sum_w.add_(weight)
        sum_x.add_(torch.mul(weight, value, out=term))

    def round_levels(value: Tensor, level: Tensor, inverse_scale: Tensor) -> None:
        torch.sub(value, low, out=level).mul_(inverse_scale)
        if wraps:
            level.copy_(_nearest_int(level))
        level.round_().clamp_(0, top)

    def add_up_error(scale: Tensor, low: Tensor) -> None:
        error.zero_()
        for value, weight, level in rows:
            torch.mul(level, scale, out=term).add_(low).sub_(value)
            error.add_(term.mul_(term).mul_(weight))

    inverse_scale = _quotient(top, high - low)
    scale = _quotient(1, inverse_scale)
    for value, _, level in rows:
        round_levels(value, level, inverse_scale)
    add_up_error(scale, low)
    best_error, best_levels = error.clone(), levels.clone() if keep_levels else None

    for trial in (torch.arange(steps + 1, dtype=torch.float32) * 0.1 + first + top).tolist():
        inverse_scale = _quotient(trial, high - low)
        for total in (sum_l, sum_l2, sum_xl):
            total.zero_()
        for value, weight, level in rows:
            round_levels(value, level, inverse_scale)
            sum_l.add_(torch.mul(weight, level, out=term))
            sum_l2.add_(torch.mul(term, level, out=product))
            sum_xl.add_(torch.mul(term, value, out=product))
        determinant = (sum_w * sum_l2).sub_(sum_l * sum_l)
        new_scale = (sum_w * sum_xl).sub_(sum_x * sum_l).div_(determinant)
        new_low = (sum_l2 * sum_x).sub_(sum_l * sum_xl).div_(determinant)
        new_scale = torch.where(new_low > 0, sum_xl / sum_l2, new_scale)
        new_low.clamp_(max=0)
        add_up_error(new_scale, new_low)
        better = (error < best_error).logical_and_(determinant > 0)
        best_error = torch.where(better, error, best_error)
        scale = torch.where(better, new_scale, scale)
        low = torch.where(better, new_low, low)
        if best_levels is not None:
            best_levels = torch.where(better, levels, best_levels)

    if best_levels is not None:
        best_levels.masked_fill_(flat, 0)
    return scale.masked_fill_(flat, 0), torch.where(flat, lowest.clamp(max=0), low).neg_(), best_levels


def _encode_with_minimum(x: Tensor, top: int, first: float, steps: int) -> tuple[Tensor, Tensor]:
    """quantize_row_q4_K_ref and quantize_row_q5_K_ref up to the packing of the levels.

    Args:
        x: [32, blocks * 8].
        top: see `_fit_scale_and_minimum`, as for the next two.
        first: what the first trial adds to `top`.
        steps: number of trials, less one.

    Returns:
        the block's first 16 bytes [blocks, 16] and its levels [blocks, 8, 32], both uint8.

    """
    scale, minimum, _ = _fit_scale_and_minimum(x, top, first, steps)
    scales, minimums = scale.view(-1, 8), minimum.view(-1, 8)

    def six_bits(values: Tensor) -> tuple[Tensor, Tensor]:
        largest = values.amax(1, keepdim=True)
        largest = torch.where(largest > 0, largest, 0)
        inverse = torch.where(largest > 0, _quotient(63, largest), 0)
        return (_nearest_int(inverse * values) & 0xFF).clamp_(max=63), _divided(largest, 63).half()

    (s, d), (m, d_min) = six_bits(scales), six_bits(minimums)
    step, offset = (d.float() * s).view(-1), (d_min.float() * m).view(-1)
    levels = _round_to((x + offset).div_(step), 0, top)
    # Where the stored scale is zero, ggml leaves the search's levels in the block.
    kept = (step == 0).nonzero().squeeze(1)
    if len(kept):
        searched = _fit_scale_and_minimum(x[:, kept].contiguous(), top, first, steps, keep_levels=True)[2]
        assert searched is not None
        levels[:, kept] = searched
    s, m = s.to(torch.uint8), m.to(torch.uint8)
    low, high = torch.cat([s[:, :4], m[:, :4]], 1), torch.cat([s[:, 4:], m[:, 4:]], 1)
    last = _nibbles(s[:, 4:], m[:, 4:])
    head = torch.cat([d.view(torch.uint8), d_min.view(torch.uint8), low | (high >> 4 << 6), last], 1)
    return head, _by_block(levels, 8)


def _q4_k(x: Tensor) -> list[Tensor]:
    head, levels = _encode_with_minimum(x, 15, -1.0, 20)
    return [head, _nibbles(levels[:, 0::2], levels[:, 1::2])]


def _q5_k(x: Tensor) -> list[Tensor]:
    head, levels = _encode_with_minimum(x, 31, -0.5, 15)
    return [head, _bits(levels >> 4), _nibbles(levels[:, 0::2], levels[:, 1::2])]


# ---- Q6_K and Q3_K: weight = scale * (level - half the levels), groups of 16 ----


def _fit_scale(x: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """make_qx_quants with weights x²: the best of 19 scales around the one that maps the peak to -half.

    Args:
        x: [16, groups] float32, finite.
        half: levels run from -half to half - 1.

    Returns:
        scale [groups] and the inverse scale [groups] from which the best levels were rounded.

    """
    peak_size, peak = _first_peak(x)
    sum_xl, sum_l2, term, level = x.new_empty(4, x.shape[1]).unbind(0)
    squares = x * x
    rows = list(zip(x, squares, squares * x, strict=True))

    def add_up(inverse_scale: Tensor) -> None:
        sum_xl.zero_()
        sum_l2.zero_()
        for value, square, cube in rows:
            torch.mul(value, inverse_scale, out=level).round_().clamp_(-half, half - 1)
            sum_xl.add_(torch.mul(cube, level, out=term))
            sum_l2.add_(torch.mul(square, level, out=term).mul_(level))

    best_inverse = _quotient(-half, peak)
    add_up(best_inverse)
    scale = torch.where(sum_l2 != 0, sum_xl / sum_l2, 0)
    best = scale * sum_xl
    nudges = torch.arange(-9, 10, dtype=torch.float32)
    for trial in (-(nudges[nudges != 0] * 0.1 + half)).tolist():
        inverse = _quotient(trial, peak)
        add_up(inverse)
        better = (sum_xl * sum_xl > best * sum_l2).logical_and_(sum_l2 > 0)
        new_scale = sum_xl / sum_l2
        scale = torch.where(better, new_scale, scale)
        best = torch.where(better, new_scale * sum_xl, best)
        best_inverse = torch.where(better, inverse, best_inverse)
    empty = peak_size < _NO_SCALE_BELOW
    return scale.masked_fill_(empty, 0), best_inverse.masked_fill_(empty, torch.nan)


def _q6_k(x: Tensor) -> list[Tensor]:
    """quantize_row_q6_K_ref; x is [16, blocks * 16]."""
    scale, inverse = _fit_scale(x, 32)
    scales = scale.view(-1, 16)
    peak_size, peak = _first_peak(scales.t())
    empty = (peak_size < _NO_SCALE_BELOW).unsqueeze(1)
    inverse_peak = _quotient(-128, peak).unsqueeze(1)
    d = _quotient(1, inverse_peak).half().masked_fill_(empty, 0)
    s = _nearest_int(inverse_peak * scales).clamp_(max=127).to(torch.int8).masked_fill_(empty, 0)
    step = (d.float() * s).view(-1)
    levels = _round_to(x / step.masked_fill(step == 0, torch.inf), -32, 31)
    # Where the stored scale is zero, ggml leaves the search's levels in the block.
    kept = (step == 0).nonzero().squeeze(1)
    if len(kept):
        levels[:, kept] = _round_to(x[:, kept] * inverse[kept], -32, 31)
    levels.add_(32).masked_fill_((step == 0) & inverse.isnan(), 0)
    levels = _by_block(levels, 16).view(-1, 256).masked_fill_(empty, 0)
    low = (levels & 15).view(-1, 2, 2, 64)
    low_bits, high_bits = _nibbles(low[:, :, 0], low[:, :, 1]), _pairs_of_bits(levels >> 4)
    return [low_bits, high_bits, s.view(torch.uint8), d.view(torch.uint8)]


def _descend(x: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """make_q3_quants: starting from the scale that maps the peak to -half, move one level at a time.

    Returns:
        scale [groups], levels [16, groups] float32 from 0 to 2 * half - 1.

    """
    peak_size, peak = _first_peak(x)
    weight = x * x
    weighted_x = weight * x
    level = _nearest_int(x * _quotient(-half, peak)).clamp_(-half, half - 1).float()
    sum_xl = _sum_in_order(weighted_x * level)
    sum_l2 = _sum_in_order(weight * level * level)
    for _ in range(5):
        before = level.clone()
        for value, w, wx, old in zip(x, weight, weighted_x, level, strict=True):
            rest_xl, rest_l2 = sum_xl - wx * old, sum_l2 - w * old * old
            new = _nearest_int(value * rest_l2 / rest_xl).clamp_(-half, half - 1).float()
            new_xl, new_l2 = rest_xl + wx * new, rest_l2 + w * new * new
            better = new_xl * new_xl * sum_l2 > sum_xl * sum_xl * new_l2
            better &= (rest_xl > 0) & (new != old) & (new_l2 > 0)
            old.copy_(torch.where(better, new, old))
            sum_xl, sum_l2 = torch.where(better, new_xl, sum_xl), torch.where(better, new_l2, sum_l2)
        if torch.equal(before, level):
            break
    empty = peak_size < _NO_SCALE_BELOW
    scale = torch.where((sum_l2 > 0) & ~empty, sum_xl / sum_l2, 0)
    return scale, (level + half).masked_fill_(empty, 0)


def _q3_k(x: Tensor) -> list[Tensor]:
    """quantize_row_q3_K_ref; x is [16, blocks * 16]."""
    scale, searched = _descend(x, 4)
    scales = scale.view(-1, 16)
    peak = _first_peak(scales.t())[1].unsqueeze(1)
    empty = peak == 0
    inverse_peak = _quotient(-32, peak)
    d = _quotient(1, inverse_peak).half().masked_fill_(empty, 0)
    s = _nearest_int(inverse_peak * scales).to(torch.int8).clamp_(-32, 31).masked_fill_(empty, -32)
    step = (d.float() * s).view(-1)
    levels = _round_to(x / step.masked_fill(step == 0, torch.inf), -4, 3).add_(4)
    levels = _by_block(torch.where(step == 0, searched, levels), 16).view(-1, 8, 32)
    s = (s + 32).to(torch.uint8).masked_fill_(empty, 0)
    high = s.view(-1, 4, 4) >> 4
    shifts = torch.arange(0, 8, 2, device=x.device, dtype=torch.uint8).view(1, 4, 1)
    scale_bytes = [_nibbles(s[:, :8], s[:, 8:]), (high << shifts).sum(1, dtype=torch.uint8)]
    return [_bits(levels >> 2), _pairs_of_bits(levels & 3), *scale_bytes, d.view(torch.uint8)]


# ---- the simple formats: one scale for 32 weights ----


def _truncated(t: Tensor) -> Tensor:
    """C's float to integer conversion as x86 does it: toward zero, 0 for what no integer can hold."""
    return torch.nan_to_num(t, nan=0.0, posinf=0.0, neginf=0.0).to(torch.int32)


def _inverse(d: Tensor) -> Tensor:
    return torch.where(d != 0, _quotient(1, d), 0)


def _q8_0(x: Tensor) -> list[Tensor]:
    d = _divided(x.abs().amax(0), 127)
    scaled = x * _inverse(d)
    whole = scaled.trunc()
    halves = torch.where((scaled - whole).abs() >= 0.5, scaled.sign(), 0)  # roundf: half away from zero
    return [_half_bytes(d), _truncated(whole + halves).to(torch.int8).t().contiguous().view(torch.uint8)]


def _symmetric(x: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """quantize_row_q4_0_ref and q5_0_ref: scale bytes [blocks, 2] and levels [blocks, 32]."""
    d = _first_peak(x)[1] / -half
    levels = _truncated(x * _inverse(d) + (half + 0.5)).clamp_(max=2 * half - 1)
    return _half_bytes(d), _by_block(levels, 1)[:, 0]


def _q4_0(x: Tensor) -> list[Tensor]:
    d, levels = _symmetric(x, 8)
    return [d, _nibbles(levels[:, :16], levels[:, 16:])]


def _fifth_bits(levels: Tensor) -> Tensor:
    return _bits((levels >> 4).view(-1, 4, 8).transpose(1, 2))


def _q5_0(x: Tensor) -> list[Tensor]:
    d, levels = _symmetric(x, 16)
    return [d, _fifth_bits(levels), _nibbles(levels[:, :16], levels[:, 16:])]


def _q5_1(x: Tensor) -> list[Tensor]:
    low, high = torch.aminmax(x, dim=0)
    d = _divided(high - low, 31)
    levels = _by_block(_truncated((x - low) * _inverse(d) + 0.5), 1)[:, 0]
    return [_half_bytes(d), _half_bytes(low), _fifth_bits(levels), _nibbles(levels[:, :16], levels[:, 16:])]


def _f16(x: Tensor) -> list[Tensor]:
    return [x.half().view(torch.uint8)]


def _bf16(x: Tensor) -> list[Tensor]:
    return [x.bfloat16().view(torch.uint8)]


def _f32(x: Tensor) -> list[Tensor]:
    return [x.view(torch.uint8)]


class Format(NamedTuple):
    """A GGUF tensor type.

    Attributes:
        block: weights per block.
        bytes: bytes per block.
        group: weights per scale.
        encode: [group, groups] float32 -> the parts of a block in order, each uint8 with one row per block.

    """

    block: int
    bytes: int
    group: int
    encode: Callable[[Tensor], list[Tensor]]


FORMATS = {
    "Q4_K": Format(256, 144, 32, _q4_k),
    "Q5_K": Format(256, 176, 32, _q5_k),
    "Q6_K": Format(256, 210, 16, _q6_k),
    "Q3_K": Format(256, 110, 16, _q3_k),
    "Q8_0": Format(32, 34, 32, _q8_0),
    "Q5_1": Format(32, 24, 32, _q5_1),
    "Q5_0": Format(32, 22, 32, _q5_0),
    "Q4_0": Format(32, 18, 32, _q4_0),
    "F16": Format(1, 2, 1, _f16),
    "BF16": Format(1, 2, 1, _bf16),
    "F32": Format(1, 4, 1, _f32),
}


@torch.inference_mode()
def quantize(weights: Tensor, kind: str) -> Tensor:
    """Encode each row of a matrix.

    Args:
        weights: [rows, columns] of any float type, finite, on a CPU or a GPU.
        kind: a key of `FORMATS`.

    Returns:
        uint8 [rows, bytes per row] on the same device.

    Raises:
        ValueError: columns that are no multiple of the format's block.

    """
    form = FORMATS[kind]
    rows, columns = weights.shape
    if columns % form.block:
        raise ValueError(f"{kind} takes rows of a multiple of {form.block} weights, not {columns}")
    out = torch.empty(rows * columns // form.block, form.bytes, dtype=torch.uint8, device=weights.device)
    chunk = _GROUPS_AT_ONCE[weights.device.type] * max(form.group, 32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for start, some in enumerate(torch.split(weights.reshape(-1), chunk)):
            blocks = out[start * chunk // form.block :][: len(some) // form.block]
            parts = form.encode(some.view(-1, form.group).float().t().contiguous())
            torch.cat([part.reshape(len(blocks), -1) for part in parts], 1, out=blocks)
    finally:
        torch.set_num_threads(threads)
    return out.view(rows, -1)
