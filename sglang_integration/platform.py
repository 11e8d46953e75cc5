"""OpenNPU as an out-of-tree platform of SGLang."""

from sglang.srt.platforms.cpu import CpuDeviceMixin
from sglang.srt.platforms.device_mixin import PlatformEnum
from sglang.srt.platforms.interface import SRTPlatform

DISPATCH_KEY = "opennpu"


class OpenNpuPlatform(CpuDeviceMixin, SRTPlatform):
    """Models are built and traced on the host; the chip runs the compiled program."""

    _enum = PlatformEnum.OOT
    device_name = "opennpu"
    device_type = "cpu"

    def get_device(self, device_id: int = 0) -> str:
        return self.device_type

    def get_dispatch_key_name(self) -> str:
        return DISPATCH_KEY

    def get_compile_backend(self, mode: str | None = None) -> str:
        return "eager"

    def init_backend(self) -> None:
        # Late: SGLang asks for its platform before its layers can be imported.
        from opennpu.sglang_integration import fused_ops

        fused_ops.register(DISPATCH_KEY)
