"""Small models written in `npu` ops, for tests of the passes and the interpreter."""

from dataclasses import dataclass

import torch
from opennpu.compiler.frontend.ops import KvStore
from opennpu.compiler.interpreters import npu as interpreter
from opennpu.compiler.rewriting import functions
from opennpu.dialects import npu
from opennpu.dialects.symbols import dims_of, tensor_type
from torch_mlir import ir


class Function:
    """A module whose `@main` is being built; `input` and `param` add arguments as they are asked for."""

    def __init__(self):
        self.module = ir.Module.parse("func.func @main() { return }")
        self.names: list[tuple[str, str]] = []
        self.function = self.module.body.operations[0].operation
        self.block = self.function.regions[0].blocks[0]
        self.end = self.block.operations[0].operation

    def input(self, name: str, shape, element: str = "bf16") -> ir.Value:
        return self._argument("npu.input", name, shape, element)

    def param(self, name: str, shape, element: str = "bf16") -> ir.Value:
        return self._argument("npu.param", name, shape, element)

    def _argument(self, kind: str, name: str, shape, element: str) -> ir.Value:
        self.names.append((kind, name))
        type_ = tensor_type(shape, npu.element_type(element))
        return self.block.add_argument(type_, ir.Location.unknown())

    def at(self, path: str) -> ir.Location:
        return ir.Location.name(path)

    def finish(self, *results: ir.Value) -> ir.Module:
        with ir.Location.unknown(), ir.InsertionPoint(self.end):
            ir.Operation.create("func.return", operands=results)
        self.end.erase()
        type_ = ir.FunctionType.get([a.type for a in self.block.arguments], [r.type for r in results])
        self.function.attributes["function_type"] = ir.TypeAttr.get(type_)
        self.function.attributes["arg_attrs"] = ir.ArrayAttr.get(
            [ir.DictAttr.get({kind: ir.StringAttr.get(name)}) for kind, name in self.names]
        )
        self.module.operation.verify()
        return self.module


@dataclass(frozen=True)
class LlamaShape:
    layers: int = 3
    hidden: int = 32
    ffn: int = 48
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 8
    vocabulary: int = 50
    positions: int = 64


def llama(shape: LlamaShape = LlamaShape(), whole_norms: bool = True) -> ir.Module:
    """A decoder as SGLang's model class exports it.

    Without `whole_norms` the residual sums are written out and the gate is slices, silu and mul.
    """
    f, s = Function(), shape
    ids, positions, slots = (f.input(n, ["T"], "i64") for n in ("input_ids", "positions", "slots"))
    tables = f.input("block_table", ["B", "P"], "i32"), f.input("seq_lens", ["B"], "i64")
    starts = f.input("q_start", ["B + 1"], "i64")
    cache = f.param("rotary.cos_sin_cache", [s.positions, s.head_dim], "f32")
    kv = {"kv_heads": s.kv_heads, "head_dim": s.head_dim, "v_head_dim": s.head_dim}

    def add_norm(x, residual, name):
        w = f.param(name, [s.hidden])
        if residual is None:
            return npu.rms_norm(x, w, 1e-5), x
        if whole_norms:
            return npu.add_rms_norm(x, residual, w, 1e-5)
        total = npu.binary("add", x, residual)
        return npu.rms_norm(total, w, 1e-5), total

    def linear(x, name, n):
        return npu.matmul(x, f.param(name, [n, npu.dims(x)[-1]]), transpose_w=True)

    def gate(x):
        if whole_norms:
            return npu.silu_and_mul(x)
        return npu.binary(
            "mul", npu.unary("silu", npu.slice_(x, 1, 0, s.ffn)), npu.slice_(x, 1, s.ffn, s.ffn)
        )

    def layer(x, residual, n):
        name, q_width, kv_width = f"layers.{n}", s.heads * s.head_dim, s.kv_heads * s.head_dim
        with f.at(f"{name}.attn"):
            x, residual = add_norm(x, residual, f"{name}.norm1")
            qkv = linear(x, f"{name}.qkv", q_width + 2 * kv_width)
            q = npu.slice_(qkv, 1, 0, q_width)
            k = npu.slice_(qkv, 1, q_width, kv_width)
            v = npu.slice_(qkv, 1, q_width + kv_width, kv_width)
            q, k = (npu.rope(y, positions, cache, s.head_dim, True) for y in (q, k))
            npu.kv_write(k, v, slots, layer=n, **kv)
            scale = s.head_dim**-0.5
            x = npu.paged_attention(q, *tables, starts, layer=n, heads=s.heads, scale=scale, **kv)
            x = linear(x, f"{name}.o", s.hidden)
        with f.at(f"{name}.mlp"):
            x, residual = add_norm(x, residual, f"{name}.norm2")
            x = linear(gate(linear(x, f"{name}.gate_up", 2 * s.ffn)), f"{name}.down", s.hidden)
        return x, residual

    with f.at("model"), ir.InsertionPoint(f.end):
        x, residual = npu.gather(f.param("embed", [s.vocabulary, s.hidden]), ids), None
        for n in range(s.layers):
            x, residual = layer(x, residual, n)
        x, _ = add_norm(x, residual, "norm")
        logits = linear(x, "head", s.vocabulary)
    return f.finish(logits)


def encoder(layers: int = 3, hidden: int = 16, ffn: int = 32, outputs: int = 1) -> ir.Module:
    """Post-norm layers x = norm(x + mlp(x)) with biases; the last `outputs` hidden states are results."""
    f = Function()

    def linear(x, name, n):
        y = npu.matmul(x, f.param(f"{name}.w", [n, npu.dims(x)[-1]]), transpose_w=True)
        return npu.binary("add", y, f.param(f"{name}.b", [n]))

    with f.at("encoder"), ir.InsertionPoint(f.end):
        x = f.input("x", ["T", hidden])
        states = []
        for n in range(layers):
            with f.at(f"encoder.layers.{n}"):
                y = linear(npu.unary("gelu", linear(x, f"{n}.up", ffn)), f"{n}.down", hidden)
                scale, shift = f.param(f"{n}.norm.w", [hidden]), f.param(f"{n}.norm.b", [hidden])
                x = npu.layer_norm(npu.binary("add", x, y), scale, shift, 1e-5)
            states.append(x)
    return f.finish(*states[-outputs:])


def random_params(module: ir.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """A random tensor for every `npu.param` of the module, scaled by its last extent."""
    generator = torch.Generator().manual_seed(seed)
    function = next(functions(module))
    attrs = function.opview.arg_attrs
    params = {}
    for value, a in zip(function.regions[0].blocks[0].arguments, attrs, strict=True):
        if "npu.param" in a:
            shape = dims_of(value.type)
            tensor = torch.randn(shape, generator=generator) / shape[-1] ** 0.5
            params[a["npu.param"].value] = tensor.to(interpreter.element_dtype(value))
    return params


def llama_inputs(tokens: list[int], page_size: int = 4) -> tuple[dict[str, torch.Tensor], KvStore]:
    """A batch of prompts of these lengths, each in pages of its own, and empty pages for them."""
    pages = max(-(-n // page_size) for n in tokens)
    total, count = sum(tokens), len(tokens)
    table = torch.randperm(count * pages).view(count, pages).int()
    positions = torch.cat([torch.arange(n) for n in tokens])
    owner = torch.repeat_interleave(torch.arange(count), torch.tensor(tokens))
    inputs = {
        "input_ids": torch.randint(0, 50, (total,)),
        "positions": positions,
        "slots": table[owner, positions // page_size].long() * page_size + positions % page_size,
        "block_table": table,
        "seq_lens": torch.tensor(tokens),
        "q_start": torch.tensor([0, *tokens]).cumsum(0),
    }
    return inputs, KvStore(page_size, count * pages * page_size)
