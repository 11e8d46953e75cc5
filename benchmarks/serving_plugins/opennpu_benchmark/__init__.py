"""SGLang's own CPU engine as a platform, and a model that computes nothing."""


def activate() -> str:
    """`sglang.srt.platforms`: the path of the platform class."""
    return "opennpu_benchmark.cpu:InTreeCpu"
