"""The kernels of `folding.py`: a program has one term, and reads its outputs some at a time.

In the comments p and x are rows (C,), s = covariance + its transpose, and q = p s.
"""

from __future__ import annotations

from tutelage.spaces.kernels.language import jit, tl


@jit
def matrix(data, o, c, rows, columns, down, across, ACC: tl.constexpr):
    """Load rows o and columns c of a matrix with these strides, zeros beyond its sides."""
    mask = (o < rows)[:, None] & (c < columns)[None, :]
    return tl.load(data + o[:, None] * down + c[None, :] * across, mask=mask, other=0).to(ACC)


@jit
def vector(data, c, count, ACC: tl.constexpr):
    """Load entries c of a vector, zeros beyond its end."""
    return tl.load(data + c, mask=c < count, other=0).to(ACC)


@jit
def symmetric(data, c, channels, ACC: tl.constexpr):
    """Load the sum of a square matrix and its transpose."""
    s = matrix(data, c, c, channels, channels, channels, 1, ACC)
    return s + matrix(data, c, c, channels, channels, 1, channels, ACC)


@jit
def times(a, b, ACC: tl.constexpr):
    """Multiply matrices."""
    return tl.dot(a, b, input_precision="ieee", out_dtype=ACC)


@jit
def write(data, value, o, c, rows, columns, down):
    """Store rows o and columns c of a matrix."""
    mask = (o < rows)[:, None] & (c < columns)[None, :]
    tl.store(data + o[:, None] * down + c[None, :], value, mask=mask)


@jit
def fold(
    P, weights, mean, covariance, kernel, bias, outputs, channels,
    EPSILON: tl.constexpr, ACC: tl.constexpr, ROWS: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Write K (outputs, terms * channels) and every term's share of the bias."""
    term, terms, c = tl.program_id(0), tl.num_programs(0), tl.arange(0, C)
    P += term * outputs * channels
    cov = covariance + term * channels * channels
    cov = matrix(cov, c, c, channels, channels, channels, 1, ACC)
    w = tl.load(weights + term).to(ACC)
    mu = vector(mean + term * channels, c, channels, ACC)
    for first in range(0, outputs, ROWS):
        o = first + tl.arange(0, ROWS)
        p = matrix(P, o, c, outputs, channels, channels, 1, ACC)
        variance = tl.sum(times(p, cov, ACC) * p, axis=1)
        r = tl.rsqrt(tl.where(variance < 0, 0, variance) + EPSILON)
        k = (w * r)[:, None] * p
        tl.store(bias + term * outputs + o, -tl.sum(k * mu[None, :], axis=1), mask=o < outputs)
        write(kernel + term * channels, k, o, c, outputs, channels, terms * channels)


@jit
def fold_gradient(
    gK, gb, P, weights, mean, covariance, dP, dw, dmean, dcov, outputs, channels,
    EPSILON: tl.constexpr, ACC: tl.constexpr, ROWS: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Write the gradients of a term's arguments.

    With G = gK - gb mean^T, h = sum_c G P, V = p cov p^T, r = (V + eps)^(-1/2) and
    D = -r^3 w h / 2 (0 where V is clamped):

        dP = w r G + D q    dw = <r, h>    dcov = P^T diag(D) P    dmean = -sum_o gb w r p
    """
    term, terms, c = tl.program_id(0), tl.num_programs(0), tl.arange(0, C)
    square, size = channels * channels, outputs * channels
    s = symmetric(covariance + term * square, c, channels, ACC)
    w = tl.load(weights + term).to(ACC)
    mu = vector(mean + term * channels, c, channels, ACC)
    of_w, of_mean, of_cov = tl.full((ROWS,), 0, ACC), tl.full((C,), 0, ACC), tl.full((C, C), 0, ACC)
    for first in range(0, outputs, ROWS):
        o = first + tl.arange(0, ROWS)
        p = matrix(P + term * size, o, c, outputs, channels, channels, 1, ACC)
        q = times(p, s, ACC)
        variance = tl.sum(q * p, axis=1) / 2
        kept = tl.where(variance < 0, 0, 1).to(ACC)
        r = tl.rsqrt(kept * variance + EPSILON)
        b = vector(gb, o, outputs, ACC)
        G = matrix(gK + term * channels, o, c, outputs, channels, terms * channels, 1, ACC)
        G -= b[:, None] * mu[None, :]
        h = tl.sum(G * p, axis=1)
        D = -kept * r * r * r * w * h / 2
        of_w += r * h
        of_mean -= tl.sum((b * w * r)[:, None] * p, axis=0)
        of_cov += times(tl.trans(p), D[:, None] * p, ACC)
        found = (w * r)[:, None] * G + D[:, None] * q
        write(dP + term * size, found, o, c, outputs, channels, channels)
    tl.store(dw + term, tl.sum(of_w, axis=0))
    tl.store(dmean + term * channels + c, of_mean, mask=c < channels)
    write(dcov + term * square, of_cov, c, c, channels, channels, channels)


@jit
def fold_second(
    X, y, u, Z, gK, gb, P, weights, mean, covariance, dgK, dgb, dP, dw, dmean, dcov,
    outputs, channels,
    EPSILON: tl.constexpr, ACC: tl.constexpr, ROWS: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Write the gradients of `fold_gradient` for cotangents X, y, u, Z on dP, dw, dmean, dcov.

    L = <X, w r G + D q> + y <r, h> + <Z, P^T diag(D) P> - sum_o gb w r (p u), differentiated by
    the rule of products with dL/dD = e, dL/dh = lh, dL/dr = lr, dL/dV = lv and dL/dG = lG.
    """
    term, terms, c = tl.program_id(0), tl.num_programs(0), tl.arange(0, C)
    square, size, place = channels * channels, outputs * channels, term * channels
    s = symmetric(covariance + term * square, c, channels, ACC)
    z = symmetric(Z + term * square, c, channels, ACC)
    w, v = tl.load(weights + term).to(ACC), tl.load(y + term).to(ACC)
    mu, along = vector(mean + place, c, channels, ACC), vector(u + place, c, channels, ACC)
    of_w, of_mean, of_cov = tl.full((ROWS,), 0, ACC), tl.full((C,), 0, ACC), tl.full((C, C), 0, ACC)
    for first in range(0, outputs, ROWS):
        o = first + tl.arange(0, ROWS)
        p = matrix(P + term * size, o, c, outputs, channels, channels, 1, ACC)
        x = matrix(X + term * size, o, c, outputs, channels, channels, 1, ACC)
        q, pz = times(p, s, ACC), times(p, z, ACC)
        variance = tl.sum(q * p, axis=1) / 2
        kept = tl.where(variance < 0, 0, 1).to(ACC)
        r = tl.rsqrt(kept * variance + EPSILON)
        b = vector(gb, o, outputs, ACC)
        G = matrix(gK + place, o, c, outputs, channels, terms * channels, 1, ACC)
        G -= b[:, None] * mu[None, :]
        h, cube = tl.sum(G * p, axis=1), -kept * r * r * r / 2
        D, pu, xg = cube * w * h, tl.sum(p * along[None, :], axis=1), tl.sum(x * G, axis=1)
        e = tl.sum(x * q + p * pz / 2, axis=1)
        lh = v * r + e * cube * w
        lr = w * xg + v * h - b * w * pu - e * kept * r * r * w * h * 1.5
        lv = cube * lr
        lG = (w * r)[:, None] * x + lh[:, None] * p
        write(dgK + place, lG, o, c, outputs, channels, terms * channels)
        found = -tl.sum(lG * mu[None, :], axis=1) - w * r * pu
        tl.store(dgb + term * outputs + o, found, mask=o < outputs)
        of_w += r * (xg - b * pu) + e * cube * h
        of_mean -= tl.sum(b[:, None] * lG, axis=0)
        of_cov += times(tl.trans(p), D[:, None] * x + (lv / 2)[:, None] * p, ACC)
        found = lh[:, None] * G + times(D[:, None] * x, s, ACC) + D[:, None] * pz
        found += lv[:, None] * q - (b * w * r)[:, None] * along[None, :]
        write(dP + term * size, found, o, c, outputs, channels, channels)
    tl.store(dw + term, tl.sum(of_w, axis=0))
    tl.store(dmean + place + c, of_mean, mask=c < channels)
    write(dcov + term * square, of_cov + tl.trans(of_cov), c, c, channels, channels, channels)
