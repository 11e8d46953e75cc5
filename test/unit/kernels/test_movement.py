"""Movement kernels against PyTorch: reshape, transpose, slice, broadcast, concat, gather, take."""

import pytest
import torch
from opennpu.dialects import npu
from opennpu.dialects.diagnostics import CompileError
from opennpu.dialects.symbols import Sym
from tile_cases import Compiled, random

T = Sym.of("T")


def same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("element", ["bf16", "i8", "i64", "i1"])
@pytest.mark.parametrize("perm", [(1, 0, 2), (0, 2, 1), (2, 1, 0), (2, 0, 1), (1, 2, 0)])
def test_transpose(kernel_of, perm, element):
    specs = {"x": (["T", 3, 70], element)}
    kernel = kernel_of(lambda x: npu.transpose(x, perm), specs, {"T": (0, None)})
    for tokens in (0, 1, 67):
        x = random((tokens, 3, 70), element)
        same(kernel({"T": tokens}, x=x)[0], x.permute(perm))


def test_transpose_of_four_dimensions_in_tiles(kernel_of):
    kernel = kernel_of(lambda x: npu.transpose(x, (3, 1, 2, 0)), {"x": ([90, 5, 3, 400], "f32")})
    x = random((90, 5, 3, 400), "f32")
    same(kernel(x=x)[0], x.permute(3, 1, 2, 0))


def test_a_transposed_operand_is_read_in_long_runs():
    """The tile keeps the order of HBM: runs of many elements, not one by one."""
    kernel = Compiled(lambda x: npu.unary("neg", npu.transpose(x, (1, 0))), {"x": ([64, 64], "bf16")})
    x = random((64, 64), "bf16")
    same(kernel(x=x)[0], -x.T)
    loads = [line for line in str(kernel.module).splitlines() if "dma_load" in line]
    assert len(loads) == 1
    assert kernel.machine.executed == kernel.chip.cores * 3


@pytest.mark.parametrize(("offset", "size", "stride"), [(0, 5, 1), (3, 4, 1), (1, 3, 2), (9, 1, 1)])
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_slice(kernel_of, dim, offset, size, stride):
    kernel = kernel_of(lambda x: npu.slice_(x, dim, offset, size, stride), {"x": ([10, 10, 10], "bf16")})
    x = random((10, 10, 10), "bf16")
    index = torch.arange(offset, offset + size * stride, stride)
    same(kernel(x=x)[0], x.index_select(dim, index))


def test_broadcast(kernel_of):
    kernel = kernel_of(
        lambda x: npu.broadcast_to(x, [2, T, 3, 5]), {"x": (["T", 1, 5], "bf16")}, {"T": (0, 9)}
    )
    for tokens in (0, 1, 9):
        x = random((tokens, 1, 5), "bf16")
        same(kernel({"T": tokens}, x=x)[0], x.expand(2, tokens, 3, 5))


def test_reshape_of_a_transposed_tensor_copies(kernel_of):
    """Heads first, then flat again: the way out of attention."""

    def build(x):
        return npu.reshape(npu.transpose(npu.reshape(x, [T, 4, 6]), (1, 0, 2)), [T * 4, 6])

    kernel = kernel_of(build, {"x": (["T", 24], "bf16")}, {"T": (0, 512)})
    for tokens in (0, 1, 11):
        x = random((tokens, 24), "bf16")
        same(kernel({"T": tokens}, x=x)[0], x.view(tokens, 4, 6).permute(1, 0, 2).reshape(-1, 6))


def test_ops_read_views_without_copies():
    """Slices, transposes and splits before an element-wise op cost no kernel."""

    def build(x):
        halves = [npu.reshape(npu.slice_(x, 1, start, 12), [T, 3, 4]) for start in (0, 12)]
        return npu.binary("add", *(npu.transpose(h, (1, 0, 2)) for h in halves))

    kernel = Compiled(build, {"x": (["T", 24], "f32")}, {"T": (0, 512)})
    assert str(kernel.module).count('"npu_tile.kernel"') == 1
    for tokens in (0, 1, 11):
        x = random((tokens, 24), "f32")
        a, b = (half.reshape(tokens, 3, 4).transpose(0, 1) for half in x.chunk(2, 1))
        same(kernel({"T": tokens}, x=x)[0], a + b)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_concat(dim):
    specs = {"x": ([3, "T", 5], "bf16"), "y": ([3, "T", 5], "bf16")}

    def build(x, y):
        return npu.concat([x, npu.slice_(y, dim if dim != 1 else 0, 1, 2), x][:: 2 if dim == 1 else 1], dim)

    kernel = Compiled(build, specs, {"T": (0, 50)})
    assert str(kernel.module).count('"npu_tile.kernel"') == 1
    for tokens in (0, 1, 8):
        x, y = random((3, tokens, 5), "bf16"), random((3, tokens, 5), "bf16", 1)
        parts = [x, x] if dim == 1 else [x, y.narrow(dim, 1, 2), x]
        same(kernel({"T": tokens}, x=x, y=y)[0], torch.cat(parts, dim))


@pytest.mark.parametrize("index_element", ["i64", "i32", "i8"])
@pytest.mark.parametrize("row", [(), (7,), (2, 3)])
def test_gather(kernel_of, row, index_element):
    specs = {"table": ([20, *row], "bf16"), "index": ([2, "T"], index_element)}
    kernel = kernel_of(npu.gather, specs, {"T": (0, None)})
    for tokens in (0, 1, 33):
        table = random((20, *row), "bf16")
        index = random((2, tokens), index_element, 1).abs()
        same(kernel({"T": tokens}, table=table, index=index)[0], table[index.long()])


def test_gather_of_rows_longer_than_scratchpad(kernel_of):
    kernel = kernel_of(npu.gather, {"table": ([4, 300_000], "bf16"), "index": ([3], "i64")})
    table, index = random((4, 300_000), "bf16"), torch.tensor([3, 0, 3])
    same(kernel(table=table, index=index)[0], table[index])


def test_gather_from_a_transposed_table_and_by_a_slice_of_indices(kernel_of):
    def build(table, index):
        return npu.gather(npu.transpose(table, (1, 0)), npu.slice_(index, 0, 0, 4, 2))

    kernel = kernel_of(build, {"table": ([6, 9], "f32"), "index": ([8], "i32")})
    table, index = random((6, 9), "f32"), torch.randint(0, 9, (8,), dtype=torch.int32)
    same(kernel(table=table, index=index)[0], table.T[index[::2].long()])


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_take(kernel_of, shape):
    specs = {"x": ([*shape, 10], "bf16"), "index": ([*shape, "T"], "i64")}
    kernel = kernel_of(npu.take, specs, {"T": (0, None)})
    for tokens in (0, 1, 33):
        x = random((*shape, 10), "bf16")
        index = random((*shape, tokens), "i64", 1).abs()
        same(kernel({"T": tokens}, x=x, index=index)[0], torch.gather(x, -1, index))


def test_take_from_a_row_that_does_not_fit_is_refused():
    with pytest.raises(CompileError, match=r"npu.take(.|\n)*choose a chip"):
        Compiled(npu.take, {"x": ([2, 10_000_000], "bf16"), "index": ([2, 3], "i64")})
