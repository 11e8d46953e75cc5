"""model.npu files and runs of them: a hand-made model that copies `rows` rows of 64 bytes."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from image_builder import CHIP, READ, SCALAR, WRITE, copy_program, image
from opennpu.compiler.image import pack_image, parse_image
from opennpu.runtime.container import Container, ContainerError
from opennpu.runtime.device import Device, NpuError
from opennpu.runtime.page_pool import PagePool
from opennpu.runtime.program import Program, ProgramError
from opennpu.runtime.signature import KvSpec, Signature, SignatureError
from safetensors.numpy import save_file

KV = {"layers": 1, "kv_heads": 1, "head_dim": 8, "v_head_dim": 8, "dtype": "bf16"}


def copy_signature(**changes) -> dict:
    return {
        "chip": CHIP.to_dict(),
        "symbols": {"T": [1, 100]},
        "args": [
            {"kind": "input", "name": "x", "dtype": "f32", "shape": ["T", "16"]},
            {"kind": "output", "name": "y", "dtype": "f32", "shape": ["T", "16"]},
            {"kind": "symbol", "name": "T"},
        ],
        **changes,
    }


def write(path, signature, program=None, weights=None, **metadata):
    tensors = {"program": np.frombuffer(program or copy_program(), np.uint8)}
    if weights is not None:
        tensors["weights"] = weights
    text = signature if isinstance(signature, str) else json.dumps(signature)
    save_file(tensors, path, {"opennpu.format": "1", "opennpu.signature": text, **metadata})
    return path


@pytest.fixture
def model(tmp_path):
    return write(tmp_path / "model.npu", copy_signature())


def test_run_binds_symbols_and_returns_outputs(device, model):
    program = Program.load(device, model)
    for rows in (3, 100, 1):
        x = torch.randn(rows, 16)
        assert torch.equal(program.run({"x": x})["y"], x)
    numbers = np.arange(32, dtype=np.float32).reshape(2, 16)
    assert np.array_equal(program.run({"x": numbers})["y"].numpy(), numbers)
    strided = torch.randn(16, 5).t()
    assert torch.equal(program.run({"x": strided})["y"], strided)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "missing input 'x'. The program takes 'x' (f32 [T, 16])"),
        ({"x": torch.zeros(2, 16), "z": torch.zeros(1)}, "unknown input 'z'"),
        (
            {"x": torch.zeros(2, 16, dtype=torch.int64)},
            "input 'x' (f32 [T, 16]): the tensor given is torch.int64",
        ),
        ({"x": torch.zeros(2, 16, 1)}, "the tensor given has the shape [2, 16, 1]"),
        ({"x": torch.zeros(2, 17)}, "the tensor given has the shape [2, 17], where 16 was expected for 17"),
        (
            {"x": torch.zeros(0, 16)},
            "T is 0 by the sizes of the inputs; the program was compiled for from 1 to 100",
        ),
        ({"x": torch.zeros(101, 16)}, "T is 101 by the sizes of the inputs"),
    ],
)
def test_wrong_inputs(device, model, inputs, message):
    with pytest.raises(ProgramError, match=re.escape(message)):
        Program.load(device, model).run(inputs)


def test_inputs_must_agree_on_a_symbol(device, tmp_path):
    tensor = {"kind": "input", "dtype": "f32"}
    args = [
        {**tensor, "name": "a", "shape": ["T + 1"]},
        {**tensor, "name": "b", "shape": ["2*T"]},
    ]
    path = write(tmp_path / "m.npu", copy_signature(args=args), image(args=(READ, READ)))
    program = Program.load(device, path)
    program.run({"a": torch.zeros(4), "b": torch.zeros(6)})
    with pytest.raises(ProgramError, match=r"'b'.*\[8\], where 6 was expected for 8 \(T = 3\)"):
        program.run({"a": torch.zeros(4), "b": torch.zeros(8)})


def test_a_size_that_no_symbol_gives(device, tmp_path):
    args = [{"kind": "input", "name": "a", "dtype": "f32", "shape": ["2*T"]}]
    path = write(tmp_path / "m.npu", copy_signature(args=args), image(args=(READ,)))
    with pytest.raises(ProgramError, match=r"'a'.*no integer T makes it 7"):
        Program.load(device, path).run({"a": torch.zeros(7)})


# ---- weights, workspace, KV


WEIGHTS = [{"names": ["w"], "layout": "rows", "dtype": "f32", "shape": [3, 16], "offset": 0, "bytes": 192}]


def weight_model(path, weights):
    """The copy program with the weight segment as its source; `x` only gives T."""
    x, y, t = copy_signature()["args"]
    signature = copy_signature(args=[{"kind": "weights", "bytes": 192}, y, t, x], weights=WEIGHTS)
    copy = parse_image(copy_program())
    program = pack_image(replace(copy, arg_kinds=(*copy.arg_kinds, READ)))
    return write(path, signature, program, weights)


def test_weights_are_loaded(device, tmp_path):
    weights = np.random.default_rng(0).integers(0, 127, 192, dtype=np.uint8)
    program = Program.load(device, weight_model(tmp_path / "m.npu", weights))
    y = program.run({"x": torch.zeros(3, 16)})["y"]
    assert np.array_equal(y.view(torch.uint8).numpy().reshape(-1), weights)


def test_missing_weights(device, tmp_path):
    path = weight_model(tmp_path / "m.npu", None)
    with pytest.raises(
        ProgramError, match=r"compiled without weights .192 bytes are missing.*compile it again"
    ):
        Program.load(device, path)


def test_weights_of_the_wrong_size(device, tmp_path):
    path = weight_model(tmp_path / "m.npu", np.zeros(100, np.uint8))
    with pytest.raises(ContainerError, match="weights have 100 bytes, the signature says 192"):
        Program.load(device, path)


def test_kv_arguments(device, tmp_path):
    fields = ["k_base", "page_size"]
    args = [{"kind": "kv", "field": f} for f in fields] + [{"kind": "workspace", "bytes": 64}]
    signature = copy_signature(args=args, kv=KV, symbols={})
    path = write(tmp_path / "m.npu", signature, image(args=(WRITE, SCALAR, WRITE)))
    program = Program.load(device, path)
    program.run({}, kv=PagePool(device, KvSpec(**KV), page_size=16, pages=2))
    with pytest.raises(ProgramError, match="give it a PagePool"):
        program.run({})
    with pytest.raises(ProgramError, match="page pool is for"):
        program.run({}, kv=PagePool(device, KvSpec(**{**KV, "layers": 2}), page_size=16, pages=2))
    other = Device("npu1-lite", hbm_bytes=1 << 20)
    with pytest.raises(ProgramError, match="another device"):
        program.run({}, kv=PagePool(other, KvSpec(**KV), page_size=16, pages=2))


# ---- wrong files


def test_a_program_for_another_chip(tmp_path, model):
    with pytest.raises(NpuError, match="compile the model for this chip"):
        Program.load(Device("npu1", engine="reference", hbm_bytes=1 << 20), model)


def test_not_a_safetensors_file(tmp_path):
    path = tmp_path / "model.npu"
    path.write_bytes(b"what is this")
    with pytest.raises(ContainerError, match=r"model\.npu: not a readable safetensors file"):
        Container.open(path)
    with pytest.raises(ContainerError, match=r"nothing.npu"):
        Container.open(tmp_path / "nothing.npu")


def test_other_safetensors_files(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"x": np.zeros(3)}, path)
    with pytest.raises(ContainerError, match="compile it with npu-compile"):
        Container.open(path)
    write(path, copy_signature(), **{"opennpu.format": "9"})
    with pytest.raises(ContainerError, match=r"opennpu.format is '9'"):
        Container.open(path)
    save_file({"x": np.zeros(3)}, path, {"opennpu.format": "1"})
    with pytest.raises(ContainerError, match="`program` is missing"):
        Container.open(path)


ARGS = copy_signature()["args"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chip": None}, "signature.chip is missing"),
        ({"chip": {**CHIP.to_dict(), "cores": -1}}, "signature.chip: `cores` must be"),
        ({"symbols": {"T": [5, 2]}}, "signature.symbols.T must be"),
        ({"symbols": {"T": "x"}}, "signature.symbols.T must be"),
        ({"symbols": {}}, "uses T, which `symbols` does not have"),
        ({"args": None}, "signature.args is missing"),
        ({"args": [3]}, r"signature.args\[0\] must be an object"),
        ({"args": [{"kind": "magic"}]}, r"signature.args\[0\].kind must be one of"),
        ({"args": [{**ARGS[0], "dtype": "f17"}]}, r"signature.args\[0\].dtype must be one of"),
        ({"args": [{**ARGS[0], "name": 7}]}, r"signature.args\[0\].name must be of type str"),
        (
            {"args": [{**ARGS[0], "shape": ["T/2"]}]},
            r"signature.args\[0\].shape\[0\] 'T/2' is not a polynomial",
        ),
        ({"args": [{"kind": "symbol", "name": "Q"}]}, r"signature.args\[0\].name must be one of T"),
        ({"args": [{"kind": "workspace"}]}, r"signature.args\[0\].bytes None is not an extent"),
        ({"args": [{"kind": "weights", "bytes": "T"}]}, "of a fixed size"),
        ({"args": [{"kind": "kv", "field": "colour"}]}, r"signature.args\[0\].field must be one of k_base"),
        ({"args": [{"kind": "kv", "field": "k_base"}]}, "signature.kv is missing"),
        ({"kv": {**KV, "layers": 0}}, "signature.kv.layers must be at least 1"),
        ({"kv": {**KV, "dtype": "f99"}}, "signature.kv.dtype"),
        (
            {"weights": [{"layout": "rows", "dtype": "f32", "offset": 0, "bytes": 9}]},
            "reach past the segment",
        ),
        ({"weights": [{"layout": "zip"}]}, r"signature.weights\[0\].layout"),
        ({"model": []}, "signature.model must be of type dict"),
    ],
)
def test_every_field_of_the_signature_is_checked(changes, message):
    with pytest.raises(SignatureError, match=message):
        Signature.from_json(json.dumps(copy_signature(**changes)))


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100000])
def test_signature_that_is_no_object(text):
    with pytest.raises(SignatureError):
        Signature.from_json(text)


@pytest.mark.parametrize(
    "args",
    [
        [{"kind": "output", "name": "y", "dtype": "f32", "shape": ["T - 100", "16"]}],
        [{"kind": "output", "name": "y", "dtype": "f32", "shape": ["T*T*T*T*T*T*T*1000000"]}],
        [{"kind": "workspace", "bytes": "T - 100"}],
        [{"kind": "workspace", "bytes": "T*T*T*T*T*T*T*1000000"}],
    ],
    ids=str,
)
def test_sizes_that_only_a_damaged_signature_has(device, tmp_path, args):
    signature = copy_signature()
    kept = [a for a in signature["args"] if a["kind"] not in {b["kind"] for b in args}]
    model = write(tmp_path / "model.npu", {**signature, "args": kept + args})
    with pytest.raises(ProgramError, match=r"would have a size of .*Compile the model again"):
        Program.load(device, model).run({"x": torch.zeros(30, 16)})
