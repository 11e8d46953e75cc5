"""npu-export: a Hugging Face directory to a torch.export archive, through SGLang's model class."""

import argparse
import sys
import time
from pathlib import Path

from opennpu.compiler.paused_gc import paused_gc
from opennpu.tools.arguments import output_file
from opennpu.tools.progress import Progress

_EPILOG = """examples:
  npu-export build/demo/smollm2 -o model.pt
  npu-export Llama-3.1-8B -o model.pt --dummy-weights     to compile without 16 GB of memory
"""


@paused_gc()
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="npu-export",
        description="Exports a Hugging Face model, through SGLang's loader and model class, for npu-compile.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model_dir", type=Path, help="directory with config.json and *.safetensors")
    parser.add_argument("-o", "--output", type=output_file, required=True, help="the archive, model.pt")
    parser.add_argument("--dtype", choices=["bf16", "fp32"], default="bf16", help="default: bf16")
    parser.add_argument(
        "--dummy-weights", action="store_true", help="export the shapes of the weights only, from config.json"
    )
    args = parser.parse_args(argv)
    from opennpu.dialects.diagnostics import CompileError

    try:
        export(args)
    except CompileError as error:
        print(f"npu-export: error: {error}", file=sys.stderr)
        return 1
    return 0


def export(args: argparse.Namespace) -> None:
    start = time.perf_counter()
    with Progress("npu-export", ["load", "trace", "write"]) as progress:
        progress.stage("load")
        from opennpu.sglang_integration.loader import load_model

        model = load_model(args.model_dir, args.dtype, args.dummy_weights)
        loaded = time.perf_counter()
        progress.stage("trace")
        from opennpu.compiler.frontend.archive import save_archive
        from opennpu.sglang_integration.export import export_model

        archive = export_model(model)
        progress.stage("write")
        save_archive(args.output, archive)
    exported = time.perf_counter()
    print(
        f"{args.output}: {archive.metadata['model']['architecture']}, {args.dtype}, "
        f"loaded in {loaded - start:.1f} s, exported in {exported - loaded:.1f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
