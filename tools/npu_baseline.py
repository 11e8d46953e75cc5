"""npu-baseline: what a model computes in plain PyTorch on this machine, as a file."""

import sys

from opennpu.tools.baseline.command import main

if __name__ == "__main__":
    sys.exit(main())
