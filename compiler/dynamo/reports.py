"""What became of the graphs that torch.compile handed over."""

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class PartReport:
    """One program: how many operators and kernels it has, its packed weights, what compiling took."""

    operators: int
    kernels: int
    weight_bytes: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.operators} operators in {self.kernels} kernels, "
            f"{self.weight_bytes / 1e6:.1f} MB of packed weights, {self.seconds:.1f} s"
        )


@dataclass(frozen=True)
class Eager:
    """An operator that is in no program, and why."""

    operator: str
    where: str  # module path, source file and line
    reason: str
    costs: bool  # False for views, and for what the model computes on the host

    def __str__(self) -> str:
        return f"{self.operator}: {self.reason}" + (f"\n      at {self.where}" if self.where else "")


@dataclass(frozen=True)
class GraphReport:
    """A graph: inference, or the forward or backward half of training."""

    kind: str
    parts: tuple[PartReport, ...]
    eager: tuple[Eager, ...]

    def __str__(self) -> str:
        lines = [f"{self.kind} graph: {len(self.parts)} programs, {len(self.eager)} operators between them"]
        lines += [f"  program {i}: {part}" for i, part in enumerate(self.parts)]
        counted = Counter(str(eager) for eager in self.eager)
        lines += [f"  {text}" + (f" ({n} times)" if n > 1 else "") for text, n in counted.items()]
        return "\n".join(lines)


class Report(tuple[GraphReport, ...]):
    """All graphs so far, the oldest first; its text is for people."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "nothing was compiled"


_graphs: list[GraphReport] = []


def add(graph: GraphReport) -> None:
    _graphs.append(graph)


def report() -> Report:
    """What `torch.compile(backend="opennpu")` compiled in this process, what it split off, and why."""
    return Report(_graphs)


def clear_report() -> None:
    """Forgets all graphs so far."""
    _graphs.clear()
