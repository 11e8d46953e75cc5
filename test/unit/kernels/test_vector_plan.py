"""Tiles, loops and buffers of vector programs: what is loaded where, what is shared, what fits."""

from dataclasses import replace

import pytest
from opennpu.compiler.kernels import norm
from opennpu.compiler.kernels.values import SlotBase, View
from opennpu.compiler.kernels.vector_plan import DoesNotFit, Plan, make_plan
from opennpu.compiler.kernels.vector_program import VectorProgram
from opennpu.compiler.kernels.views import transpose
from opennpu.dialects.symbols import Sym
from opennpu.runtime.chip import Chip

T = Sym.of("T")
RANGES = {"T": (1, 4096)}
CHIPS = [Chip.load("npu1-lite"), Chip.load("npu1")]


def tensor(shape, dtype="bf16"):
    return View.contiguous(SlotBase(0), shape, dtype)


def plan(program: VectorProgram, chip: Chip = CHIPS[0]) -> Plan:
    return make_plan(program, RANGES, chip.cores, chip.spm_bytes)


def rms_norm(width: int) -> VectorProgram:
    p = VectorProgram()
    x, w = p.input(tensor([T, width])), p.input(tensor([width]))
    p.output(norm.rms_norm(p, x, w, 1e-5, "bf16"), tensor([T, width]))
    return p


def bytes_used(made: Plan, copies: int) -> int:
    slots = set(made.slots.values())
    return sum(s.bytes * (copies if s.level and s.by_dma else 1) for s in slots)


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
@pytest.mark.parametrize("width", [64, 576, 4096, 8192])
def test_rows_fill_the_scratchpad_with_room_for_two_buffers(chip, width):
    made = plan(rms_norm(width), chip)
    rows, row = made.axes
    assert (row.tile, row.looped) == (width, False)
    assert rows.split and not row.split
    assert bytes_used(made, copies=2) <= chip.spm_bytes
    least = -(-4096 // chip.cores)
    assert rows.tile == least or bytes_used(made, copies=2) > chip.spm_bytes // 4


def test_what_all_rows_share_is_outside_the_loop():
    made = plan(rms_norm(576))
    outside = [node.kind for node in made.order if made.levels[node] == 0]
    assert sorted(outside) == ["fill", "fill", "input"]


def test_buffers_are_used_again():
    """A chain of element-wise ops lives in one buffer, rms_norm in x's, an f32 copy and a column."""
    p = VectorProgram()
    x = p.input(tensor([T, 64]))
    p.output(p.unary("exp", p.unary("tanh", p.unary("neg", x))), tensor([T, 64]))
    assert len(set(plan(p).slots.values())) == 1
    inside = {slot for slot in plan(rms_norm(576)).slots.values() if slot.level}
    assert len(inside) == 3


def test_a_value_that_is_stored_is_not_overwritten():
    p = VectorProgram()
    y = p.unary("exp", p.input(tensor([T, 64])))
    z = p.unary("neg", y)
    p.output(y, tensor([T, 64]))
    p.output(z, tensor([T, 64]))
    made = plan(p)
    assert made.slots[y] is not made.slots[z]


def test_agreeing_dimensions_are_one_axis():
    p = VectorProgram()
    p.output(p.unary("exp", p.input(tensor([T, 3, 8]))), tensor([T, 3, 8]))
    (axis,) = plan(p).axes
    assert axis.extent == 24 * T
    assert axis.split


def test_repeated_dimensions_stay_apart():
    p = VectorProgram()
    y = p.binary("mul", p.input(tensor([T, 3, 8])), p.input(tensor([T, 1, 8])))
    p.output(y, tensor([T, 3, 8]))
    assert [axis.extent for axis in plan(p).axes] == [T, 3, 8]


def test_a_transposed_input_keeps_its_order_in_scratchpad():
    p = VectorProgram()
    x = p.input(transpose(tensor([64, 32]), (1, 0)))
    y = p.unary("neg", x)
    p.output(y, tensor([32, 64]))
    made = plan(p)
    assert made.layout(x)[0] == 2 and made.layout(y)[1] == 2


def test_the_tile_falls_back_to_single_buffers():
    chip = replace(CHIPS[0], spm_kib=16)
    made = plan(rms_norm(1900), chip)
    assert made.axes[0].tile == 1
    assert bytes_used(made, copies=1) <= chip.spm_bytes < bytes_used(made, copies=2)


def test_a_row_that_does_not_fit():
    with pytest.raises(DoesNotFit, match=r"need \d+ bytes of scratchpad"):
        plan(rms_norm(100_000), replace(CHIPS[0], spm_kib=16))
