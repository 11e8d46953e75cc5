"""The operators that run on the chip, by family.

Named as in the compiler's conversion table. Their in-place and `out=` forms follow from PyTorch's
schemas; what PyTorch itself builds of others (`softmax`, `matmul`, `stack`, `square`) has no line.
"""

UNARY = """
abs neg sign relu exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal tan tanh erf sigmoid silu gelu
sin cos floor ceil round trunc leaky_relu hardtanh isnan isinf logical_not bitwise_not
"""

BINARY = """
add.Tensor sub.Tensor mul.Tensor div.Tensor div.Tensor_mode floor_divide remainder.Tensor fmod.Tensor
maximum minimum pow.Tensor_Tensor pow.Tensor_Scalar pow.Scalar logical_and logical_or logical_xor
bitwise_and.Tensor bitwise_or.Tensor bitwise_xor.Tensor bitwise_left_shift.Tensor bitwise_right_shift.Tensor
eq.Tensor ne.Tensor lt.Tensor le.Tensor gt.Tensor ge.Tensor
"""

SELECTION = """
where.self masked_fill.Tensor clamp.Tensor clamp_min.Tensor clamp_max.Tensor
"""

SCALAR_FORMS = {
    "eq.Scalar": "eq.Tensor",
    "ne.Scalar": "ne.Tensor",
    "lt.Scalar": "lt.Tensor",
    "le.Scalar": "le.Tensor",
    "gt.Scalar": "gt.Tensor",
    "ge.Scalar": "ge.Tensor",
    "masked_fill.Scalar": "masked_fill.Tensor",
    "clamp": "clamp.Tensor",
    "clamp_min": "clamp_min.Tensor",
    "clamp_max": "clamp_max.Tensor",
}
"""Operators that take numbers → those that take tensors instead, so that a program does for all numbers."""

REDUCTIONS = """
sum sum.dim_IntList mean mean.dim amax amin max min max.dim min.dim argmax argmin aminmax any
any.dim any.dims all all.dim var.correction std.correction var_mean.correction std_mean.correction
count_nonzero.dim_IntList linalg_vector_norm _softmax _log_softmax native_layer_norm
"""

PRODUCTS = "mm bmm mv dot addmm addmv baddbmm"

MOVEMENT = """
embedding index_select gather index.Tensor flip tril triu constant_pad_nd cumsum searchsorted.Tensor
scatter_add
"""

JOINED = "cat"
"""Where operands lie one behind the other in the result: copies, else as any other."""

UPDATES = "index_put index_copy scatter.src scatter.value"
"""They replace elements of their first argument: in place they write nothing else."""

COMPOSITE = "linear conv2d layer_norm rms_norm scaled_dot_product_attention"
"""What PyTorch would take apart; whole where no gradient is asked for."""


HOST = "sort topk nonzero masked_select _unique2"
"""Whose place is the host, so that strict mode allows them: where the size of the result depends on data,
which no program's does, and what orders long rows, which takes a program as many passes."""


def aten_operators() -> list[tuple[str, str, str]]:
    """(operator, the operator of the conversion table that computes it, kind) of each."""
    kinds = {
        "pointwise": UNARY + BINARY + SELECTION,
        "product": PRODUCTS,
        "whole": f"{REDUCTIONS} {MOVEMENT}",
        "update": UPDATES,
        "composite": COMPOSITE,
        "joined": JOINED,
    }
    lines = [(name, name, kind) for kind, names in kinds.items() for name in names.split()]
    lines += [(name, target, "pointwise") for name, target in SCALAR_FORMS.items()]
    return [(f"aten.{name}", f"aten.{target}", kind) for name, target, kind in lines]


def own_operators() -> list[tuple[str, str, str]]:
    """The same for the `opennpu::` operators that are defined by now."""
    own = sorted(name for name in _defined() if name.startswith("opennpu."))
    return [(name, name, "whole") for name in own]


def register() -> None:
    """Tells PyTorch's dispatcher; once, at import."""
    import opennpu.compiler.frontend.ops  # noqa: F401  defines the operators `opennpu::`
    from opennpu.runtime import _torch

    defined = _defined()
    lines = aten_operators() + own_operators()
    _torch.allow_on_host([f"aten::{name}" for name in HOST.split()])
    _torch.register_operators([line for line in lines if defined.issuperset(line[:2])])


def _defined() -> set[str]:
    """The operators that this PyTorch has; it may be newer or older than the lists."""
    import torch

    return {name.replace("::", ".") for name in torch._C._dispatch_get_all_op_names()}
