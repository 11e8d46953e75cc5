"""The builders: inferred types, round trip, regions, effects under upstream passes."""

import pytest
from opennpu.dialects import load_all, npu
from opennpu.dialects.symbols import Sym, tensor_type
from torch_mlir import ir
from torch_mlir.passmanager import PassManager

T, B = Sym.of("T"), Sym.of("B")


@pytest.fixture
def module():
    with load_all(ir.Context()), ir.Location.unknown():
        yield ir.Module.create()


def build(module, arguments, body):
    """A function @main of these (extents, dtype) arguments; `body(*values)` returns its results."""
    types = [tensor_type(shape, npu.element_type(element)) for shape, element in arguments]
    with ir.InsertionPoint(module.body):
        function = ir.Operation.create(
            "func.func",
            attributes={
                "sym_name": ir.StringAttr.get("main"),
                "function_type": ir.TypeAttr.get(ir.FunctionType.get(types, [])),
            },
            regions=1,
        )
    block = function.regions[0].blocks.append(*types)
    with ir.InsertionPoint(block):
        results = body(*block.arguments)
        ir.Operation.create("func.return", operands=results)
    signature = ir.FunctionType.get(types, [r.type for r in results])
    function.attributes["function_type"] = ir.TypeAttr.get(signature)
    assert module.operation.verify()
    assert str(ir.Module.parse(str(module))) == str(module)
    return block


def names(block):
    return [op.operation.name for op in block.operations]


def test_types_are_inferred(module):
    def body(x, w, index):
        up = npu.matmul(x, w, transpose_w=True, epilogue=["gate_silu"])
        assert npu.dims(up) == (T, 16)
        pair = npu.concat([up, npu.slice_(x, 1, 4, 8, 2)], 1)
        assert npu.dims(pair) == (T, 24)
        rows = npu.gather(pair, index)
        assert npu.dims(rows) == (B, 24)
        column = npu.reduce("max", rows, 1, keepdim=True)
        less = npu.binary("lt", rows, column)
        assert npu.dtype(less) == "i1" and npu.dims(less) == (B, 24)
        return [npu.reshape(npu.select(less, rows, column), [24 * B])]

    build(module, [((T, 64), "f32"), ((32, 64), "f32"), ((B,), "i64")], body)


def test_concat_nests_beyond_its_slots(module):
    block = build(module, [((2, T), "bf16")], lambda x: [npu.concat([x] * 20, 1)])
    assert names(block).count("npu.concat") == 3


def test_repeat_and_fused(module):
    def layer(number, carried, params):
        (x,), (w,) = carried, params
        (y,) = npu.fused([x.type], lambda: [npu.unary("silu", npu.binary("add", x, x))])
        return [npu.matmul(y, w)]

    def body(x):
        w = tensor_type([8, 8], npu.element_type("f32"))
        return npu.repeat([x], 3, [["a.w", "b.w", "c.w"]], [w], layer)

    block = build(module, [((T, 8), "f32")], body)
    repeat = block.operations[0]
    assert [v.type for v in repeat.results] == [v.type for v in repeat.inits]
    fused = repeat.body.blocks[0].operations[0]
    assert npu.captured(fused) == [repeat.body.blocks[0].arguments[1]]


def kv_body(x, slots, table, lengths, start):
    sizes = dict(layer=0, kv_heads=1, head_dim=8, v_head_dim=8)

    def attend():
        return npu.paged_attention(x, table, lengths, start, heads=1, scale=0.5, **sizes)

    first, again = attend(), attend()
    npu.kv_write(x, x, slots, **sizes)
    attend()
    return [first, again, attend()]


def test_effects_order_kv_reads_and_writes(module):
    """Equal reads without a write between them are one; a dead read goes, a write stays."""
    arguments = [((T, 8), "bf16"), ((T,), "i64"), ((B, Sym.of("P")), "i32"), ((B,), "i64"), ((B + 1,), "i64")]
    block = build(module, arguments, kv_body)
    PassManager.parse("builtin.module(canonicalize,cse)").run(module.operation)
    assert names(block) == ["npu.paged_attention", "npu.kv_write", "npu.paged_attention", "func.return"]


def test_effects_inside_repeat(module):
    def body(x, slots):
        def write(layer, carried, params):
            npu.kv_write(carried[0], carried[0], slots, layer=0, kv_heads=1, head_dim=8, v_head_dim=8)
            return carried

        npu.repeat([x], 2, [], [], write)
        npu.repeat([x], 2, [], [], lambda layer, carried, params: carried)
        return [x]

    block = build(module, [((T, 8), "bf16"), ((T,), "i64")], body)
    PassManager.parse("builtin.module(canonicalize)").run(module.operation)
    assert names(block) == ["npu.repeat", "func.return"]
