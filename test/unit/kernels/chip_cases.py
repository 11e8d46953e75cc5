"""Small `npu` modules compiled to a program and run on the virtual chip."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence

import torch
from opennpu.compiler.assembler import assemble, signature_of
from opennpu.compiler.pass_manager import Stage, run_pipeline
from opennpu.compiler.passes import registry
from opennpu.compiler.pipeline import PIPELINE
from opennpu.compiler.weights import check_weights, segment
from opennpu.dialects import load_all, npu
from opennpu.dialects.symbols import Sym, set_symbol_ranges, tensor_type
from opennpu.runtime import Device, PagePool, Program
from opennpu.runtime.chip import Chip
from opennpu.runtime.signature import Signature
from torch_mlir import ir
from torch_mlir.dialects import func

Spec = tuple[Sequence[int | str], str]  # extents (a text is a polynomial in symbols), dtype


class Case:
    """A module on a chip, called with tensors by name; every launch runs under the race checker."""

    def __init__(
        self,
        build: Callable[..., Sequence[ir.Value]],
        inputs: Mapping[str, Spec],
        params: Mapping[str, torch.Tensor] | None = None,
        ranges: Mapping[str, tuple[int, int | None]] | None = None,
        chip: str = "npu1-lite",
        layers: Mapping[str, torch.Tensor] | None = None,
        engine: str = "reference",
    ):
        """`build` gets inputs and params by name and returns the results; `layers` are params that
        only rolled loops name."""
        self.chip = Chip.load(chip)
        with load_all(ir.Context()), ir.Location.unknown():
            module = npu_module(build, inputs, params or {}, ranges or {})
            passes = [*PIPELINE["npu_tile"], *PIPELINE["npu_isa"]]
            run_pipeline(module, [self._stage(name) for name in passes])
            image = assemble(module, self.chip)
            signature = {"chip": self.chip.to_dict(), **signature_of(module)}
        self.signature = Signature.from_json(json.dumps(signature))
        self.device = Device(self.chip, engine=engine, race_check=True, hbm_bytes=1 << 28)
        weights = None
        if self.signature.weight_bytes:
            values = {**(params or {}), **(layers or {})}
            check_weights(signature["weights"], values)
            chunks = segment(signature["weights"], values, self.chip, self.signature.weight_bytes)
            weights = self.device.alloc(self.signature.weight_bytes)
            weights.numpy()[:] = torch.frombuffer(bytearray(b"".join(chunks)), dtype=torch.uint8).numpy()
        self.program = Program(self.device, image, self.signature, weights)

    def __call__(self, kv: PagePool | None = None, **inputs: torch.Tensor) -> list[torch.Tensor]:
        return list(self.program.run(inputs, kv).values())

    def page_pool(self, page_size: int, pages: int, layout: str = "paged") -> PagePool:
        """Pages that hold NaN, as stale memory may."""
        pool = PagePool(self.device, self.signature.kv, page_size, pages, layout)
        for layer in range(pool.kv.layers):
            for view in pool.views(layer):
                view.fill_(float("nan"))
        return pool

    def _stage(self, name: str) -> Stage:
        own = registry.find(name)
        takes_chip = own is not None and "chip" in inspect.signature(own.run).parameters
        return Stage(name, own, {"chip": self.chip} if takes_chip else {})


def npu_module(build, inputs, params, ranges) -> ir.Module:
    """A module whose `@main` is what `build` makes of its inputs and params."""
    module = ir.Module.create()
    specs = {**inputs, **{name: (tuple(t.shape), _ELEMENT[t.dtype]) for name, t in params.items()}}
    types = [tensor_type([Sym.of(n) for n in shape], npu.element_type(e)) for shape, e in specs.values()]
    with ir.InsertionPoint(module.body):
        main = func.FuncOp("main", (types, []))
    kinds = ["npu.param" if name in params else "npu.input" for name in specs]
    main.operation.attributes["arg_attrs"] = ir.ArrayAttr.get(
        [ir.DictAttr.get({kind: ir.StringAttr.get(name)}) for kind, name in zip(kinds, specs, strict=True)]
    )
    block = main.add_entry_block()
    with ir.InsertionPoint(block):
        results = build(**dict(zip(specs, block.arguments, strict=True)))
        func.ReturnOp(results)
    main.operation.attributes["function_type"] = ir.TypeAttr.get(
        ir.FunctionType.get(types, [r.type for r in results])
    )
    set_symbol_ranges(module, ranges)
    module.operation.verify()
    return module


_ELEMENT = {
    torch.float32: "f32",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int8: "i8",
    torch.bool: "i1",
}
DTYPE = {element: dtype for dtype, element in _ELEMENT.items()}
