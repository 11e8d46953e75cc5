"""A chip with round costs, and programs of a few instructions for it."""

from dataclasses import replace

from image_builder import CHIP, image, op
from opennpu.dialects.isa.encoding import Affine, Instruction, TileOperand
from opennpu.runtime.chip import Chip, ChipTiming
from opennpu.runtime.timing import TimingReport, time_image

COSTS = ChipTiming(
    issue_cycles=1,
    queue_depth=16,
    scalar_load_cycles=50,
    flag_cycles=5,
    barrier_cycles=20,
    hbm_gbps=64,  # 64 bytes a cycle at 1000 MHz
    hbm_burst_bytes=64,
    hbm_run_overhead_bytes=64,
    dma_bytes_per_cycle=64,
    dma_latency_cycles=100,
    dma_run_cycles=1,
    dma_index_cycles=8,
    matrix_bf16_row_cycles=1,
    matrix_f32_row_cycles=4,
    matrix_load_row_cycles=1,
    matrix_latency_cycles=30,
    vector_lanes=16,
    vector_special_lanes=4,
    vector_startup_cycles=10,
    dma_share_cycles=7,
)


_ONE_RUN = {"n0": 1, "n1": 1, "n2": 1}


def chip(cores: int = 1, **costs: int) -> Chip:
    """`cores` cores at 1000 MHz with the costs above, some changed; any may share a load."""
    return replace(CHIP, cores=cores, share_cores=cores, clock_mhz=1000, timing=replace(COSTS, **costs))


def run(
    *body: Instruction, on: Chip | None = None, args: tuple = (), kinds: tuple = (), locs: tuple = ("test",)
) -> TimingReport:
    """Times `body` and a halt."""
    on = on or chip()
    return time_image(on, image(*body, args=kinds, locs=locs, chip=on), list(args))


def load(nbytes: int | Affine = 4096, **fields) -> Instruction:
    """A dma_load of one run."""
    return op("dma_load", **{**_ONE_RUN, "bytes": nbytes, **fields})


def store(nbytes: int, **fields) -> Instruction:
    return op("dma_store", **{**_ONE_RUN, "bytes": nbytes, **fields})


def fill(elements: int | Affine = 160, at: int = 0) -> Instruction:
    """160 elements: 20 cycles, 10 to start, 16 elements a cycle."""
    return op("v_fill", dst=TileOperand("spm", "f32", Affine(at), 0, 0, 4), d0=1, d1=1, d2=elements)


def set_flag(queue: str, flag: int | Affine) -> Instruction:
    return op("set_flag", queue=queue, flag=flag)


def wait_flag(queue: str, flag: int | Affine) -> Instruction:
    return op("wait_flag", queue=queue, flag=flag)
