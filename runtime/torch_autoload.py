"""The `torch.backends` entry point: PyTorch calls `autoload` at the end of `import torch`."""

import importlib.util
import warnings


def autoload() -> None:
    """Register the device "opennpu"; no chip is opened, no compiler imported.

    Without the C++ extension PyTorch works as ever, without the device.
    """
    import torch

    _declare_torchvision_operators(torch)
    if importlib.util.find_spec("opennpu.runtime._torch") is None:
        return  # a source tree whose C++ has not been built: the commands work without the device
    try:
        from opennpu.runtime import torch_device

        torch_device.register()
    except Exception as error:  # whatever another PyTorch makes of it: `import torch` must go on
        reason = f"There is no device opennpu: it cannot be set up ({type(error).__name__}: {error})."
        remedy = "install OpenNPU again, with `pip install --no-build-isolation`."
        text = f"{reason} It may be built for another PyTorch than {torch.__version__}: {remedy}"
        warnings.warn(text, RuntimeWarning, stacklevel=2)


def _declare_torchvision_operators(torch) -> None:
    """Make the torchvision wheel importable on a CPU-only PyTorch.

    torchvision's compiled extension is built for CUDA and does not load here; its
    Python part then fails on import because the schemas of two operators are
    missing. Declaring them first is all that its transforms and transformers'
    image processors need.
    """
    if torch.cuda.is_available() or importlib.util.find_spec("torchvision") is None:
        return
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)


_declared: list = []  # a Library undefines its operators when it is collected
