"""npu-fuse-epilogue: what follows a matmul element by element moves into its accumulator."""

from dataclasses import dataclass, field

from opennpu.compiler.passes.registry import register_pass
from opennpu.compiler.rewriting import (
    attr,
    before,
    feeds_only,
    only_user,
    ops_named,
    replace,
    slice_of,
    users,
)
from opennpu.dialects.npu import build
from opennpu.dialects.npu.dialect import dtype
from opennpu.dialects.npu.products import ACTIVATIONS, EXTRA_SLOTS, GATES
from opennpu.dialects.symbols import dims_of
from torch_mlir import ir

GATE_OF = {activation: gate for gate, activation in GATES.items()}


@register_pass("npu-fuse-epilogue", "bias, activation, gating and residual after a matmul → its epilogue")
def run(module: ir.Module) -> None:
    """Absorbs the chain of ops after each matmul, as long as nothing else needs what is between.

    The epilogue computes in f32 and rounds once; the chain rounded after every op.
    """
    for matmul in ops_named(module, "npu.matmul"):
        chain = Chain.of(matmul)
        while chain.grow():
            pass
        if len(chain.ops) > 1:
            _build(chain)


@dataclass
class Chain:
    """A matmul and the ops absorbed so far; the last one's result is the epilogue's."""

    ops: list[ir.Operation]
    steps: list[str]
    extra: list[ir.Value] = field(default_factory=list)

    @staticmethod
    def of(matmul: ir.Operation) -> "Chain":
        return Chain([matmul], attr(matmul, "epilogue"), list(matmul.operands)[2:])

    @property
    def result(self) -> ir.Value:
        return self.ops[-1].results[0]

    def grow(self) -> bool:
        """Absorbs what follows; False when nothing fits."""
        user = only_user(self.result)
        if user is None:
            return self._absorb_sliced_gate()
        absorb = {
            "npu.unary": self._absorb_activation,
            "npu.binary": self._absorb_add,
            "npu.silu_and_mul": self._absorb_gate,
            "npu.gelu_and_mul": self._absorb_gate,
        }.get(user.name)
        return absorb is not None and absorb(user)

    def _absorb_activation(self, op: ir.Operation) -> bool:
        return attr(op, "op") in ACTIVATIONS and self._take(attr(op, "op"), op)

    def _absorb_add(self, op: ir.Operation) -> bool:
        if attr(op, "op") != "add" or len(self.extra) == EXTRA_SLOTS:
            return False
        a, b = op.operands
        other = b if a == self.result else a
        if other.type == self.result.type:
            return self._take("residual", op, other)
        columns = dims_of(self.result.type)[-1:]
        return dims_of(other.type) == columns and self._take("bias", op, other)

    def _absorb_gate(self, op: ir.Operation) -> bool:
        tanh = op.name == "npu.gelu_and_mul" and attr(op, "approximate") == "tanh"
        activation = "silu" if op.name == "npu.silu_and_mul" else "gelu_tanh" if tanh else "gelu"
        return self._allows_gate() and self._take(GATE_OF[activation], op)

    def _absorb_sliced_gate(self) -> bool:
        """act(x[…, :F]) · x[…, F:] written out."""
        halves = users(self.result)
        columns = dims_of(self.result.type)[-1]
        if len(halves) != 2 or not isinstance(columns, int) or columns % 2 or not self._allows_gate():
            return False
        dim, half = len(dims_of(self.result.type)) - 1, columns // 2
        for gate, up in (halves, reversed(halves)):
            if slice_of(gate, self.result, dim, 0, half) and slice_of(up, self.result, dim, half, half):
                activation, mul = only_user(gate.results[0]), only_user(up.results[0])
                return (
                    _is(activation, "npu.unary", GATE_OF)
                    and _is(mul, "npu.binary", {"mul"})
                    and feeds_only(activation.results[0], mul)
                    and self._take(GATE_OF[attr(activation, "op")], gate, up, activation, mul)
                )
        return False

    def _allows_gate(self) -> bool:
        """A gate pairs rows of one two-dimensional weight; only a bias may come before it."""
        matmul = self.ops[0]
        return (
            attr(matmul, "transpose_w")
            and len(dims_of(matmul.operands[1].type)) == 2
            and all(step == "bias" for step in self.steps)
        )

    def _take(self, step: str, *ops_then_extra: ir.Operation | ir.Value) -> bool:
        self.steps.append(step)
        self.ops.extend(x for x in ops_then_extra if isinstance(x, ir.Operation))
        self.extra.extend(x for x in ops_then_extra if isinstance(x, ir.Value))
        return True


def _is(op: ir.Operation | None, name: str, functions) -> bool:
    return op is not None and op.name == name and attr(op, "op") in functions


def _build(chain: Chain) -> None:
    """The new matmul stands at the chain's end, where all extra operands are known."""
    matmul, last = chain.ops[0], chain.ops[-1]
    with before(last, *chain.ops):
        y = build.matmul(
            *list(matmul.operands)[:2],
            transpose_w=attr(matmul, "transpose_w"),
            epilogue=chain.steps,
            extra=chain.extra,
            element=dtype(last.results[0]),
        )
    replace(last, [y])
    for op in reversed(chain.ops[:-1]):
        op.erase()
