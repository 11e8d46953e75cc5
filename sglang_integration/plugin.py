"""Entry points that SGLang looks up. Light: importing this module must not import SGLang."""


def activate() -> str:
    """`sglang.srt.platforms`: the path of the platform class."""
    return "opennpu.sglang_integration.platform:OpenNpuPlatform"
