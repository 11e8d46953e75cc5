"""torch.compile for the chip: `torch.compile(model, backend="opennpu")` (docs/torch_compile.md)."""

from opennpu.compiler.dynamo.backend import Options as Options
from opennpu.compiler.dynamo.backend import opennpu_backend as opennpu_backend
from opennpu.compiler.dynamo.reports import clear_report as clear_report
from opennpu.compiler.dynamo.reports import report as report
