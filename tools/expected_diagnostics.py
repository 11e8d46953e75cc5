"""Diagnostics of a run, and their comparison with `expected-error` annotations.

`// expected-error@+1 {{text}}` expects, on the next line of the file, an error that
contains `text`. As in mlir-opt: error, warning, remark, note; `-re` for a regular
expression; `@+N`, `@-N`, `@above`, `@below`, `@unknown` for another line.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from opennpu.dialects.diagnostics import CompileError
from torch_mlir import ir

ANNOTATION = re.compile(
    r"expected-(error|warning|remark|note)(-re)?(?:@([+-]\d+|above|below|unknown))?\s*\{\{(.*?)\}\}"
)
POSITION = re.compile(r'(?:"([^"]*)"|([^\s"():]+)):(\d+)(?::(\d+))?')


@dataclass(frozen=True)
class Diagnostic:
    """Severity, text and place; `line` is None where the place is unknown."""

    severity: str
    message: str
    file: str = ""
    line: int | None = None
    column: int = 0

    def __str__(self) -> str:
        place = "<unknown>" if self.line is None else f"{self.file}:{self.line}:{self.column}"
        return f"{place}: {self.severity}: {self.message}"


def from_mlir(diagnostic: ir.Diagnostic | ir.DiagnosticInfo) -> list[Diagnostic]:
    """The diagnostic, then its notes."""
    severity = str(diagnostic.severity).rpartition(".")[2].lower()
    own = _located(severity, diagnostic.message, str(diagnostic.location))
    return [own, *(note for n in diagnostic.notes for note in from_mlir(n))]


def from_compile_error(error: CompileError) -> list[Diagnostic]:
    """One error for each problem."""
    return [_located("error", str(problem), problem.where) for problem in error.problems]


def _located(severity: str, message: str, where: str) -> Diagnostic:
    match = POSITION.search(where)
    if not match:
        return Diagnostic(severity, message)
    quoted, plain, line, column = match.groups()
    return Diagnostic(severity, message, quoted or plain, int(line), int(column or 0))


@dataclass(frozen=True)
class Expected:
    """One annotation; `line` is None for @unknown."""

    severity: str
    pattern: re.Pattern
    line: int | None
    written: int

    def matches(self, diagnostic: Diagnostic) -> bool:
        return (
            self.severity == diagnostic.severity
            and self.line == diagnostic.line
            and self.pattern.search(diagnostic.message) is not None
        )


def annotations(text: str) -> list[Expected]:
    """The annotations of a source text."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        for severity, is_regex, at, body in ANNOTATION.findall(line):
            offset = {"": 0, "above": -1, "below": 1}.get(at)
            target = None if at == "unknown" else number + (int(at) if offset is None else offset)
            pattern = re.compile(body if is_regex else re.escape(body), re.DOTALL)
            found.append(Expected(severity, pattern, target, number))
    return found


def compare(expected: Iterable[Expected], seen: Iterable[Diagnostic]) -> list[str]:
    """What differs, one text a difference; notes need not be expected."""
    problems, open_ = [], list(expected)
    for diagnostic in seen:
        match = next((e for e in open_ if e.matches(diagnostic)), None)
        if match:
            open_.remove(match)
        elif diagnostic.severity != "note":
            problems.append(f"unexpected {diagnostic.severity}: {diagnostic}")
    for e in open_:
        problems.append(f"line {e.written}: expected {e.severity} was not produced: {e.pattern.pattern}")
    return problems
