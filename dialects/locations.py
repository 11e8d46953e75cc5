"""Source locations as text a person reads."""

from torch_mlir import ir


def describe(location: ir.Location) -> str:
    """`model.layers.0.mlp (llama.py:118)`; fused places joined by " + "; "" when unknown."""
    match location:
        case ir.NameLoc():
            place = describe(location.child_loc)
            return f"{location.name_str} ({place})" if place else location.name_str
        case ir.FileLineColLoc():
            return f"{location.filename}:{location.start_line}"
        case ir.FusedLoc():
            return " + ".join(dict.fromkeys(filter(None, map(describe, location.locations))))
        case ir.CallSiteLoc():
            return describe(location.callee)
    return ""
