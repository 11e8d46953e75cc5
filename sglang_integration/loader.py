"""SGLang's own loader and model class, without a server."""

import logging
import os
import warnings
from pathlib import Path

import torch
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.sglang_integration.model_folder import read_config
from opennpu.sglang_integration.weight_shapes import check_shapes
from torch import nn

DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
"""Our names of the dtypes a model can be exported in, and SGLang's."""


def load_model(model_dir: Path, dtype: str = "bf16", dummy_weights: bool = False) -> nn.Module:
    """The model of a Hugging Face directory as SGLang's module, on the host.

    dtype is a key of DTYPES. With dummy_weights only config.json is read, and the
    parameters are meta tensors: shapes without memory. SGLang's configuration is
    global, so a process loads one model. Raises CompileError.
    """
    config = read_config(model_dir, not dummy_weights, " With --dummy-weights, config.json is enough.")
    if not dummy_weights:
        check_shapes(model_dir)
    _prepare_environment()
    _check_architecture(config, model_dir)

    from opennpu.sglang_integration.checked_loader import CheckedLoader, ShapesOnlyLoader
    from sglang.srt.configs.device_config import DeviceConfig
    from sglang.srt.configs.load_config import LoadConfig
    from sglang.srt.configs.model_config import ModelConfig

    model_config = ModelConfig.from_server_args(_start_sglang(model_dir, dtype))
    loader = ShapesOnlyLoader if dummy_weights else CheckedLoader
    device = DeviceConfig("meta" if dummy_weights else "cpu")
    load_config = LoadConfig(load_format="safetensors")
    return loader(load_config).load_model(model_config=model_config, device_config=device)


def _prepare_environment() -> None:
    """What SGLang reads when it is imported."""
    os.environ["SGLANG_PLATFORM"] = "opennpu"
    # SGLang warns about every accelerator and optional package that is absent.
    logging.getLogger("sglang").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"sglang\.")


def _check_architecture(config: dict, model_dir: Path) -> None:
    from sglang.srt.models.registry import ModelRegistry

    architectures = config.get("architectures") or []
    supported = ModelRegistry.get_supported_archs()
    if not any(name in supported for name in architectures):
        known = ", ".join(sorted(name for name in supported if name.endswith("ForCausalLM")))
        what = (
            f"SGLang has no model class for {', '.join(architectures) or 'a model without `architectures`'}"
        )
        remedy = f"Language models it has: {known}."
        raise CompileError(Problem(what, where=f"{model_dir}/config.json", remedy=remedy))


def _start_sglang(model_dir: Path, dtype: str):
    """SGLang's global state for one process without scheduler, pools or attention backend."""
    from sglang.srt.distributed.parallel_state import init_distributed_environment, initialize_model_parallel
    from sglang.srt.layers.dp_attention import initialize_dp_attention
    from sglang.srt.platforms import current_platform
    from sglang.srt.runtime_context import SpawnRanks, publish
    from sglang.srt.server_args import ServerArgs
    from sglang.srt.utils.network import get_open_port

    server_args = ServerArgs(
        model_path=str(model_dir),
        dtype=DTYPES[dtype],
        device="cpu",
        attention_backend="torch_native",  # any that needs no package; the trace brings its own
        disable_cuda_graph=True,
        skip_tokenizer_init=True,
        log_level="error",
    )
    server_args.resolve_once()
    publish(server_args, role="scheduler", ranks=SpawnRanks(world_rank=0, gpu_id=0))
    init_distributed_environment(
        backend="gloo",
        world_size=1,
        rank=0,
        local_rank=0,
        distributed_init_method=f"tcp://127.0.0.1:{get_open_port()}",
    )
    initialize_model_parallel()
    initialize_dp_attention(server_args=server_args)
    current_platform.init_backend()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return server_args
