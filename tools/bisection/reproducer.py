"""A folder that shows a wrong pass again: `before.mlir`, `launch.json`, and tensors as .npy files.

`npu-bisect FOLDER` runs the module, the pass, and the module again, and compares. The files are
plain: `npu-opt before.mlir --PASS` shows what the pass makes of the module.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from opennpu.compiler.frontend.ops import KvStore
from opennpu.compiler.interpreters.tile_launch import Memory
from opennpu.dialects import load_all
from opennpu.runtime.chip import Chip
from opennpu.tools.bisection.kernels import Alone
from opennpu.tools.bisection.kernels import differs as kernel_differs
from opennpu.tools.bisection.levels import Values, text_of
from opennpu.tools.bisection.search import differs
from torch import Tensor
from torch_mlir import ir

MODULE, LAUNCH = "before.mlir", "launch.json"


def write_module(folder: Path, module: ir.Module, values: Values, name: str, chip: Chip) -> None:
    """A module at level npu and what it is run on."""
    _begin(folder, module)
    pages = values.kv and {
        "page_size": values.kv.page_size,
        "slots": values.kv.slots,
        "layers": {
            str(n): _save_all(folder, f"layer{n}", dict(zip("kv", layer, strict=True)))
            for n, layer in values.kv.layers.items()
        },
    }
    described = {
        "inputs": _save_all(folder, "input", values.inputs),
        "params": _save_all(folder, "param", values.params),
        "symbols": dict(values.symbols),
        "pages": pages,
    }
    _finish(folder, {"pass": name, "chip": chip.to_dict(), "values": described})


def write_kernel(folder: Path, alone: Alone, name: str, chip: Chip) -> None:
    """One kernel of a module at level npu_tile and the memory that it finds."""
    _begin(folder, alone.module)
    arguments: list = []
    for i, argument in enumerate(alone.arguments):
        if isinstance(argument, Memory):
            np.save(folder / f"argument{i}.npy", argument.bytes)
            arguments.append({"file": f"argument{i}.npy", "writable": argument.writable})
        else:
            arguments.append(argument)
    _finish(folder, {"pass": name, "chip": chip.to_dict(), "arguments": arguments})


def reproduces(folder: Path) -> tuple[str, bool]:
    """The pass of a folder, and whether it still changes what the module computes.

    OSError, ValueError, KeyError say that the folder is no reproducer; FAULTS of levels.py that its module
    cannot be run, or not be given to the pass.
    """
    launch = json.loads((folder / LAUNCH).read_text(encoding="utf-8"))
    chip, name = Chip.from_dict(launch["chip"]), launch["pass"]
    with load_all(ir.Context()):
        module = ir.Module.parse((folder / MODULE).read_text(encoding="utf-8"))
    if "arguments" in launch:
        arguments = [
            a if isinstance(a, int) else Memory(np.load(folder / a["file"]), a["writable"])
            for a in launch["arguments"]
        ]
        return name, kernel_differs(Alone(module, arguments, ""), name, chip)
    return name, differs(module, name, _load_values(folder, launch["values"]), chip)


def _load_values(folder: Path, described: Mapping) -> Values:
    inputs, params = (_load_all(folder, described[kind]) for kind in ("inputs", "params"))
    kv = None
    if pages := described["pages"]:
        layers = {int(n): tuple(_load_all(folder, layer).values()) for n, layer in pages["layers"].items()}
        kv = KvStore(pages["page_size"], pages["slots"], layers)
    return Values(inputs, params, described["symbols"], kv)


def _begin(folder: Path, module: ir.Module) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODULE).write_text(text_of(module), encoding="utf-8")


def _finish(folder: Path, launch: dict) -> None:
    (folder / LAUNCH).write_text(json.dumps(launch, indent=1), encoding="utf-8")


def _save_all(folder: Path, prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, dict]:
    """{name: file and dtype}; NumPy has no bfloat16: a float32 file stands for it."""
    described = {}
    for i, (name, x) in enumerate(tensors.items()):
        x, file = x.detach(), f"{prefix}{i}.npy"
        np.save(folder / file, (x.float() if x.dtype == torch.bfloat16 else x).contiguous().numpy())
        described[name] = {"file": file, "dtype": str(x.dtype).removeprefix("torch.")}
    return described


def _load_all(folder: Path, described: Mapping) -> dict[str, Tensor]:
    return {
        name: torch.from_numpy(np.load(folder / entry["file"])).to(getattr(torch, entry["dtype"]))
        for name, entry in described.items()
    }
