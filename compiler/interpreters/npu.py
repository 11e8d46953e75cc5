"""Runs an `npu` module in PyTorch on the host: what the passes must not change.

Every op computes in float32 (int64 for integers) and rounds once, to the element type of
its result, as docs/architecture.md states; with `exact` in float64, and floats are never rounded.
Slow and plain; for tests and tools.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from opennpu.compiler.frontend.ops import KvStore
from opennpu.compiler.interpreters import attention as _attention  # noqa: F401  registers its ops
from opennpu.compiler.interpreters import experts as _experts  # noqa: F401  as above
from opennpu.compiler.interpreters.table import OPS, UNARY, activated, element_dtype, means, wide
from opennpu.compiler.rewriting import attr, functions
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.symbols import Sym, dims_of
from torch import Tensor
from torch_mlir import ir


def run(
    module: ir.Module,
    inputs: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    symbols: Mapping[str, int] | None = None,
    kv: KvStore | None = None,
    exact: bool = False,
) -> list[Tensor]:
    """The results of `@main`; with `exact` all floats are float64, whatever the types say.

    `inputs` and `params` are keyed by the names in `npu.input` and `npu.param`. Extents
    that are a bare symbol in the type of an input give its value; `symbols` gives the
    others. KV pages are read from and written to `kv`. CompileError names what is missing
    or of the wrong shape.
    """
    return trace(module, inputs, params, symbols, kv, exact).results


def trace(
    module: ir.Module,
    inputs: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    symbols: Mapping[str, int] | None = None,
    kv: KvStore | None = None,
    exact: bool = False,
) -> "Machine":
    """As `run`; what is left after the run, with every value."""
    function = next(functions(module))
    block = function.regions[0].blocks[0]
    machine = Machine(dict(symbols or {}), params, kv, exact)
    arguments = _bind_arguments(function, inputs, machine)
    machine.results = list(machine.run_block(block, arguments))
    return machine


@dataclass
class Machine:
    """The state of a run: values by SSA name, extents of symbols, and the KV pages."""

    symbols: dict[str, int]
    params: Mapping[str, Tensor]
    kv: KvStore | None
    exact: bool = False
    layer: int = 0  # of the repeat that is running
    values: dict[ir.Value, Tensor] = field(default_factory=dict)
    results: list[Tensor] = field(default_factory=list)

    def run_block(self, block: ir.Block, arguments: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Runs the ops of the block; the operands of its terminator."""
        self.values.update(zip(block.arguments, arguments, strict=True))
        for op in block.operations:
            op = op.operation
            operands = tuple(self.values[operand] for operand in op.operands)
            if op.name in ("func.return", "npu.yield"):
                return operands
            results = self.run_op(op, operands)
            self.values.update(zip(op.results, results, strict=True))
        raise AssertionError("a block without a terminator")

    def run_op(self, op: ir.Operation, operands: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if op.name not in OPS:
            raise CompileError(Problem(f"the interpreter has no op {op.name}", str(op.location)))
        results = OPS[op.name](self, op, *operands)
        results = () if results is None else results if isinstance(results, tuple) else (results,)
        return tuple(self.round(r, value) for r, value in zip(results, op.results, strict=True))

    def round(self, tensor: Tensor, value: ir.Value) -> Tensor:
        """The tensor in the value's element type; its shape must be the value's."""
        expected = self.shape(value)
        assert tuple(tensor.shape) == expected, f"{value.owner}: got {tuple(tensor.shape)}, not {expected}"
        return tensor.to(self.dtype(value))

    def dtype(self, value: ir.Value) -> torch.dtype:
        dtype = element_dtype(value)
        return torch.float64 if self.exact and dtype.is_floating_point else dtype

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        return tuple(Sym.of(d).evaluate(self.symbols) for d in dims_of(value.type))

    def pages(self, op: ir.Operation) -> tuple[Tensor, Tensor]:
        """Keys and values of the op's layer, [slots, kv_heads, dim]."""
        if self.kv is None:
            raise CompileError(Problem(f"{op.name} needs KV pages", str(op.location), "pass `kv` to run"))
        sizes = (attr(op, name) for name in ("kv_heads", "head_dim", "v_head_dim"))
        return self.kv.layer(self.layer + attr(op, "layer"), *sizes, self.dtype(op.operands[0]))


def _bind_arguments(function: ir.Operation, inputs, machine: Machine) -> list[Tensor]:
    arguments = []
    for value, attrs in zip(function.regions[0].blocks[0].arguments, function.opview.arg_attrs, strict=True):
        kind, table = ("npu.input", inputs) if "npu.input" in attrs else ("npu.param", machine.params)
        name = attrs[kind].value
        if name not in table:
            raise CompileError(f"{kind.removeprefix('npu.')} '{name}' is missing")
        _bind_symbols(machine.symbols, value, table[name])
        if machine.shape(value) != tuple(table[name].shape):
            raise CompileError(f"'{name}' has shape {list(table[name].shape)}, expected {value.type}")
        arguments.append(table[name].to(machine.dtype(value)))
    return arguments


def _bind_symbols(symbols: dict[str, int], value: ir.Value, tensor: Tensor) -> None:
    for extent, size in zip(dims_of(value.type), tensor.shape, strict=True):
        if isinstance(extent, Sym) and str(extent) in extent.names:
            symbols.setdefault(str(extent), size)


# ---- tables of element functions; operands are float32, or int64 where all are integers


def _divide(a: Tensor, b: Tensor) -> Tensor:
    if a.is_floating_point():
        return a / b
    return torch.where(b == 0, 0, torch.div(a, torch.where(b == 0, 1, b), rounding_mode="trunc"))


def _modulo(a: Tensor, b: Tensor) -> Tensor:
    if a.is_floating_point():
        return torch.fmod(a, b)
    return torch.where(b == 0, 0, torch.fmod(a, torch.where(b == 0, 1, b)))


BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": _divide,
    "max": torch.maximum,
    "min": torch.minimum,
    "pow": torch.pow,
    "mod": _modulo,
    "and": torch.bitwise_and,
    "or": torch.bitwise_or,
    "xor": torch.bitwise_xor,
    "eq": torch.eq,
    "ne": torch.ne,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
}

REDUCE: dict[str, Callable[[Tensor, int, bool], Tensor]] = {
    "sum": torch.sum,
    "max": torch.amax,
    "min": torch.amin,
    "argmax": torch.argmax,
    "mean": torch.mean,
}

NOTHING = {"max": (-(1 << 63), -torch.inf), "min": ((1 << 63) - 1, torch.inf)}
"""Of no elements, as on the chip: of integers, of floats."""


# ---- ops


@means("npu.constant")
def _constant(machine, op):
    result = op.results[0]
    return torch.full(machine.shape(result), attr(op, "value"), dtype=machine.dtype(result))


@means("npu.extent")
def _extent(machine, op):
    return torch.tensor(Sym.of(attr(op, "value")).evaluate(machine.symbols))


@means("npu.iota")
def _iota(machine, op):
    shape, dim = machine.shape(op.results[0]), attr(op, "dim")
    line = attr(op, "start") + attr(op, "step") * torch.arange(shape[dim])
    return line.view([-1 if i == dim else 1 for i in range(len(shape))]).expand(shape)


@means("npu.unary")
def _unary(machine, op, x):
    return UNARY[attr(op, "op")](wide(x))


@means("npu.binary")
def _binary(machine, op, a, b):
    return BINARY[attr(op, "op")](wide(a), wide(b))


@means("npu.select")
def _select(machine, op, condition, a, b):
    return torch.where(condition, a, b)


@means("npu.cast")
def _cast(machine, op, x):
    return x


@means("npu.reduce")
def _reduce(machine, op, x):
    name, dim, x = attr(op, "op"), attr(op, "dim"), wide(x)
    if x.shape[dim] == 0 and name in NOTHING:
        x = x.new_full((*x.shape[:dim], 1, *x.shape[dim + 1 :]), NOTHING[name][x.is_floating_point()])
    return REDUCE[name](x, dim, bool(attr(op, "keepdim")))


@means("npu.cumsum")
def _cumsum(machine, op, x):
    return wide(x).cumsum(-1)


@means("npu.softmax")
def _softmax(machine, op, x):
    return wide(x).softmax(-1)


@means("npu.rms_norm")
def _rms_norm(machine, op, x, w):
    return _normalise(wide(x), wide(w), attr(op, "eps"))


@means("npu.add_rms_norm")
def _add_rms_norm(machine, op, x, residual, w):
    total = wide(x) + wide(residual)
    return _normalise(total, wide(w), attr(op, "eps")), total


def _normalise(x: Tensor, w: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * w


@means("npu.layer_norm")
def _layer_norm(machine, op, x, w, b):
    return F.layer_norm(wide(x), x.shape[-1:], wide(w), wide(b), attr(op, "eps"))


@means("npu.matmul")
def _matmul(machine, op, x, w, *extra):
    y = wide(x) @ (wide(w).mT if attr(op, "transpose_w") else wide(w))
    operands = iter(extra)
    for step in attr(op, "epilogue"):
        y = y + wide(next(operands)) if step in ("bias", "residual") else activated(step, y)
    return y


@means("npu.silu_and_mul")
def _silu_and_mul(machine, op, x):
    gate, up = wide(x).chunk(2, -1)
    return F.silu(gate) * up


@means("npu.gelu_and_mul")
def _gelu_and_mul(machine, op, x):
    gate, up = wide(x).chunk(2, -1)
    return F.gelu(gate, approximate=attr(op, "approximate")) * up


# ---- movement


@means("npu.reshape")
def _reshape(machine, op, x):
    return x.reshape(machine.shape(op.results[0]))


@means("npu.transpose")
def _transpose(machine, op, x):
    return x.permute(attr(op, "perm"))


@means("npu.broadcast")
def _broadcast(machine, op, x):
    return x.expand(machine.shape(op.results[0]))


@means("npu.slice")
def _slice(machine, op, x):
    dim, offset, stride = (attr(op, name) for name in ("dim", "offset", "stride"))
    count = machine.shape(op.results[0])[dim]
    return x.index_select(dim, offset + stride * torch.arange(count))


@means("npu.concat")
def _concat(machine, op, *xs):
    return torch.cat(xs, attr(op, "dim"))


@means("npu.gather")
def _gather(machine, op, table, index):
    return table[index.long()]


@means("npu.put_rows")
def _put_rows(machine, op, x, rows, values):
    y = x.clone()
    y.flatten(0, attr(op, "leading") - 1)[rows.long()] = values
    return y


@means("npu.take")
def _take(machine, op, x, index):
    return x.gather(-1, index.long())


# ---- debugging


@means("npu.capture")
def _capture(machine, op, x):
    """Shows x to those who look; the program computes the same without it."""


# ---- regions


@means("npu.fused")
def _fused(machine, op, *inputs):
    return machine.run_block(op.regions[0].blocks[0], inputs)


@means("npu.repeat")
def _repeat(machine, op, *carried):
    block = op.regions[0].blocks[0]
    names = attr(op, "params")
    types = [machine.dtype(value) for value in list(block.arguments)[1 + len(carried) :]]
    outer = machine.layer
    for layer in range(attr(op, "count")):
        machine.layer = outer + layer
        stacked = [machine.params[each[layer]].to(t) for each, t in zip(names, types, strict=True)]
        carried = machine.run_block(block, (torch.tensor(layer), *carried, *stacked))
    machine.layer = outer
    return carried
