"""ggml's block quantization: the same bytes as llama.cpp's quantizer, on a CPU or a GPU, several times as fast.

Format and algorithm: llama.cpp, ggml/src/ggml-common.h (block layouts) and ggml/src/ggml-quants.c (the quantizers,
`quantize_row_*_ref` without an importance matrix and `quantize_row_*_impl` with one). The bytes are equal because
every float32 operation here is ggml's, in ggml's order: sums run over a group's weights one after the other, and
products are rounded before they are added. A ggml compiled to fuse the two differs from its own x86-64 build in a few
blocks, and so from this.

Layout: a sum that must run in order cannot be split over a CPU's vector lanes, but many blocks' sums can. Arrays are
therefore [weights, lanes]: a *lane* is a block of 32 or 256 weights, and the innermost loop of every step runs over
the lanes, which Numba compiles to vector instructions. A *group* of 16 or 32 weights of a block shares a scale. On a
GPU a thread is one lane: `kquants_cuda` compiles the very same functions for it.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-decorators=False, disallow-untyped-calls=False

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from numba.extending import overload
from torch import Tensor

F, I, U = np.float32, np.int32, np.uint8  # noqa: E741
LANES = 64  # of float32: the search's arrays of one group stay in a CPU's first-level cache
SCRATCH = 128  # float32 for each lane
_WEIGHTS_AT_ONCE = 1 << 18
_ROUNDING = F(12582912.0)  # 1.5 * 2**23: adding it leaves the nearest integer in the mantissa's low bits
_NO_SCALE_BELOW = F(1e-15)  # ggml's GROUP_MAX_EPS

jit = njit(error_model="numpy", nogil=True, cache=True)


def multiply(a, b):
    """The product, rounded to float32 whatever is done with it: not to be fused with an addition."""
    return a * b


@overload(multiply)
def _multiply_on_cpu(a, b):
    return lambda a, b: a * b  # LLVM fuses nothing that it was not told to


@jit
def _nearest(t):
    """What ggml's nearest_int returns: half to even within ±2**22; outside, the bits that ggml gets there."""
    return I((F(t + _ROUNDING).view(I) & I(0x7FFFFF)) - I(0x400000))


@jit
def _clamped(t, low, top):
    return I(min(max(_nearest(t), I(low)), I(top)))


@jit
def _truncated(t):
    """C's float to integer conversion as x86 does it: toward zero, 0 for what no integer can hold."""
    return I(t) if abs(t) < F(2147483648.0) else I(0)


@jit
def _to_half(t):
    """The bits of t as float16, rounded half to even."""
    bits = F(t).view(I)
    size = bits & I(0x7FFFFFFF)
    if size >= I(0x47800000):
        half = I(0x7C00) if size <= I(0x7F800000) else I(0x7E00)
    elif size < I(0x38800000):
        half = F(abs(t) + F(0.5)).view(I) - I(0x3F000000)  # a subnormal: 0.5's last bit is its unit
    else:
        half = (size - I(0x38000000) + I(0xFFF) + ((size >> 13) & I(1))) >> 13
    return I(((bits >> 16) & I(0x8000)) | half)


@jit
def _from_half(half):
    size = F(I((half & I(0x7FFF)) << 13).view(F) * F(2.0**112))
    if half & I(0x7C00) == I(0x7C00):
        size = F(np.inf)
    return F(-size) if half & I(0x8000) else size


@jit
def _store_half(half, out):
    out[0], out[1] = U(half & 0xFF), U(half >> 8)


@jit
def _weigh(x, importance, energy, weight, weight_sum):
    """The importance matrix's weights: importance * sqrt(energy + x²), and their sum."""
    for k in range(x.shape[1]):
        weight_sum[k] = F(0)
    for i in range(len(x)):
        for k in range(x.shape[1]):
            weight[i, k] = importance[i, k] * F(math.sqrt(energy[k] + multiply(x[i, k], x[i, k])))
            weight_sum[k] += weight[i, k]


@jit
def _sum_of_squares(x, total):
    for k in range(x.shape[1]):
        total[k] = F(0)
    for i in range(len(x)):
        for k in range(x.shape[1]):
            total[k] += multiply(x[i, k], x[i, k])


# ---- weight = scale * level - minimum ----


@jit
def _level(t, top):
    """The nearest of the levels from 0 to top; 0 for NaN."""
    return _nearest(min(t, F(top)) if t > F(0) else F(0))


@jit
def _fit_scale_and_minimum(x, weight, top, trials, scale, minimum, inverse, origin, s):
    """make_qkx2_quants and make_qkx3_quants: the best of many scales, each with its least-squares minimum.

    The levels of the best trial are not kept: they are the nearest integers to (x - origin) * inverse.

    Args:
        x: [weights, lanes] float32, finite.
        weight: [weights, lanes], of each squared error.
        top: the largest level, 15 or 31.
        trials: float32; a trial's inverse scale is one of them divided by the group's range.
        scale: [lanes], to be filled, like the next three.
        minimum: subtracted from scale * level, so not negative.
        inverse: scale of the best trial's levels.
        origin: of the best trial's levels.
        s: [42, lanes] for intermediate results.

    """
    count, lanes = x.shape
    low, high, sum_w, sum_x = s[0], s[1], s[2], s[3]
    sum_l, sum_l2, sum_xl, best, error, new_inverse = s[4], s[5], s[6], s[7], s[8], s[9]
    level = s[10:]
    for k in range(lanes):
        low[k] = high[k] = x[0, k]
        sum_w[k] = sum_x[k] = F(0)
    for i in range(count):
        xi, wi = x[i], weight[i]
        for k in range(lanes):
            low[k] = min(low[k], xi[k])
            high[k] = max(high[k], xi[k])
            sum_w[k] += wi[k]
            sum_x[k] += multiply(wi[k], xi[k])
    for k in range(lanes):
        low[k] = min(low[k], F(0))
        inverse[k] = F(top) / (high[k] - low[k])
        origin[k] = low[k]
        scale[k] = F(1) / inverse[k]
        best[k] = F(0)
    for i in range(count):
        xi, wi = x[i], weight[i]
        for k in range(lanes):
            rounded = F(_clamped(multiply(inverse[k], xi[k] - low[k]), 0, top))
            difference = multiply(scale[k], rounded) + low[k] - xi[k]
            best[k] += multiply(wi[k], multiply(difference, difference))
    for k in range(lanes):
        inverse[k] = inverse[k] if inverse[k] < F(np.inf) else F(0)  # ggml's integers overflow: all its levels are 0
    for t in range(trials.size):
        for k in range(lanes):
            new_inverse[k] = trials[t] / (high[k] - low[k])
            sum_l[k] = sum_l2[k] = sum_xl[k] = error[k] = F(0)
        for i in range(count):
            xi, wi, li = x[i], weight[i], level[i]
            for k in range(lanes):
                rounded = F(_level(multiply(new_inverse[k], xi[k] - low[k]), top))
                weighted = multiply(wi[k], rounded)
                li[k] = rounded
                sum_l[k] += weighted
                sum_l2[k] += multiply(weighted, rounded)
                sum_xl[k] += multiply(weighted, xi[k])
        for k in range(lanes):
            determinant = multiply(sum_w[k], sum_l2[k]) - multiply(sum_l[k], sum_l[k])
            new_scale = (multiply(sum_w[k], sum_xl[k]) - multiply(sum_x[k], sum_l[k])) / determinant
            new_low = (multiply(sum_l2[k], sum_x[k]) - multiply(sum_l[k], sum_xl[k])) / determinant
            if new_low > F(0):
                new_low = F(0)
                new_scale = sum_xl[k] / sum_l2[k]
            sum_l[k], sum_l2[k], sum_xl[k] = new_scale, new_low, determinant
        for i in range(count):
            xi, wi, li = x[i], weight[i], level[i]
            for k in range(lanes):
                difference = multiply(sum_l[k], li[k]) + sum_l2[k] - xi[k]
                error[k] += multiply(wi[k], multiply(difference, difference))
        for k in range(lanes):
            if sum_xl[k] > F(0) and error[k] < best[k]:
                best[k], scale[k], inverse[k] = error[k], sum_l[k], new_inverse[k]
                origin[k], low[k] = low[k], sum_l2[k]
    for k in range(lanes):
        minimum[k] = -low[k]


@jit
def _fit_to_six_bits(values, weight, bits, unit):
    """make_qp_quants: levels from 0 to 63 of a block's scales or minimums.

    Args:
        values: [groups, lanes] float32.
        weight: [groups, lanes], of each squared error.
        bits: [groups, lanes] levels, to be filled.
        unit: [lanes] what a level is worth, to be filled.

    """
    groups, lanes = values.shape
    for k in range(lanes):
        largest = F(0)
        for j in range(groups):
            largest = max(largest, values[j, k])
        if largest < _NO_SCALE_BELOW:
            unit[k] = F(0)
            for j in range(groups):
                bits[j, k] = F(0)
            continue
        inverse = F(63) / largest
        best = F(0)
        for step in range(-5, 5):
            if step == 0:
                continue
            trial = F(63) / largest if step == -5 else (multiply(F(0.1), F(step)) + F(63)) / largest
            size = F(1) / trial
            error = F(0)
            for j in range(groups):
                level = _nearest(multiply(trial, values[j, k]))
                level = level & 0xFF if step == -5 else min(level, 63)
                difference = values[j, k] - multiply(size, F(level))
                error += multiply(multiply(weight[j, k], difference), difference)
            if step == -5 or error < best:
                best, inverse = error, trial
        sum_xl = sum_l2 = F(0)
        for j in range(groups):
            level = min(_nearest(multiply(inverse, values[j, k])), 63)
            bits[j, k] = F(level & 0xFF)
            sum_xl += multiply(multiply(weight[j, k], values[j, k]), F(level))
            sum_l2 += multiply(multiply(weight[j, k], F(level)), F(level))
        for _ in range(5):
            changed = False
            for j in range(groups):
                weighted, old = multiply(weight[j, k], values[j, k]), bits[j, k]
                rest_xl = sum_xl - multiply(weighted, old)
                rest_l2 = sum_l2 - multiply(multiply(weight[j, k], old), old)
                if rest_xl > F(0) and rest_l2 > F(0):
                    new = F(min(_nearest(values[j, k] * rest_l2 / rest_xl), 63))
                    if new != old:
                        rest_xl += multiply(weighted, new)
                        rest_l2 += multiply(multiply(weight[j, k], new), new)
                        if rest_xl * rest_xl * sum_l2 > sum_xl * sum_xl * rest_l2:
                            bits[j, k], sum_xl, sum_l2 = F(I(new) & 0xFF), rest_xl, rest_l2
                            changed = True
            if not changed:
                break
        unit[k] = sum_xl / sum_l2 if sum_l2 > F(0) else F(0)


@jit
def _encode_with_minimum(x, importance, energy, top, trials, f, levels, out):
    """Q4_K and Q5_K up to the packing of the levels: the first 16 bytes of each block, and its levels."""
    lanes = x.shape[1]
    scale, minimum, inverse, origin = f[0:8], f[8:16], f[16:24], f[24:32]
    weight, weight_sum, unit, unit_minimum, s = f[32:64], f[64:72], f[72], f[73], f[74:116]
    weighted = len(importance) > 0
    if weighted:
        _sum_of_squares(x, energy)
        for k in range(lanes):
            energy[k] = multiply(F(2) * energy[k], F(1 / 256))
    for j in range(8):
        some = x[32 * j : 32 * j + 32]
        if weighted:
            _weigh(some, importance[32 * j : 32 * j + 32], energy, weight, weight_sum[j])
        else:
            _sum_of_squares(some, energy)
            for i in range(32):
                for k in range(lanes):
                    weight[i, k] = F(math.sqrt(energy[k] / F(32))) + abs(some[i, k])
        _fit_scale_and_minimum(some, weight, top, trials, scale[j], minimum[j], inverse[j], origin[j], s)
    scale_bits, minimum_bits = s[0:8], s[8:16]
    if weighted:
        _fit_to_six_bits(scale, weight_sum, scale_bits, unit)
        _fit_to_six_bits(minimum, weight_sum, minimum_bits, unit_minimum)
    else:
        _share_unit(scale, scale_bits, unit)
        _share_unit(minimum, minimum_bits, unit_minimum)
    for k in range(lanes):
        half, half_minimum = _to_half(unit[k]), _to_half(unit_minimum[k])
        _store_half(half, out[k])
        _store_half(half_minimum, out[k, 2:])
        unit[k], unit_minimum[k] = _from_half(half), _from_half(half_minimum)
        _store_six_bits(scale_bits, k, top, 0, out[k, 4:8], out[k, 12:16])
        _store_six_bits(minimum_bits, k, top, 4, out[k, 8:12], out[k, 12:16])
    for i in range(256):
        j = i // 32
        for k in range(lanes):
            step, offset = unit[k] * scale_bits[j, k], multiply(unit_minimum[k], minimum_bits[j, k])
            # Where the stored scale is zero, ggml leaves the search's levels in the block.
            found = _level(multiply(inverse[j, k], x[i, k] - origin[j, k]), top)
            levels[i, k] = U(_clamped((x[i, k] + offset) / step, 0, top) if step != F(0) else found)


@jit
def _store_six_bits(bits, k, top, shift, first_four, last_four):
    """Pack a lane's eight scales or minimums, and leave in `bits` what a reader will unpack.

    A negative one wraps to more than six bits: Q5_K then takes the largest of six, Q4_K lets the rest spill over.
    """
    for j in range(4):
        first, last = I(bits[j, k]), I(bits[j + 4, k])
        if top == 31:
            first, last = min(first, I(63)), min(last, I(63))
        first_four[j] = U(first | (last >> 4 << 6))
        last_four[j] = U((last_four[j] if shift else 0) | ((last & 15) << shift))
        bits[j, k] = F(first_four[j] & 63)
        bits[j + 4, k] = F((last & 15) | (first_four[j] >> 6 << 4))


@jit
def _share_unit(values, bits, unit):
    """63 levels for a block's scales or minimums: the largest gets the last."""
    groups, lanes = values.shape
    for k in range(lanes):
        largest = F(0)
        for j in range(groups):
            largest = max(largest, values[j, k])
        inverse = F(63) / largest if largest > F(0) else F(0)
        for j in range(groups):
            bits[j, k] = F(min(_nearest(multiply(inverse, values[j, k])) & 0xFF, 63))
        unit[k] = largest / F(63)


@jit
def _q4_k(x, importance, energy, trials, f, levels, out):
    _encode_with_minimum(x, importance, energy, 15, trials[0], f, levels, out)
    for k in range(x.shape[1]):
        for p in range(4):
            for i in range(32):
                out[k, 16 + 32 * p + i] = U(levels[64 * p + i, k] | (levels[64 * p + 32 + i, k] << 4))


@jit
def _q5_k(x, importance, energy, trials, f, levels, out):
    _encode_with_minimum(x, importance, energy, 31, trials[0], f, levels, out)
    for k in range(x.shape[1]):
        for i in range(32):
            high = 0
            for j in range(8):
                high |= (levels[32 * j + i, k] >> 4) << j
            out[k, 16 + i] = U(high)
        for p in range(4):
            for i in range(32):
                first, second = levels[64 * p + i, k] & 15, levels[64 * p + 32 + i, k] & 15
                out[k, 48 + 32 * p + i] = U(first | (second << 4))


# ---- weight = scale * (level - half the levels) ----


@jit
def _fit_scale(x, weight, half, trials, scale, inverse, s):
    """make_qx_quants: the best of 19 scales around the one that maps the peak to -half.

    Args:
        x: [weights, lanes] float32, finite.
        weight: [weights, lanes], of each squared error.
        half: levels run from -half to half - 1.
        trials: float32, -half first; a trial's inverse scale is one of them divided by the peak.
        scale: [lanes], to be filled.
        inverse: [lanes], to be filled: the best levels are the nearest integers to x * inverse; NaN where all are 0.
        s: [6, lanes] for intermediate results.

    """
    count, lanes = x.shape
    peak_size, peak, sum_xl, sum_l2, best, trial = s[0], s[1], s[2], s[3], s[4], s[5]
    for k in range(lanes):
        peak_size[k] = peak[k] = F(0)
    for i in range(count):
        for k in range(lanes):
            size = abs(x[i, k])
            peak[k] = x[i, k] if size > peak_size[k] else peak[k]
            peak_size[k] = size if size > peak_size[k] else peak_size[k]
    for t in range(trials.size):
        for k in range(lanes):
            trial[k] = trials[t] / peak[k]
            sum_xl[k] = sum_l2[k] = F(0)
        for i in range(count):
            xi, wi = x[i], weight[i]
            for k in range(lanes):
                level = F(_clamped(multiply(trial[k], xi[k]), -half, half - 1))
                sum_xl[k] += multiply(multiply(wi[k], xi[k]), level)
                sum_l2[k] += multiply(multiply(wi[k], level), level)
        for k in range(lanes):
            better = sum_l2[k] > F(0) and sum_xl[k] * sum_xl[k] > best[k] * sum_l2[k]
            if t == 0 or better:
                scale[k] = sum_xl[k] / sum_l2[k] if sum_l2[k] != F(0) else F(0)
                best[k] = scale[k] * sum_xl[k]
                inverse[k] = trial[k]
    for k in range(lanes):
        if peak_size[k] < _NO_SCALE_BELOW:
            scale[k] = F(0)
            inverse[k] = F(np.nan)


@jit
def _keep_levels(x, inverse, half, levels):
    """The levels that `_fit_scale` found, counted from 0."""
    for i in range(len(x)):
        for k in range(x.shape[1]):
            level = U(_clamped(multiply(inverse[k], x[i, k]), -half, half - 1) + half)
            levels[i, k] = level if inverse[k] == inverse[k] else U(0)


@jit
def _first_peak(values, k):
    """The value of a lane with the largest magnitude, the first of several."""
    peak_size = peak = F(0)
    for j in range(len(values)):
        if abs(values[j, k]) > peak_size:
            peak_size = abs(values[j, k])
            peak = values[j, k]
    return peak


@jit
def _requantize(x, half, unit, bits, levels):
    """Round to the stored scales; where that is zero the search's levels stay, as ggml leaves them."""
    for i in range(256):
        for k in range(x.shape[1]):
            step = unit[k] * bits[i // 16, k]
            level = U(_clamped(x[i, k] / step, -half, half - 1) + half)
            levels[i, k] = level if step != F(0) else levels[i, k]


@jit
def _q6_k(x, importance, energy, trials, f, levels, out):
    lanes = x.shape[1]
    scale, weight, bits, unit, inverse, s = f[0:16], f[16:32], f[32:48], f[48], f[49], f[50:56]
    for j in range(16):
        some = x[16 * j : 16 * j + 16]
        for i in range(16):
            for k in range(lanes):
                weight[i, k] = importance[16 * j + i, k] if len(importance) else some[i, k] * some[i, k]
        _fit_scale(some, weight, 32, trials[0], scale[j], inverse, s)
        _keep_levels(some, inverse, 32, levels[16 * j : 16 * j + 16])
    for k in range(lanes):
        peak = _first_peak(scale, k)
        empty = abs(peak) < _NO_SCALE_BELOW
        inverse_unit = F(-128) / peak
        half = _to_half(F(0) if empty else F(1) / inverse_unit)
        _store_half(half, out[k, 208:])
        unit[k] = _from_half(half)
        for j in range(16):
            bits[j, k] = F(0) if empty else F(min(_nearest(multiply(inverse_unit, scale[j, k])), 127))
            out[k, 192 + j] = U(I(bits[j, k]) & 0xFF)
        if empty:
            levels[:, k] = U(0)
    _requantize(x, 32, unit, bits, levels)
    for k in range(lanes):
        for p in range(2):
            for i in range(128 * p, 128 * p + 32):
                a, b, c, d = levels[i, k], levels[i + 32, k], levels[i + 64, k], levels[i + 96, k]
                at = i - 64 * p
                out[k, at] = U((a & 15) | ((c & 15) << 4))
                out[k, at + 32] = U((b & 15) | ((d & 15) << 4))
                out[k, 128 + i - 96 * p] = U((a >> 4) | (b >> 4 << 2) | (c >> 4 << 4) | (d >> 4 << 6))


@jit
def _descend(x, half, scale, level, s):
    """make_q3_quants: starting from the scale that maps the peak to -half, move one level at a time.

    Args:
        x: [weights, lanes] float32, finite.
        half: levels run from -half to half - 1.
        scale: [lanes], to be filled.
        level: [weights, lanes] float32, to be filled.
        s: [5, lanes] for intermediate results.

    """
    count, lanes = x.shape
    sum_xl, sum_l2, moved, peak_size, peak = s[0], s[1], s[2], s[3], s[4]
    for k in range(lanes):
        sum_xl[k] = sum_l2[k] = peak_size[k] = peak[k] = F(0)
    for i in range(count):
        for k in range(lanes):
            size = abs(x[i, k])
            peak[k] = x[i, k] if size > peak_size[k] else peak[k]
            peak_size[k] = size if size > peak_size[k] else peak_size[k]
    for i in range(count):
        for k in range(lanes):
            weight = x[i, k] * x[i, k]
            level[i, k] = F(_clamped(multiply(F(-half) / peak[k], x[i, k]), -half, half - 1))
            sum_xl[k] += multiply(multiply(weight, x[i, k]), level[i, k])
            sum_l2[k] += multiply(multiply(weight, level[i, k]), level[i, k])
    for _ in range(5):
        for k in range(lanes):
            moved[k] = F(0)
        for i in range(count):
            for k in range(lanes):
                weight, old = x[i, k] * x[i, k], level[i, k]
                weighted = weight * x[i, k]
                rest_xl = sum_xl[k] - multiply(weighted, old)
                rest_l2 = sum_l2[k] - multiply(multiply(weight, old), old)
                new = F(_clamped(x[i, k] * rest_l2 / rest_xl, -half, half - 1))
                new_xl = rest_xl + multiply(weighted, new)
                new_l2 = rest_l2 + multiply(multiply(weight, new), new)
                gains = new_xl * new_xl * sum_l2[k] > sum_xl[k] * sum_xl[k] * new_l2
                if (rest_xl > F(0)) & (new != old) & (new_l2 > F(0)) & gains:
                    level[i, k], sum_xl[k], sum_l2[k], moved[k] = new, new_xl, new_l2, F(1)
        any_moved = F(0)
        for k in range(lanes):
            any_moved = max(any_moved, moved[k])
        if any_moved == F(0):
            break
    for k in range(lanes):
        empty = peak_size[k] < _NO_SCALE_BELOW
        scale[k] = sum_xl[k] / sum_l2[k] if sum_l2[k] > F(0) and not empty else F(0)
        if empty:
            for i in range(count):
                level[i, k] = F(-half)


@jit
def _q3_k(x, importance, energy, trials, f, levels, out):
    lanes = x.shape[1]
    scale, weight, bits, weight_sum = f[0:16], f[16:32], f[32:48], f[48:64]
    unit, inverse, s = f[64], f[65], f[66:72]
    weighted = len(importance) > 0
    if weighted:
        _sum_of_squares(x, energy)
        for k in range(lanes):
            energy[k] = multiply(F(2) * energy[k], F(1 / 256))
    for j in range(16):
        some, kept = x[16 * j : 16 * j + 16], levels[16 * j : 16 * j + 16]
        if weighted:
            _weigh(some, importance[16 * j : 16 * j + 16], energy, weight, weight_sum[j])
            _fit_scale(some, weight, 4, trials[0], scale[j], inverse, s)
            _keep_levels(some, inverse, 4, kept)
        else:
            _descend(some, 4, scale[j], weight, s)
            for i in range(16):
                for k in range(lanes):
                    kept[i, k] = U(weight[i, k] + F(4))
    if weighted:
        _fit_scale(scale, weight_sum, 32, trials[1], unit, inverse, s)
    for k in range(lanes):
        peak = _first_peak(scale, k)
        inverse_unit = inverse[k] if weighted else F(-32) / peak
        empty = inverse_unit != inverse_unit if weighted else peak == F(0)
        if not weighted:
            unit[k] = F(0) if empty else F(1) / inverse_unit
        half = _to_half(unit[k])
        _store_half(half, out[k, 108:])
        unit[k] = _from_half(half)
        for j in range(16):
            level = _nearest(multiply(inverse_unit, scale[j, k]))
            if not weighted:
                level = ((level + 128) & 0xFF) - 128
            bits[j, k] = F(-32) if empty else F(min(max(level, -32), 31))
        for j in range(12):
            out[k, 96 + j] = U(0)
        for j in range(16):
            level = I(bits[j, k]) + 32
            out[k, 96 + j % 8] |= U((level & 15) << (4 * (j // 8)))
            out[k, 104 + j % 4] |= U((level >> 4) << (2 * (j // 4)))
    _requantize(x, 4, unit, bits, levels)
    for k in range(lanes):
        for i in range(32):
            high = 0
            for j in range(8):
                high |= (levels[32 * j + i, k] >> 2) << j
            out[k, i] = U(high)
            for p in range(2):
                low = 0
                for j in range(4):
                    low |= (levels[128 * p + 32 * j + i, k] & 3) << (2 * j)
                out[k, 32 + 32 * p + i] = U(low)


# ---- the simple formats: one scale for 32 weights ----


@jit
def _q8_0(x, importance, energy, trials, f, levels, out):
    lanes = x.shape[1]
    largest, inverse = f[0], f[1]
    for k in range(lanes):
        largest[k] = F(0)
    for i in range(32):
        for k in range(lanes):
            largest[k] = max(largest[k], abs(x[i, k]))
    for k in range(lanes):
        scale = largest[k] / F(127)
        inverse[k] = F(1) / scale if scale != F(0) else F(0)
        _store_half(_to_half(scale), out[k])
    for i in range(32):
        for k in range(lanes):
            scaled = multiply(x[i, k], inverse[k])
            whole = F(_truncated(scaled)) if abs(scaled) < F(1024) else scaled
            away = F(1) if scaled - whole >= F(0.5) else (F(-1) if scaled - whole <= F(-0.5) else F(0))
            levels[i, k] = U(_truncated(whole + away) & 0xFF)
    for k in range(lanes):
        for i in range(32):
            out[k, 2 + i] = levels[i, k]


@jit
def _symmetric(x, importance, energy, trials, half, f, levels, out):
    """Q4_0 and Q5_0 up to the packing: the scale and the levels."""
    lanes = x.shape[1]
    scale, inverse, weight, s = f[0], f[1], f[2:34], f[34:40]
    if len(importance) > 0:
        _weigh(x, importance, energy, weight, scale)
        _fit_scale(x, weight, half, trials, scale, inverse, s)
        _keep_levels(x, inverse, half, levels)
    else:
        for k in range(lanes):
            scale[k] = _first_peak(x, k) / F(-half)
            inverse[k] = F(1) / scale[k] if scale[k] != F(0) else F(0)
        for i in range(32):
            for k in range(lanes):
                level = _truncated(multiply(x[i, k], inverse[k]) + F(half + 0.5))
                levels[i, k] = U(min(((level + 128) & 0xFF) - 128, 2 * half - 1))
    for k in range(lanes):
        _store_half(_to_half(scale[k]), out[k])


@jit
def _store_nibbles(levels, k, out):
    for i in range(16):
        out[i] = U((levels[i, k] & 15) | ((levels[i + 16, k] & 15) << 4))


@jit
def _store_fifth_bits(levels, k, out):
    for i in range(4):
        byte = 0
        for j in range(8):
            byte |= (levels[8 * i + j, k] >> 4) << j
        out[i] = U(byte)


@jit
def _q4_0(x, importance, energy, trials, f, levels, out):
    _symmetric(x, importance, energy, trials[0], 8, f, levels, out)
    for k in range(x.shape[1]):
        _store_nibbles(levels, k, out[k, 2:])


@jit
def _q5_0(x, importance, energy, trials, f, levels, out):
    _symmetric(x, importance, energy, trials[0], 16, f, levels, out)
    for k in range(x.shape[1]):
        _store_fifth_bits(levels, k, out[k, 2:])
        _store_nibbles(levels, k, out[k, 6:])


@jit
def _with_minimum(x, importance, energy, trials, top, f, levels, out):
    """Q4_1 and Q5_1 up to the packing: the scale, the minimum and the levels."""
    lanes = x.shape[1]
    scale, minimum, inverse, origin, weight, s = f[0], f[1], f[2], f[3], f[4:36], f[36:78]
    if len(importance) > 0:
        _weigh(x, importance, energy, weight, scale)
        _fit_scale_and_minimum(x, weight, top, trials, scale, minimum, inverse, origin, s)
        for i in range(32):
            for k in range(lanes):
                levels[i, k] = U(_level(multiply(inverse[k], x[i, k] - origin[k]), top))
    else:
        for k in range(lanes):
            low = high = x[0, k]
            for i in range(32):
                low, high = min(low, x[i, k]), max(high, x[i, k])
            scale[k], minimum[k] = (high - low) / F(top), -low
            inverse[k] = F(1) / scale[k] if scale[k] != F(0) else F(0)
        for i in range(32):
            for k in range(lanes):
                level = _truncated(multiply(x[i, k] + minimum[k], inverse[k]) + F(0.5))
                levels[i, k] = U(min(level, top) & 0xFF)
    for k in range(lanes):
        _store_half(_to_half(scale[k]), out[k])
        _store_half(_to_half(-minimum[k]), out[k, 2:])


@jit
def _q4_1(x, importance, energy, trials, f, levels, out):
    _with_minimum(x, importance, energy, trials[0], 15, f, levels, out)
    for k in range(x.shape[1]):
        _store_nibbles(levels, k, out[k, 4:])


@jit
def _q5_1(x, importance, energy, trials, f, levels, out):
    _with_minimum(x, importance, energy, trials[0], 31, f, levels, out)
    for k in range(x.shape[1]):
        _store_fifth_bits(levels, k, out[k, 4:])
        _store_nibbles(levels, k, out[k, 8:])


# ---- formats ----


def _around(half: int) -> Any:
    return -(F(half) + F(0.1) * np.array([0, *range(-9, 0), *range(1, 10)], F))


def _from(top: int, first: float, step: float, count: int) -> Any:
    return F(first) + F(step) * np.arange(count, dtype=F) + F(top)


class Format(NamedTuple):
    """A GGUF tensor type.

    Attributes:
        block: weights per block.
        bytes: bytes per block.
        encode: fills a tile of blocks; None where no block has a scale.
        trials: for the search without an importance matrix, one row for each search in `encode`.
        weighted_trials: for the search with one.

    """

    block: int
    bytes: int
    encode: Callable[..., None] | None = None
    trials: Any = np.zeros((1, 1), F)
    weighted_trials: Any = np.zeros((1, 1), F)


_WITH_MINIMUM = {top: np.stack([_from(top, -0.9, 0.05, 37)]) for top in (15, 31)}
_SIXTEENS = np.stack([_around(32)])
FORMATS = {
    "Q4_K": Format(256, 144, _q4_k, np.stack([_from(15, -1.0, 0.1, 21)]), _WITH_MINIMUM[15]),
    "Q5_K": Format(256, 176, _q5_k, np.stack([_from(31, -0.5, 0.1, 16)]), _WITH_MINIMUM[31]),
    "Q6_K": Format(256, 210, _q6_k, _SIXTEENS, _SIXTEENS),
    "Q3_K": Format(256, 110, _q3_k, weighted_trials=np.stack([_around(4), _around(32)])),
    "Q8_0": Format(32, 34, _q8_0),
    "Q5_1": Format(32, 24, _q5_1, weighted_trials=_WITH_MINIMUM[31]),
    "Q4_1": Format(32, 20, _q4_1, weighted_trials=_WITH_MINIMUM[15]),
    "Q5_0": Format(32, 22, _q5_0, weighted_trials=np.stack([_around(16)])),
    "Q4_0": Format(32, 18, _q4_0, weighted_trials=np.stack([_around(8)])),
    "F16": Format(1, 2),
    "BF16": Format(1, 2),
    "F32": Format(1, 4),
}
_PLAIN = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}


@jit
def mean_squares(rows, out):
    """Sum as ggml does over a whole row, in order, which scales the importance in the formats of 32."""
    for r in range(len(rows)):
        total = F(0)
        for value in rows[r]:
            total += multiply(value, value)
        out[r] = total / F(rows.shape[1])


_encode: Any = None  # a format's, in the globals that `_tiles_of` gives it


def _encode_tiles(blocks, importance, energies, trials, out):
    """Run `_encode` over tiles of blocks on one core.

    Args:
        blocks: [blocks, weights] float32, whole rows.
        importance: [blocks of a row, weights] float32, or of no rows.
        energies: [rows] mean squares, read only with an importance matrix.
        trials: the format's.
        out: [blocks, bytes] uint8, to be filled.

    """
    count, size = blocks.shape
    lanes = min(LANES, count)
    per_row = len(importance)
    x, energy = np.empty((size, lanes), F), np.empty(lanes, F)
    some = np.empty((size if per_row else 0, lanes), F)
    f, levels = np.empty((SCRATCH, lanes), F), np.empty((size, lanes), U)
    for tile in range((count + lanes - 1) // lanes):
        start = min(tile * lanes, count - lanes)  # the last tile overlaps the one ahead of it
        for k in range(lanes):
            for i in range(size):
                x[i, k] = blocks[start + k, i]
            if per_row:
                row, column = divmod(start + k, per_row)
                energy[k] = energies[row]
                for i in range(size):
                    some[i, k] = importance[column, i]
        _encode(x, some, energy, trials, f, levels, out[start : start + lanes])


@cache
def _tiles_of(encode: Callable[..., None]) -> Any:
    """`_encode_tiles` compiled for one format.

    As an argument `encode` would be of another type in every process: Numba's cache would never find the code again,
    and keep what it stores each time.
    """
    own = FunctionType(_encode_tiles.__code__, globals() | {"_encode": encode})
    own.__qualname__ += encode.__name__  # names the file in the cache
    return jit(own)


@torch.inference_mode()
def quantize(weights: Tensor, kind: str, importance: Tensor | None = None) -> Tensor:
    """Encode each row of a matrix.

    Args:
        weights: [rows, columns] of any float type, finite, on a CPU or a GPU.
        kind: a key of `FORMATS`.
        importance: [columns] float32: what a squared error in each column costs, none negative.

    Returns:
        uint8 [rows, bytes per row] on the same device.

    Raises:
        ValueError: columns that are no multiple of the format's block.

    """
    form = FORMATS[kind]
    rows, columns = weights.shape
    if columns % form.block:
        raise ValueError(f"{kind} takes rows of a multiple of {form.block} weights, not {columns}")
    if form.encode is None:
        return weights.to(_PLAIN[kind]).contiguous().view(torch.uint8)
    if weights.is_cuda:
        from stages.shared.kquants_cuda import encode_on_gpu

        return encode_on_gpu(weights, form, importance).view(rows, -1)
    cost, trials = np.empty((0, form.block), F), form.trials
    if importance is not None:
        cost, trials = importance.float().contiguous().numpy().reshape(-1, form.block), form.weighted_trials
    out = np.empty((rows * columns // form.block, form.bytes), np.uint8)
    rows_at_once = max(1, _WEIGHTS_AT_ONCE // columns)
    encode_tiles = _tiles_of(form.encode)

    def encode(start: int) -> None:
        some = weights[start : start + rows_at_once].float().contiguous().numpy()
        first = start * columns // form.block
        energies = np.zeros(len(some), F)
        if len(cost) and form.block == 32:
            mean_squares(some, energies)
        blocks = some.reshape(-1, form.block)
        encode_tiles(blocks, cost, energies, trials, out[first : first + len(blocks)])

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # each of our own threads converts its own rows
    try:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(encode, range(0, rows, rows_at_once)):
                pass
    finally:
        torch.set_num_threads(threads)
    return torch.from_numpy(out).view(rows, -1)
