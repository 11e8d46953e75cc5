import pytest
from opennpu.runtime.device import Device


@pytest.fixture(params=["reference", "native"])
def device(request):
    return Device("npu1-lite", engine=request.param, hbm_bytes=64 << 20, max_instructions=100_000)
