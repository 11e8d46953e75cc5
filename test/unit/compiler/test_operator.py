"""One operator as a program, against PyTorch on the host, for sizes and strides of all kinds."""

import threading

import pytest
import torch
from opennpu.compiler.operator import TensorSpec, compile_operator
from opennpu.dialects.diagnostics import CompileError
from opennpu.runtime import Device, Program
from opennpu.runtime.program import ProgramError

CHIP = "npu1-lite"


@pytest.fixture(scope="module")
def device():
    return Device(CHIP, engine="reference", race_check=True)


def spec(x):
    """A tensor as its spec, also within lists."""
    if isinstance(x, list):
        return [spec(y) for y in x]
    if not isinstance(x, torch.Tensor):
        return x
    return TensorSpec(x.dtype, tuple(x.shape), None if x.is_contiguous() else x.stride())


class Operator:
    """Compiled for its first arguments; `run` takes others."""

    def __init__(self, device, tmp_path, target, args, kwargs=None, out=None):
        data = compile_operator(
            target, [spec(x) for x in args], kwargs or {}, chip=CHIP, out=None if out is None else [spec(out)]
        )
        path = tmp_path / "operator.npu"
        path.write_bytes(data)
        self.program = Program.load(device, path)

    def run(self, *args, out=None):
        flat = [y for x in args for y in (x if isinstance(x, list) else [x]) if isinstance(y, torch.Tensor)]
        given = {f"arg{i}": x for i, x in enumerate(flat)}
        results = self.program.run(given, out={} if out is None else {"output": out})
        return list(results.values())

    @property
    def symbols(self):
        return self.program.signature.symbols


@pytest.fixture
def operator(device, tmp_path):
    return lambda *args, **kwargs: Operator(device, tmp_path, *args, **kwargs)


def close(actual, expected):
    """Sums of up to some thousand f32 terms in another order; the special functions' 4 ulp."""
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_one_program_for_all_sizes(operator):
    add = operator("aten.add.Tensor", (torch.ones(4, 5), torch.ones(4, 5)))
    for shape in ((4, 5), (2, 2), (70, 300)):
        x, y = torch.randn(shape), torch.randn(shape)
        assert torch.equal(add.run(x, y)[0], x + y)


def test_a_number_as_a_bool_is_whether_it_is_not_0(operator):
    x = torch.tensor([[True, False, True]])
    pad = operator("aten.constant_pad_nd.default", (x, [1, 2], 2.0))
    assert torch.equal(pad.run(x)[0], torch.nn.functional.pad(x, (1, 2), value=2.0))


def test_names_and_symbols(operator):
    program = operator("aten.cat.default", ([torch.ones(2, 3), torch.ones(4, 3)],)).program
    arguments = {a.name: a.text for a in program.signature.args if a.kind in ("input", "output")}
    assert arguments == {
        "arg0": "[arg0_0, arg0_1]",
        "arg1": "[arg1_0, arg0_1]",
        "output": "[arg0_0 + arg1_0, arg0_1]",
    }


def test_extents_of_0_and_1_are_not_symbols(operator):
    add = operator("aten.add.Tensor", (torch.ones(4, 1), torch.ones(1, 5)))
    assert [a.text for a in add.program.signature.tensors("input").values()] == ["[arg0_0, 1]", "[1, arg1_1]"]
    empty = operator("aten.sum.dim_IntList", (torch.ones(3, 0), [1]))
    assert torch.equal(empty.run(torch.ones(7, 0))[0], torch.zeros(7))


def test_several_outputs(operator):
    x = torch.randn(6, 9)
    close(operator("aten.max.dim", (x, 1)).run(x)[0], x.max(1).values)
    assert torch.equal(operator("aten.max.dim", (x, 1)).run(x)[1], x.max(1).indices)


# ---- rows


@pytest.mark.parametrize(
    ("columns", "bounds"),
    [(5, (1, 1024)), (1024, (1, 1024)), (1025, (1025, 4096)), (300_000, (262_145, None))],
)
def test_rows_are_on_a_ladder(operator, columns, bounds):
    """So that how a row is reduced follows from its length alone."""
    x = torch.randn(2, columns)
    softmax = operator("aten._softmax.default", (x, 1, False))
    assert softmax.symbols == {"arg0_0": (1, None), "arg0_1": bounds}
    close(softmax.run(x)[0], x.softmax(1))


def test_kernels_that_need_a_bound_get_that_of_the_ladder(operator):
    """A row is looked up in scratchpad."""
    x, index = torch.randn(4, 2000), torch.randint(0, 2000, (4, 3))
    gather = operator("aten.gather.default", (x, 1, index))
    assert gather.symbols["arg0_1"] == (1025, 4096)
    assert torch.equal(gather.run(x, index)[0], x.gather(1, index))
    longer = torch.randn(4, 3000)
    assert torch.equal(gather.run(longer, index)[0], longer.gather(1, index))


def test_a_row_beyond_its_step_is_refused(operator):
    softmax = operator("aten._softmax.default", (torch.ones(2, 5), 1, False))
    with pytest.raises(ProgramError, match="arg0_1 is 2000"):
        softmax.run(torch.ones(2, 2000))


def test_ten_million_elements(tmp_path):
    x = torch.randn(10_000_000)
    total = Operator(Device(CHIP), tmp_path, "aten.sum.default", (x,)).run(x)[0]
    torch.testing.assert_close(total, x.double().sum().float(), rtol=1e-4, atol=1e-2)  # of terms that cancel


# ---- what export concludes from sizes


def test_equal_extents_are_one_symbol(operator):
    mm = operator("aten.mm.default", (torch.ones(4, 5), torch.ones(5, 6)))
    with pytest.raises(ProgramError, match="arg1"):
        mm.run(torch.ones(4, 5), torch.ones(4, 6))


def test_extents_that_must_divide_are_static(operator):
    """No range says that an extent is a multiple of 3."""
    view = operator("aten.view.default", (torch.ones(4, 6), [-1, 3]))
    assert view.symbols == {}
    with pytest.raises(ProgramError):
        view.run(torch.ones(4, 5))


# ---- strides

LAYOUTS = {
    "transposed": lambda *shape: torch.randn(*shape[::-1]).permute(*reversed(range(len(shape)))),
    "steps": lambda *shape: torch.randn(*(2 * n for n in shape))[tuple(slice(None, None, 2) for _ in shape)],
    "rows apart": lambda *shape: torch.randn(*shape[:-1], shape[-1] + 3)[..., : shape[-1]],
    "repeated": lambda *shape: torch.randn(1, *shape[1:]).expand(*shape),
}
CALLS = {
    "add": ("aten.add.Tensor", lambda make: (make(4, 6), torch.randn(4, 6))),
    "sum of columns": ("aten.sum.dim_IntList", lambda make: (make(4, 6), [0])),
    "softmax": ("aten._softmax.default", lambda make: (make(4, 6), 1, False)),
    "rms norm": ("opennpu.rms_norm.default", lambda make: (make(4, 6), torch.randn(6), 1e-5)),
    "mm left": ("aten.mm.default", lambda make: (make(4, 6), torch.randn(6, 5))),
    "mm right": ("aten.mm.default", lambda make: (torch.randn(5, 4), make(4, 6))),
    "linear": ("aten.linear.default", lambda make: (torch.randn(3, 6), make(4, 6))),
    "bmm": ("aten.bmm.default", lambda make: (make(2, 4, 6), make(2, 6, 3))),
    "cat": ("aten.cat.default", lambda make: ([make(4, 6), torch.randn(2, 6), make(3, 6)],)),
    "embedding": ("aten.embedding.default", lambda make: (make(4, 6), torch.tensor([3, 0, 3]))),
    "gather": ("aten.gather.default", lambda make: (make(4, 6), 1, torch.randint(0, 6, (3, 4)).t())),
    "clone": ("aten.clone.default", lambda make: (make(2, 3, 4, 5),)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("call", CALLS)
def test_strided_inputs(operator, call, layout):
    torch.manual_seed(0)
    target, arguments = CALLS[call]
    args = arguments(LAYOUTS[layout])
    expected = _call(target, args)
    close(operator(target, args).run(*args)[0], expected)


@pytest.mark.parametrize("call", CALLS)
def test_strided_outputs(operator, call):
    torch.manual_seed(0)
    target, arguments = CALLS[call]
    args = arguments(torch.randn)
    expected = _call(target, args)
    for make in (LAYOUTS["transposed"], LAYOUTS["steps"]):
        room = make(*expected.shape)
        around = room._base.clone()
        out = operator(target, args, out=room).run(*args, out=room)[0]
        close(out, expected)
        assert out.data_ptr() == room.data_ptr()
        room.copy_(torch.as_strided(around, room.shape, room.stride()))
        assert torch.equal(room._base, around), "what lies between the elements of the output was written"


def _call(target, args):
    namespace, name, overload = target.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), name), overload)(*args)


def test_strides_are_symbols(operator):
    add = operator("aten.add.Tensor", (torch.ones(6, 4).t(), torch.ones(4, 6)))
    x, y = torch.randn(30, 9)[:, :4].t(), torch.randn(4, 30)
    assert torch.equal(add.run(x, y)[0], x + y)
    with pytest.raises(ProgramError, match="arg0"):
        add.run(torch.randn(30, 8)[:, ::2].t(), y)  # no element lies right behind another


def test_output_of_another_dtype(operator):
    x, room = torch.randn(4, 6), torch.zeros(4, 6, dtype=torch.bfloat16)
    out = operator("aten.mul.Tensor", (x, x), out=room).run(x, x, out=room)[0]
    assert torch.equal(out, (x * x).bfloat16())


# ---- errors


def test_unknown_operator():
    with pytest.raises(CompileError, match="there is no operator"):
        compile_operator("aten.nothing.default", [], {}, chip=CHIP)


@pytest.mark.parametrize(
    ("target", "args"),
    [
        ("aten.nonzero.default", (torch.ones(3),)),  # as many elements as the data says
        ("aten._linalg_svd.default", (torch.ones(3, 3),)),  # no conversion
        ("aten.add.Tensor", (torch.ones(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))),
        ("aten.mm.default", (torch.ones(3, 4), torch.ones(3, 4))),  # shapes that do not fit
    ],
)
def test_errors_are_compile_errors(target, args):
    with pytest.raises(CompileError):
        compile_operator(target, [spec(x) for x in args], {}, chip=CHIP)


def test_two_threads():
    args = [spec(torch.ones(3, 4)), spec(torch.ones(3, 4))]
    results = {}

    def work(name):
        results[name] = compile_operator(f"aten.{name}.Tensor", args, {}, chip=CHIP)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("add", "mul", "sub")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, data in results.items():
        assert data == compile_operator(f"aten.{name}.Tensor", args, {}, chip=CHIP)


def test_the_caller_may_have_modes_of_its_own():
    """As PyTorch's dispatcher has, from where operators are compiled."""
    args = [spec(torch.ones(3, 4)), spec(torch.ones(3, 4))]
    expected = compile_operator("aten.add.Tensor", args, {}, chip=CHIP)
    with torch.inference_mode(), torch.device("meta"):
        assert compile_operator("aten.add.Tensor", args, {}, chip=CHIP) == expected
