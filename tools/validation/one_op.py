"""One op of `npu` as a program of its own, and what it computes on the chip and in float64."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from opennpu.compiler.assembler import assemble, signature_of
from opennpu.compiler.frontend.ops import KvStore
from opennpu.compiler.interpreters import npu as interpreter
from opennpu.compiler.pass_manager import run_pipeline
from opennpu.compiler.pipeline import PIPELINE, stage
from opennpu.compiler.weights import segment
from opennpu.dialects.symbols import set_symbol_ranges
from opennpu.runtime.device import Device
from opennpu.runtime.page_pool import PagePool
from opennpu.runtime.program import Program
from opennpu.runtime.signature import Signature
from torch import Tensor
from torch_mlir import ir
from torch_mlir.dialects import func

PAGE_SIZE, PAGES = 16, 24


@dataclass
class Case:
    """An op with its operands: `build(*values)` makes it, in a context, and returns its results.

    `types()` are those of the operands, whose symbols have the values `sizes`; the operands whose place is
    in `params` are weights, which the compiler lays out as it likes.
    """

    label: str
    dtype: str  # of the first result, or of what is written
    build: Callable[..., Sequence[ir.Value]]
    types: Callable[[], list[ir.Type]]
    values: list[Tensor]
    params: frozenset[int] = frozenset()
    sizes: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)  # op_counts.py
    origin: str = "random"

    def name(self, place: int) -> str:
        return f"p{place}" if place in self.params else f"x{place}"


def run(case: Case, device: Device, context: ir.Context) -> tuple[list[Tensor], list[Tensor]]:
    """(on the chip, in float64): the results, and behind them what was written to the pages."""
    with context, ir.Location.unknown():
        module = _module(case)
        program = ir.Module.parse(module.operation.get_asm(print_generic_op_form=True))
        run_pipeline(program, [stage(p, device.chip) for n in ("npu_tile", "npu_isa") for p in PIPELINE[n]])
        signature = {"chip": device.chip.to_dict(), **signature_of(program)}
        loaded = _load(case, device, assemble(program, device.chip), signature)
        named = {case.name(i): value for i, value in enumerate(case.values)}
        params = {name: value for name, value in named.items() if name.startswith("p")}
        inputs = {name: value for name, value in named.items() if name.startswith("x")}
        pool, store = _pages(loaded, signature.get("kv"))
        found = list(loaded.run(inputs, pool).values())
        exact = interpreter.run(module, _wide(inputs), _wide(params), case.sizes, store, exact=True)
    if pool:
        found += [view.flatten(0, 1).clone() for view in pool.views(0)]
        exact += list(store.layers[0])
    return found, exact


def _module(case: Case) -> ir.Module:
    module = ir.Module.create()
    types = case.types()
    with ir.InsertionPoint(module.body):
        main = func.FuncOp("main", (types, []))
    kinds = ["npu.param" if i in case.params else "npu.input" for i in range(len(types))]
    main.operation.attributes["arg_attrs"] = ir.ArrayAttr.get(
        [ir.DictAttr.get({kind: ir.StringAttr.get(case.name(i))}) for i, kind in enumerate(kinds)]
    )
    block = main.add_entry_block()
    with ir.InsertionPoint(block):
        results = case.build(*block.arguments)
        func.ReturnOp(results)
    main.operation.attributes["function_type"] = ir.TypeAttr.get(
        ir.FunctionType.get(types, [result.type for result in results])
    )
    set_symbol_ranges(module, {name: (1, None) for name in case.sizes})
    module.operation.verify()
    return module


def _load(case: Case, device: Device, image: bytes, signature: dict) -> Program:
    parsed = Signature.from_json(json.dumps(signature))
    weights = None
    if parsed.weight_bytes:
        values = {case.name(i): case.values[i] for i in case.params}
        data = b"".join(segment(signature["weights"], values, device.chip, parsed.weight_bytes))
        weights = device.alloc(parsed.weight_bytes)
        weights.numpy()[:] = torch.frombuffer(bytearray(data), dtype=torch.uint8).numpy()
    return Program(device, image, parsed, weights)


def _pages(program: Program, kv: Mapping | None) -> tuple[PagePool | None, KvStore | None]:
    """Pages of random keys and values, the same on both sides."""
    if kv is None:
        return None, None
    pool, store = (
        PagePool(program.device, program.signature.kv, PAGE_SIZE, PAGES),
        KvStore(PAGE_SIZE, PAGE_SIZE * PAGES),
    )
    generator = torch.Generator().manual_seed(0)
    for view in pool.views(0):
        view.copy_(torch.randn(view.shape, generator=generator))
    store.layers[0] = tuple(view.flatten(0, 1).double() for view in pool.views(0))
    return pool, store


def _wide(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() if value.is_floating_point() else value for name, value in values.items()}
