"""npu-validate: each level of the stack beside something independent of it."""
