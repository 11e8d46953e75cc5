"""Inputs of a program: from .npy files, or random ones that fit it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from opennpu.compiler.frontend.archive import Archive
from opennpu.compiler.frontend.archive import tensors as values_of
from opennpu.compiler.frontend.ops import KvStore
from opennpu.dialects.diagnostics import CompileError
from opennpu.runtime.language_model import CachedSequence, Chunk, batch_inputs
from opennpu.tools.bisection.levels import Values
from torch import Tensor
from torch.export.graph_signature import InputKind, TensorArgument

PAGE_SIZE = 16
PROMPTS = (5, 1, 9)
"""Lengths of the prompts of a language model's batch."""
EXTENT = 6
"""What a dynamic extent is without files, where the program allows it."""
LEAST_VOCABULARY = 32


def given(archive: Archive, files: Sequence[str]) -> Values:
    """From `name=file.npy`, or `file.npy` in the program's order. Raises CompileError, OSError."""
    expected = _expected(archive)
    unnamed = iter(name for name in expected if not any(text.startswith(f"{name}=") for text in files))
    inputs = {}
    for text in files:
        name, _, path = text.rpartition("=")
        name = name or next(unnamed, "")
        if name not in expected:
            raise CompileError(f"input {text}: the program's inputs are {', '.join(expected)}")
        inputs[name] = torch.from_numpy(np.load(Path(path))).to(expected[name].dtype)
    if missing := expected.keys() - inputs.keys():
        raise CompileError(f"no file for the inputs {', '.join(sorted(missing))}")
    return Values(inputs, values_of(archive.program))


def at_random(archive: Archive, seed: int) -> Values:
    """A batch of prompts for a language model; else normal numbers, and integers from 0 to 3."""
    generator, expected = torch.Generator().manual_seed(seed), _expected(archive)
    params = values_of(archive.program)
    if {"input_ids", "block_table"} <= expected.keys():
        pages = -(-max(PROMPTS) // PAGE_SIZE)
        kv = KvStore(PAGE_SIZE, PAGE_SIZE * pages * len(PROMPTS))
        return Values(_prompts(generator, pages, archive), params, kv=kv)
    extents = _extents(expected, archive)
    return Values({n: _random(x, extents, generator) for n, x in expected.items()}, params)


def _expected(archive: Archive) -> dict[str, Tensor]:
    """The program's inputs as it was traced with, by name."""
    nodes = {node.name: node.meta["val"] for node in archive.program.graph.find_nodes(op="placeholder")}
    return {
        spec.arg.name: nodes[spec.arg.name]
        for spec in archive.program.graph_signature.input_specs
        if spec.kind is InputKind.USER_INPUT and isinstance(spec.arg, TensorArgument)
    }


def _extents(expected: Mapping[str, Tensor], archive: Archive) -> dict:
    """A number for each symbol: EXTENT, or what is nearest in its range."""
    found = {}
    for x in expected.values():
        for extent in x.shape:
            if isinstance(extent, torch.SymInt):
                for symbol in extent.node.expr.free_symbols:
                    limits = archive.program.range_constraints.get(symbol)
                    low, high = (limits.lower, limits.upper) if limits else (1, EXTENT)
                    found[symbol] = int(max(low, min(high, EXTENT)))
    return found


def _random(x: Tensor, extents: dict, generator: torch.Generator) -> Tensor:
    shape = [int(n.node.expr.subs(extents)) if isinstance(n, torch.SymInt) else n for n in x.shape]
    if x.dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(x.dtype)
    return torch.randint(0, 2 if x.dtype == torch.bool else 4, shape, generator=generator).to(x.dtype)


def _prompts(generator: torch.Generator, pages: int, archive: Archive) -> dict[str, Tensor]:
    vocabulary = archive.metadata.get("model", {}).get("vocab_size", LEAST_VOCABULARY)
    order = torch.randperm(pages * len(PROMPTS), generator=generator).view(len(PROMPTS), pages).tolist()
    chunks = [
        Chunk(CachedSequence(own), torch.randint(0, vocabulary, (n,), generator=generator).tolist())
        for own, n in zip(order, PROMPTS, strict=True)
    ]
    return batch_inputs(chunks, PAGE_SIZE)
