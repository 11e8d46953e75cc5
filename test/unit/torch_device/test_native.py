"""The list of native operators against the compiler's table and PyTorch's schemas."""

import opennpu.compiler.conversions  # noqa: F401  fills the table
import pytest
import torch
from opennpu.compiler.conversions.table import CONVERSIONS
from opennpu.runtime.torch_device import native

ATEN = native.aten_operators()


def schema(name: str) -> torch._C.FunctionSchema:
    base, _, overload = name.replace(".", "::", 1).partition(".")
    return torch._C._get_schema(base, overload)


@pytest.mark.parametrize("name", sorted({target for _, target, _ in ATEN}))
def test_has_a_conversion(name):
    assert name in CONVERSIONS


def test_no_operator_is_listed_twice():
    names = [name for name, _, _ in ATEN]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name, kind", [(name, kind) for name, _, kind in ATEN])
def test_kind_is_what_pytorch_says(name, kind):
    base, _, overload = name.removeprefix("aten.").partition(".")
    operator = getattr(getattr(torch.ops.aten, base), overload or "default")
    composite = operator.has_kernel_for_dispatch_key(torch.DispatchKey.CompositeImplicitAutograd)
    assert composite == (kind == "composite")
    if torch.Tag.pointwise in operator.tags:
        assert kind == "pointwise"
    if torch.Tag.reduction in operator.tags:
        assert kind == "whole"


@pytest.mark.parametrize("name, target", native.SCALAR_FORMS.items())
def test_scalar_forms_differ_in_numbers_only(name, target):
    pairs = zip(schema(f"aten.{name}").arguments, schema(f"aten.{target}").arguments, strict=True)
    for one, other in pairs:
        assert one.name == other.name
        assert str(one.type).replace("number", "Tensor") == str(other.type).replace("number", "Tensor")


@pytest.mark.parametrize(
    "name",
    [
        "aten::add_.Tensor",
        "aten::add.out",
        "aten::eq.Scalar_out",
        "aten::clamp_",
        "aten::sum.IntList_out",
        "aten::max.dim_max",
        "aten::any.all_out",
        "aten::masked_fill_.Scalar",
        "aten::index.Tensor_out",
    ],
)
def test_forms_are_registered(name):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "PrivateUse1")


def test_own_operators():
    names = {name for name, _, _ in native.own_operators()}
    assert {"opennpu.matmul", "opennpu.flash_attention", "opennpu.radix_attention_decode"} <= names
    for name in names:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(name.replace(".", "::"), "PrivateUse1")
