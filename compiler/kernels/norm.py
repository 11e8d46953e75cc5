"""Row-wise ops written in terms of the vector unit: softmax, norms, mean, gated activations.

All compute in f32 and round once to the result's dtype: the vector unit converts what it
reads, so a bf16 input needs no cast of its own.
"""

from opennpu.compiler.kernels.vector_program import Node, VectorProgram


def mean(p: VectorProgram, x: Node, dtype: str) -> Node:
    """Sum over the last dimension, divided by its extent."""
    return p.binary("div", p.reduce("sum", x, "f32"), p.extent(x.shape[-1]), dtype)


def softmax(p: VectorProgram, x: Node, dtype: str) -> Node:
    shifted = p.binary("sub", x, p.reduce("max", x, "f32"), "f32")
    e = p.unary("exp", shifted)
    return p.binary("div", e, p.reduce("sum", e, "f32"), dtype)


def rms_norm(p: VectorProgram, x: Node, w: Node, eps: float, dtype: str) -> Node:
    """x · rsqrt(mean(x²) + eps) · w, rounded after the product with w, as SGLang's RMSNorm does."""
    power = p.binary("div", p.reduce("sumsq", x, "f32"), p.extent(x.shape[-1]))
    normed = p.binary("mul", x, _inverse_root(p, power, eps), "f32")
    return p.binary("mul", normed, w, dtype)


def add_rms_norm(p: VectorProgram, x: Node, residual: Node, w: Node, eps: float, dtype: str):
    """(rms_norm(x + residual), x + residual); the norm sees the sum unrounded, as SGLang's does."""
    total = p.binary("add", x, residual, "f32")
    return rms_norm(p, total, w, eps, dtype), p.cast(total, dtype)


def layer_norm(p: VectorProgram, x: Node, w: Node, b: Node, eps: float, dtype: str) -> Node:
    """(x - mean) · rsqrt(variance + eps) · w + b; the variance in two passes."""
    centred = p.binary("sub", x, mean(p, x, "f32"), "f32")
    variance = p.binary("div", p.reduce("sumsq", centred, "f32"), p.extent(x.shape[-1]))
    normed = p.binary("mul", centred, _inverse_root(p, variance, eps))
    return p.binary("add", p.binary("mul", normed, w), b, dtype)


def gated(p: VectorProgram, activation: str, gate: Node, up: Node, dtype: str) -> Node:
    """activation(gate) · up, rounded once."""
    return p.binary("mul", p.unary(activation, gate, "f32"), up, dtype)


def _inverse_root(p: VectorProgram, square: Node, eps: float) -> Node:
    return p.unary("rsqrt", p.binary("add", square, p.constant(eps, "f32")))
