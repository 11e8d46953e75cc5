"""Attention operators compiled as programs of their own, on the chip, against the host."""

from functools import partial

import pytest
import torch
from opennpu.compiler.frontend import ops
from opennpu.compiler.operator import TensorSpec, compile_operator
from opennpu.runtime import Device, PagePool, Program
from opennpu.runtime.chip import Chip
from opennpu.runtime.container import Container

# Probabilities are rounded to bf16 (2^-9 of each value), and so is the result; sums run in f32.
TOLERANCE = {torch.bfloat16: 2**-7, torch.float32: 1e-5}
CHIP = Chip.load("npu1-lite")
SDPA = "aten.scaled_dot_product_attention.default"


class Operator:
    """An operator compiled for tensors like these arguments, run under the race checker."""

    def __init__(self, folder, target, args, options=None):
        data = compile_operator(target, [self._spec(x) for x in args], options or {}, chip=CHIP)
        path = folder / "operator.npu"
        path.write_bytes(data)
        container = Container.open(path)
        self.signature = container.signature
        self.device = Device(CHIP, engine="reference", race_check=True, hbm_bytes=1 << 28)
        self.program = Program(self.device, container.program, self.signature)

    @property
    def kernels(self):
        return [entry["kernel"] for entry in self.signature.report]

    def __call__(self, *args, kv=None):
        tensors = [x for x in args if isinstance(x, torch.Tensor)]
        pages = self.signature.kv.tensors if self.signature.kv else ()
        inputs = {f"arg{i}": x for i, x in enumerate(tensors) if f"arg{i}" not in pages}
        return self.program.run(inputs, kv)["output"]

    @staticmethod
    def _spec(x):
        if not isinstance(x, torch.Tensor):
            return x
        return TensorSpec(x.dtype, tuple(x.shape), None if x.is_contiguous() else x.stride())


@pytest.fixture
def operator(tmp_path):
    return partial(Operator, tmp_path)


def randn(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + seed)).to(dtype)


def close(y, expected):
    largest = 4  # of what is averaged
    torch.testing.assert_close(y.float(), expected.float(), rtol=0, atol=TOLERANCE[y.dtype] * largest)


BF16 = {"dtype": torch.bfloat16}
DENSE = [
    # arguments as of the operator, options
    ([randn(2, 4, 9, 16, seed=i) for i in range(3)], {}),
    ([randn(2, 9, 4, 16, seed=i, **BF16).transpose(1, 2) for i in range(3)], {}),
    ([randn(9, 16, seed=i) for i in range(3)], {}),
    ([randn(3, 9, 16, seed=i) for i in range(3)] + [randn(9, 9)], {}),
    ([randn(2, 2, 3, 9, 16, seed=i) for i in range(3)] + [randn(3, 1, 9) > 0], {"scale": 0.3}),
    ([randn(2, 4, 9, 16), randn(2, 2, 7, 16), randn(2, 2, 7, 5)], {"enable_gqa": True}),
    ([randn(1, 4, 9, 16), randn(2, 1, 9, 16), randn(1, 4, 9, 16)], {"is_causal": True}),
    ([randn(2, 1, 9, 16), randn(2, 4, 7, 16), randn(2, 4, 7, 16), randn(9, 1) > 0], {}),
]


@pytest.mark.parametrize(("args", "options"), DENSE)
def test_dense(operator, args, options):
    compiled = operator(SDPA, args, options)
    close(compiled(*args), torch.nn.functional.scaled_dot_product_attention(*args, **options))
    assert compiled.kernels.count("dense_attention") == 1


def test_one_program_for_all_lengths_and_batches(operator):
    compiled = operator(SDPA, [randn(2, 4, 9, 16), randn(2, 4, 7, 16), randn(2, 4, 7, 16)])
    assert compiled.kernels == ["dense_attention"]
    for batch, rows, keys in ((1, 1, 1), (3, 140, 33), (2, 1, 200)):
        args = randn(batch, 4, rows, 16), randn(batch, 4, keys, 16), randn(batch, 4, keys, 16)
        close(compiled(*args), torch.nn.functional.scaled_dot_product_attention(*args))


def test_flash_attention(operator):
    """Strided queries; one program for any number of sequences of any lengths."""
    target, options = "opennpu.flash_attention.default", {"causal": True, "window_left": 40, "softcap": 5.0}

    def arguments(rows, keys):
        q = randn(sum(rows), 8, 32, **BF16)[:, ::2]
        k, v = (randn(sum(keys), 2, 32, seed=i, **BF16) for i in range(2))
        return q, k, v, *(torch.tensor([0, *n], dtype=torch.int32).cumsum(0).int() for n in (rows, keys))

    compiled = operator(target, arguments([3, 4], [5, 6]), options)
    assert compiled.kernels == ["varlen_attention"]
    for lengths in (([3, 4], [5, 6]), ([130, 0, 1], [200, 9, 70])):
        args = arguments(*lengths)
        close(compiled(*args), ops.flash_attention(*args, **options))


def radix_arguments(lengths, new, page_size, pages, dtype):
    """Everything but the caches: q, k, v and slots, table, lengths; pages in descending order."""
    tokens, table = sum(new), torch.arange(pages - 1, -1, -1, dtype=torch.int32)
    width = -(-max(lengths) // page_size)
    table = table[: len(lengths) * width].view(len(lengths), width)
    at = torch.cat([torch.arange(n - c, n) for n, c in zip(lengths, new, strict=True)])
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(new))
    slots = table[owner, at // page_size].long() * page_size + at % page_size
    own = [randn(tokens, heads, d, dtype=dtype) for heads, d in ((4, 32), (2, 32), (2, 16))]
    return own, (slots, table, torch.tensor(lengths))


@pytest.mark.parametrize("layout", ["paged", "slots"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_radix_attention(operator, layout, dtype):
    """Two sequences, in a prefill of their beginnings, a second one, and a step of decoding."""
    page_size, pages, options = 4, 32, {"window_left": 9}
    chunks = ([7, 30], [7, 30]), ([8, 33], [1, 3]), ([9, 34], [1, 1])
    caches = randn(pages, page_size, 2, 32, dtype=dtype), randn(pages, page_size, 2, 16, dtype=dtype)
    own, rest = radix_arguments(*chunks[0], page_size, pages, dtype)
    like = [*own, *caches, *rest, torch.tensor([0, 7, 37])]
    extend = operator("opennpu.radix_attention_extend.default", like, options)
    assert extend.kernels == ["kv_write", "paged_attention"]
    pool = PagePool(extend.device, extend.signature.kv, page_size, pages, layout)
    for view, cache in zip(pool.views(0), caches, strict=True):
        view.copy_(cache)
    for lengths, new in chunks:
        own, rest = radix_arguments(lengths, new, page_size, pages, dtype)
        starts = torch.tensor([0, *new]).cumsum(0)
        y = extend(*own, *caches, *rest, starts, kv=pool)
        close(y, ops.radix_attention_extend(*own, *caches, *rest, starts, **options))
        for view, cache in zip(pool.views(0), caches, strict=True):
            assert torch.equal(view, cache)


def test_radix_attention_decode(operator):
    page_size, pages = 16, 8
    own, rest = radix_arguments([40, 3], [1, 1], page_size, pages, torch.float32)
    caches = randn(pages, page_size, 2, 32), randn(pages, page_size, 2, 16)
    decode = operator("opennpu.radix_attention_decode.default", [*own, *caches, *rest])
    pool = PagePool(decode.device, decode.signature.kv, page_size, pages)
    for view, cache in zip(pool.views(0), caches, strict=True):
        view.copy_(cache)
    close(decode(*own, *caches, *rest, kv=pool), ops.radix_attention_decode(*own, *caches, *rest))
