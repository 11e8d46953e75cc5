"""Debugging: what a program shows of its inside."""

from opennpu.dialects.npu.dialect import NpuOp, Tensor, WritesKV, require
from torch_mlir.ir import IntegerAttr, StringAttr


class CaptureOp(NpuOp, name="capture", traits=[WritesKV]):
    """x: copies x to row `layer` of the program's output `output`, [rows, …x]. Made by `npu-capture`.

    In `npu.repeat` the row is the repeat's layer index + `layer`. Rows that nothing is copied to are
    undefined. Captures to one output have one type.
    """

    x: Tensor
    output: StringAttr
    layer: IntegerAttr

    def check(self):
        require(self.layer.value >= 0, f"layer {self.layer.value} is negative")
        require(bool(self.output.value), "output has no name")
