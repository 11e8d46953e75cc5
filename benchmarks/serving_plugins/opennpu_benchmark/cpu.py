"""SGLang's own code for the device "cpu", as far as the wheel on PyPI has it."""

from sglang.srt.platforms.cpu import CpuDeviceMixin
from sglang.srt.platforms.device_mixin import PlatformEnum
from sglang.srt.platforms.interface import SRTPlatform


class InTreeCpu(CpuDeviceMixin, SRTPlatform):
    """SGLang's layers in their PyTorch form, its attention backend `torch_native`, its pools.

    The wheel's CPU engine (SGLANG_USE_CPU_ENGINE=1) imports `sgl_kernel`, which is built from source for
    CPUs with AVX-512 or AMX. Without it SGLang's rotary embedding asks for vLLM on every platform
    but an out-of-tree one: so this is one, which changes nothing else.
    """

    _enum = PlatformEnum.OOT

    def get_device(self, device_id: int | None = None) -> str:
        return "cpu"

    def is_pin_memory_available(self, device=None) -> bool:
        return False

    def apply_server_args_defaults(self, server_args) -> None:
        server_args.sampling_backend = "pytorch"

    def get_default_attention_backend(self) -> str:
        return "torch_native"

    def get_dispatch_key_name(self) -> str:
        return "native"

    def get_compile_backend(self, mode: str | None = None) -> str:
        return "inductor"
