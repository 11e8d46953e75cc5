"""The machine of docs/timing.md, stepped cycle by cycle: slow, simple, and written from the page alone.

It takes straight-line programs: a list of instructions, the same for every core, whose operands may
depend on r0, the core's number, and r1, how many there are.
"""

import math
from collections import deque
from dataclasses import dataclass, field

from opennpu.dialects.isa.encoding import Affine, Instruction
from opennpu.dialects.isa.table import ISA
from opennpu.runtime.chip import Chip

LIMIT = 1_000_000  # cycles
SIZES = {"f32": 4, "bf16": 2}
UNITS = {"mx_load": "shadow registers", "mx_mul": "array"}


@dataclass(eq=False)
class Move:
    """What a transfer moves, or one that several cores share."""

    bytes_left: float = 0.0  # of HBM time


@dataclass(eq=False)
class Job:
    """An instruction in a queue."""

    name: str
    queue: str
    values: dict
    unit: str = ""
    least: int = 0  # cycles that its unit is taken at least
    latency: int = 0
    move: Move = field(default_factory=Move)
    sharers: tuple[int, ...] = ()  # cores that share it
    banks: set[int] = field(default_factory=set)  # of the scratchpad
    bank_rate: float = 0.0  # bytes a cycle of each
    holds: int = 0  # them up to then
    started: int | None = None
    left_unit: int | None = None

    def completed(self, now: int) -> bool:
        return self.left_unit is not None and now >= self.left_unit + self.latency


class Machine:
    def __init__(self, chip: Chip, program: list[Instruction]):
        self.chip, self.now = chip, 0
        self.cores = [Core(chip, number, program) for number in range(chip.cores)]

    def run(self) -> int:
        """The cycles until every core has halted."""
        resume = None
        while any(core.program for core in self.cores):
            self.now += 1
            assert self.now < LIMIT, "the program does not end"
            self.move_bytes()
            if resume == self.now:
                for core in self.cores:
                    core.at_barrier, core.ready = False, self.now
                resume = None
            self.step()
            if resume is None and all(core.at_barrier and core.drained(self.now) for core in self.cores):
                resume = self.now + self.chip.timing.barrier_cycles
        while not all(core.drained(self.now) for core in self.cores):
            self.now += 1
            self.move_bytes()
            self.step()
        return self.now

    def step(self) -> None:
        for core in self.cores:
            core.step(self.now)
        while any([self.meet(core) for core in self.cores]):
            pass

    def meet(self, core: "Core") -> bool:
        """Starts the shared load that a core has come to if its other cores have come to it, too."""
        job = core.arrived()
        others = [self.cores[number] for number in job.sharers] if job else []
        jobs = [other.arrived() for other in others]
        if not job or any(other is None or other.sharers != job.sharers for other in jobs):
            return False
        for other, its in zip(others, jobs, strict=True):
            its.move = job.move
            other.launch(other.queues["load"], self.now)
            other.start_all(self.now)
        return True

    def move_bytes(self) -> None:
        """One cycle of HBM: an equal share for each transfer on its way."""
        moves = dict.fromkeys(job.move for core in self.cores for job in core.running)
        transfers = [move for move in moves if move.bytes_left > 1e-6]
        bandwidth = self.chip.timing.hbm_gbps * 1000 / self.chip.clock_mhz
        for move in transfers:
            move.bytes_left -= min(self.chip.timing.dma_bytes_per_cycle, bandwidth / len(transfers))


class Core:
    def __init__(self, chip: Chip, number: int, program: list[Instruction]):
        self.chip, self.costs, self.number = chip, chip.timing, number
        self.program = deque([*program, Instruction("halt")])
        self.queues = {name: deque() for name in ("load", "store", "matrix", "vector")}
        self.running: list[Job] = []  # started, not completed
        self.holders: list[Job] = []  # of banks
        self.flags: dict[int, list[int]] = {}  # times from which a wait may take them
        self.ready = 0  # the sequencer issues nothing up to here
        self.at_barrier = False
        self.tile, self.row_cycles, self.element = (0, 0), 0, 0

    def drained(self, now: int) -> bool:
        return not any(self.queues.values()) and all(job.completed(now) for job in self.running)

    def step(self, now: int) -> None:
        for job in self.running:
            if job.left_unit is None and job.move.bytes_left <= 1e-6 and now >= job.started + job.least:
                job.left_unit = now
        if self.program and not self.at_barrier and now >= self.ready + self.costs.issue_cycles:
            self.issue(now)
        self.start_all(now)
        self.running = [job for job in self.running if not job.completed(now)]

    def start_all(self, now: int) -> None:
        while any([self.start(queue, now) for queue in self.queues.values()]):
            pass

    def issue(self, now: int) -> None:
        instruction = self.program[0]
        spec = ISA[instruction.name]
        values = {k: self.value(v) for k, v in instruction.fields.items()}
        if instruction.name == "barrier":
            self.at_barrier = True
        elif instruction.name != "halt":
            queue = values.get("queue", spec.engine)
            if len(self.queues[queue]) == self.costs.queue_depth:
                return
            self.queues[queue].append(self.job(instruction.name, queue, values))
        self.program.popleft()
        self.ready = now

    def value(self, field):
        """An operand on this core."""
        if not isinstance(field, Affine):
            return field
        return field.imm + sum(coef * {0: self.number, 1: self.chip.cores}[reg] for reg, coef in field.terms)

    def start(self, queue: deque[Job], now: int) -> bool:
        """Starts the head of the queue if it can."""
        if not queue:
            return False
        job = queue[0]
        mine = [other for other in self.running if other.queue == job.queue]
        if job.name == "set_flag":
            # Those behind it go on: it waits beside the queue.
            visible = SetLater([*mine], now, self.costs.flag_cycles)
            self.flags.setdefault(job.values["flag"], []).append(visible)
        elif job.name == "wait_flag":
            sets = self.flags.get(job.values["flag"], [])
            if not sets or not sets[0].seen(now):
                return False
            sets.pop(0)
        else:
            if not self.unit_is_free(job) or job.sharers:
                return False
            self.launch(queue, now)
            return True
        queue.popleft()
        return True

    def unit_is_free(self, job: Job) -> bool:
        needs = {"array": ("array", "shadow registers")}.get(job.unit, (job.unit,))
        mine = [other for other in self.running if other.queue == job.queue]
        return not any(other.unit in needs and other.left_unit is None for other in mine)

    def arrived(self) -> Job | None:
        """The shared load that could start if all its cores were there."""
        job = next(iter(self.queues["load"]), None)
        return job if job and job.sharers and self.unit_is_free(job) else None

    def launch(self, queue: deque[Job], now: int) -> None:
        """The head of the queue begins."""
        job = queue.popleft()
        job.started = now
        job.least = self.slowed(job, now)
        if job.move.bytes_left == 0 and job.least == 0:
            job.left_unit = now
        self.running.append(job)

    def job(self, name: str, queue: str, v: dict) -> Job:
        """An instruction with what it costs."""
        c, job = self.costs, Job(name, queue, v, UNITS.get(name, queue))
        match ISA[name].timing.formula:
            case "transfer":
                side = "ss" if name == "dma_load" else "ds"
                grid = [(i, j, k) for i in range(v["n0"]) for j in range(v["n1"]) for k in range(v["n2"])]
                starts = [i * v[side + "0"] + j * v[side + "1"] + k * v[side + "2"] for i, j, k in grid]
                self.transfer(job, [(start, v["bytes"]) for start in starts], 0)
                if v.get("share", 0) > 1:
                    self.share(job, v["share"], v["share_stride"])
            case "indirect":
                rows = [r * v["row_stride"] for r in range(v["rows"])]
                runs = [(i << 40 | row, v["row_bytes"]) for i in range(v["count"]) for row in rows]
                self.transfer(job, runs, v["count"])
            case "stationary":
                self.tile, self.element = (v["k"], v["n"]), SIZES[v["dtype"]]
                self.row_cycles = (
                    c.matrix_bf16_row_cycles if v["dtype"] == "bf16" else c.matrix_f32_row_cycles
                )
                job.least = v["k"] * c.matrix_load_row_cycles
            case "product":
                if min(v["rows"], *self.tile) > 0:
                    job.least, job.latency = v["rows"] * self.row_cycles, c.matrix_latency_cycles
            case "vector":
                elements = math.prod(max(v[d], 0) for d in ("d0", "d1", "d2"))
                job.least = c.vector_startup_cycles + -(-elements // c.vector_lanes) if elements else 0
        if c.spm_banks and (job.least or job.move.bytes_left):
            self.use_banks(job)
        return job

    def use_banks(self, job: Job) -> None:
        """All bytes of the instruction's operands in scratchpad, evenly over the banks that they lie in."""
        size, moved = self.chip.spm_bytes // self.costs.spm_banks, 0
        for address, steps, run in self.operands(job.name, job.values):
            reach = sum((count - 1) * stride for count, stride in steps)
            job.banks |= set(range(address // size, (address + reach + run - 1) // size + 1))
            moved += run * math.prod(count for count, _ in steps)
        if job.banks:
            job.bank_rate = moved / len(job.banks) / self.alone(job)

    def operands(self, name: str, v: dict):
        """(address, [(count, stride)], bytes of a run) of the instructions that the tests use."""
        match name:
            case "dma_load" | "dma_store":
                field, side = ("dst", "ds") if name == "dma_load" else ("src", "ss")
                yield v[field], [(v[f"n{i}"], v[f"{side}{i}"]) for i in range(3)], v["bytes"]
            case "dma_gather":
                yield (
                    v["dst"],
                    [(v["count"], v["dst_index_stride"]), (v["rows"], v["dst_row_stride"])],
                    v["row_bytes"],
                )
            case "mx_load":
                yield (
                    v["src"],
                    [(-(-v["n"] // self.chip.strip), v["stride"])],
                    v["k"] * self.chip.strip * self.element,
                )
            case "mx_mul":
                yield v["src"], [(v["rows"], v["src_stride"])], self.tile[0] * self.element
            case "v_fill":
                tile = v["dst"]
                strides = zip(("d0", "d1", "d2"), (tile.s0, tile.s1, tile.s2), strict=True)
                yield self.value(tile.addr), [(v[d], stride) for d, stride in strides], SIZES[tile.dtype]

    def alone(self, job: Job) -> float:
        """Cycles when nobody else is there."""
        bandwidth = self.costs.hbm_gbps * 1000 / self.chip.clock_mhz
        moving = job.move.bytes_left / min(self.costs.dma_bytes_per_cycle, bandwidth)
        return max(moving, job.least)

    def slowed(self, job: Job, now: int) -> int:
        """The least cycles of a job that starts; others that hold its banks leave it less of their ports."""
        alone = math.ceil(self.alone(job) - 1e-6)
        port, done, cycles = max(self.costs.spm_bank_bytes_per_cycle, job.bank_rate), 0.0, 0
        while done < alone - 1e-4:
            others = [other for other in self.holders if other.holds > now + cycles]
            wanted = [
                job.bank_rate + sum(o.bank_rate for o in others if bank in o.banks) for bank in job.banks
            ]
            speed = min(1, port / max(wanted)) if job.bank_rate else 1
            done, cycles = done + speed, cycles + 1
        job.holds = now + cycles
        self.holders = [*(other for other in self.holders if other.holds > now), job]
        return cycles if cycles > alone else job.least

    def transfer(self, job: Job, pieces: list[tuple[int, int]], indices: int) -> None:
        c, runs = self.costs, []
        for start, size in pieces:
            if size > 0 and runs and sum(runs[-1]) == start:
                runs[-1] = (runs[-1][0], runs[-1][1] + size)
            elif size > 0:
                runs.append((start, size))
        if runs:
            whole = sum(-(-size // c.hbm_burst_bytes) * c.hbm_burst_bytes for _, size in runs)
            job.move.bytes_left = whole + len(runs) * c.hbm_run_overhead_bytes
            job.least = len(runs) * c.dma_run_cycles + indices * c.dma_index_cycles
            job.latency = c.dma_latency_cycles * (2 if indices else 1)

    def share(self, job: Job, count: int, stride: int) -> None:
        first = self.number - self.number // stride % count * stride
        job.sharers = tuple(range(first, first + count * stride, stride))
        if job.least:
            job.latency += self.costs.dma_share_cycles


class SetLater:
    """A flag that is set once some jobs have completed."""

    def __init__(self, before: list[Job], issued: int, cycles: int):
        self.before, self.issued, self.cycles = before, issued, cycles

    def seen(self, now: int) -> bool:
        """Whether a wait_flag may take it."""
        then = now - self.cycles
        return then >= self.issued and all(job.completed(then) for job in self.before)
