"""Readable dumps of the dialects: `pretty(op)`.

    %3 = npu.matmul %1, %model.norm.weight {transpose_w} : bf16[T, 576]  // model.layers.0.mlp

Only for reading: MLIR's own syntax (`str(op)`) is what tools parse. Operand and result
segments and false attributes are left out; a tensor prints as dtype[extents], an argument
by its name in the model.
"""

import re
from collections.abc import Iterable

from opennpu.dialects.symbols import dims_of
from torch_mlir import ir

HIDDEN = {"operandSegmentSizes", "resultSegmentSizes", "sym_name", "function_type", "arg_attrs", "res_attrs"}
NOT_IN_NAMES = re.compile(r"[^\w.$-]")


def pretty(op: ir.Operation) -> str:
    """The op and everything inside it, one op a line, as text that ends in a newline."""
    printer = _Printer()
    printer.print_op(op.operation, 0)
    return "\n".join(printer.lines) + "\n"


class _Printer:
    def __init__(self):
        self.lines: list[str] = []
        self.names: dict[ir.Value, str] = {}
        self.taken: set[str] = set()

    def print_op(self, op: ir.Operation, depth: int) -> None:
        if op.name == "func.func":
            self.names, self.taken = {}, set()
            self._name_arguments(op)
        text = self._head(op)
        if not any(len(region.blocks) for region in op.regions):
            self.lines.append("  " * depth + text + _comment(op.location))
            return
        for i, region in enumerate(op.regions):
            opening = "} {" if i else text + " {"
            self.lines.append("  " * depth + opening + ("" if i else _comment(op.location)))
            for block in region.blocks:
                self._print_block(op, block, depth)
        self.lines.append("  " * depth + "}")

    def _print_block(self, op: ir.Operation, block: ir.Block, depth: int) -> None:
        if op.name != "func.func" and len(block.arguments):
            arguments = ", ".join(f"{self._name(a, 'arg')} : {show_type(a.type)}" for a in block.arguments)
            self.lines.append("  " * depth + f"^({arguments}):")
        for inner in block.operations:
            self.print_op(inner.operation, depth + 1)

    def _head(self, op: ir.Operation) -> str:
        if op.name == "func.func":
            return self._function_head(op)
        results = ", ".join(self._name(r) for r in op.results)
        operands = ", ".join(self._name(v) for v in op.operands)
        attributes = _show_attributes(op)
        types = ", ".join(show_type(r.type) for r in op.results)
        parts = [
            f"{results} =" if results else "",
            op.name,
            operands,
            attributes,
            f": {types}" if types else "",
        ]
        return " ".join(part for part in parts if part)

    def _function_head(self, op: ir.Operation) -> str:
        arguments = [f"{self._name(a)}: {show_type(a.type)}" for a in op.regions[0].blocks[0].arguments]
        name = ir.StringAttr(op.attributes["sym_name"]).value
        signature = ir.FunctionType(ir.TypeAttr(op.attributes["function_type"]).value)
        results = ", ".join(show_type(t) for t in signature.results)
        return f"func @{name}({', '.join(arguments)})" + (f" -> {results}" if results else "")

    def _name_arguments(self, op: ir.Operation) -> None:
        arguments = op.regions[0].blocks[0].arguments if len(op.regions[0].blocks) else []
        described = op.attributes["arg_attrs"] if "arg_attrs" in op.attributes else [{}] * len(arguments)
        for argument, attributes in zip(arguments, described, strict=True):
            key = next((k for k in ("npu.input", "npu.param") if k in attributes), None)
            self._name(argument, attributes[key].value if key else "arg")

    def _name(self, value: ir.Value, hint: str = "") -> str:
        if value not in self.names:
            base = NOT_IN_NAMES.sub("_", hint)
            name, number = base or str(len(self.names)), 0
            while name in self.taken:
                name, number = f"{base}{number}", number + 1
            self.taken.add(name)
            self.names[value] = "%" + name
        return self.names[value]


def _comment(location: ir.Location) -> str:
    """The module path of the op, where it has one."""
    paths = list(dict.fromkeys(_paths(location)))
    return "  // " + ", ".join(paths) if paths else ""


def _paths(location: ir.Location) -> Iterable[str]:
    if isinstance(location, ir.NameLoc):
        yield location.name_str
    elif isinstance(location, ir.FusedLoc):
        for child in location.locations:
            yield from _paths(child)


def show_type(type_: ir.Type) -> str:
    """`bf16[T, 576]`; other types as in MLIR."""
    if not isinstance(type_, ir.RankedTensorType):
        return str(type_)
    try:
        extents = ", ".join(str(d) for d in dims_of(type_))
    except ValueError:
        return str(type_)
    return f"{type_.element_type}[{extents}]"


def _show_attributes(op: ir.Operation) -> str:
    shown, affine = [], op.name.startswith("npu_isa.")
    for name in op.attributes:
        attribute = op.attributes[name]
        if name in HIDDEN or _is(attribute, False):
            continue
        shown.append(name if _is(attribute, True) else f"{name} = {show_attribute(attribute, affine)}")
    return "{" + ", ".join(shown) + "}" if shown else ""


def _is(attribute: ir.Attribute, value: bool) -> bool:
    return isinstance(attribute, ir.BoolAttr) and attribute.value is value


def show_attribute(attribute: ir.Attribute, affine: bool = False) -> str:
    """Numbers and words without types and quotes; `affine`: integer arrays are affine expressions."""
    match attribute:
        case ir.ArrayAttr():
            return "[" + ", ".join(show_attribute(a, affine) for a in attribute) + "]"
        case ir.DenseI64ArrayAttr():
            return _show_affine(list(attribute)) if affine else str(list(attribute))
        case ir.DictAttr():
            return "{" + ", ".join(f"{e.name} = {show_attribute(e.attr, affine)}" for e in attribute) + "}"
        case ir.FloatAttr():
            return f"{attribute.value:.9g}"
        case ir.BoolAttr() | ir.IntegerAttr() | ir.StringAttr():
            return str(attribute.value)
    return str(attribute)


def _show_affine(terms: list[int]) -> str:
    """[imm, reg, coef, …] of an instruction's value as `imm + r1*coef`."""
    products = [
        f"r{reg}" if coef == 1 else f"r{reg}*{coef}"
        for reg, coef in zip(terms[1::2], terms[2::2], strict=True)
    ]
    constant = [str(terms[0])] if terms[0] or not products else []
    return " + ".join(constant + products)
