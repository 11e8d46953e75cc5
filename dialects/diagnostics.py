"""Errors that name the op, its place in the model, and the remedy."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the user's model or input."""

    what: str
    where: str = ""  # module path, source file and line, where known
    remedy: str = ""

    def __str__(self) -> str:
        text = self.what
        if self.where:
            text += f"\n    at {self.where}"
        if self.remedy:
            text += f"\n    {self.remedy}"
        return text


class CompileError(Exception):
    """The model cannot be compiled. Holds every problem that was found in the run."""

    def __init__(self, *problems: Problem | str):
        self.problems = [p if isinstance(p, Problem) else Problem(p) for p in problems]
        super().__init__("\n".join(str(p) for p in self.problems))
