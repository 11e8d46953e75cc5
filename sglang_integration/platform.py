"""OpenNPU as an out-of-tree platform of SGLang."""

import torch
from sglang.srt.platforms.device_mixin import PlatformEnum
from sglang.srt.platforms.interface import SRTPlatform

NAME = "opennpu"
"""Of the platform, of its device, and of its forwards of SGLang's fused layers."""


class OpenNpuPlatform(SRTPlatform):
    """SGLang's device is the torch device `opennpu`: weights, pages and batches lie in chip memory."""

    _enum = PlatformEnum.OOT
    device_name = NAME
    device_type = NAME

    # ---- device

    def get_device(self, device_id: int | None = None) -> str:
        return NAME if device_id is None else f"{NAME}:{device_id}"

    def set_device(self, device: torch.device) -> None:
        torch.opennpu.set_device(device)

    def get_device_name(self, device_id: int = 0) -> str:
        return torch.opennpu.get_device_name(device_id)

    def get_device_uuid(self, device_id: int = 0) -> str:
        return f"{NAME}-{device_id}"

    def get_device_total_memory(self, device_id: int = 0) -> int:
        return torch.opennpu.get_device_properties(device_id).total_memory

    def get_current_memory_usage(self, device: torch.device | None = None) -> float:
        free, total = torch.opennpu.mem_get_info(device)
        return total - free

    def get_available_memory(self, device_id: int = 0) -> tuple[int, int]:
        return torch.opennpu.mem_get_info(device_id)

    def empty_cache(self) -> None:
        torch.opennpu.empty_cache()

    def synchronize(self) -> None:
        torch.opennpu.synchronize()

    def is_pin_memory_available(self, device=None) -> bool:
        return True

    def get_group_coordinator_device(self, local_rank: int) -> torch.device:
        return torch.device("cpu")  # collectives are the host's, over gloo

    # ---- serving

    def apply_server_args_defaults(self, server_args) -> None:
        from opennpu.sglang_integration import arguments

        if server_args.device == NAME:  # npu-export loads on the host
            arguments.prepare(server_args)

    def get_default_attention_backend(self) -> str:
        return NAME

    def get_kv_pool_cls(self, *, kind: str) -> type | None:
        if kind != "mha":
            return None
        from opennpu.sglang_integration.kv_pool import OpenNpuKvPool

        return OpenNpuKvPool

    def get_paged_allocator_cls(self) -> type:
        from opennpu.sglang_integration.allocator import OpenNpuAllocator

        return OpenNpuAllocator

    def get_dispatch_key_name(self) -> str:
        return NAME

    def get_compile_backend(self, mode: str | None = None) -> str:
        return "eager"

    def init_backend(self) -> None:
        # Late: SGLang asks for its platform before its layers can be imported.
        from opennpu.sglang_integration import attention, fused_ops, sampling

        fused_ops.register(NAME)
        attention.register()
        sampling.register()

    def post_load_model(self, model: torch.nn.Module) -> None:
        from opennpu.sglang_integration.compiled import install

        install(model)
