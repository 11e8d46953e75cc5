"""lit tests: npu-opt and npu-compile on small inputs, checked with FileCheck."""

import os
import sys

import lit.formats

config.name = "OpenNPU"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir", ".test"]
config.excludes = ["Inputs"]
config.test_source_root = os.path.dirname(__file__)
config.test_exec_root = os.path.join(config.test_source_root, "..", "..", "build", "lit")

# npu-opt, FileCheck, split-file and not lie next to the Python that runs lit.
tools = os.path.dirname(sys.executable)
config.environment["PATH"] = os.pathsep.join([tools, os.environ.get("PATH", "")])
