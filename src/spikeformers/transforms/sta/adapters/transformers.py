"""Modules of Hugging Face that are one function, written as several."""

from torch.nn import functional as F

from ..functions import quick_gelu, relu_squared
from ..rates import adapts

_ACTIVATIONS = "transformers.activations"
_RMS_NORMS = [
    f"transformers.models.{name}.modeling_{name}.{kind}"
    for name, kind in {
        "llama": "LlamaRMSNorm",
        "mistral": "MistralRMSNorm",
        "phi3": "Phi3RMSNorm",
        "qwen2": "Qwen2RMSNorm",
        "qwen3": "Qwen3RMSNorm",
        "t5": "T5LayerNorm",
    }.items()
]


@adapts(f"{_ACTIVATIONS}.QuickGELUActivation")
def quick(module, x):
    """QuickGELUActivation as one function."""
    return quick_gelu(x)


@adapts(*(f"{_ACTIVATIONS}.{name}Activation" for name in ("NewGELU", "FastGELU", "AccurateGELU")))
def gelu_tanh(module, x):
    """Activations that write the tanh form of GELU out, as one function."""
    return F.gelu(x, approximate="tanh")


@adapts(f"{_ACTIVATIONS}.ReLUSquaredActivation")
def squared(module, x):
    """ReLUSquaredActivation as one function."""
    return relu_squared(x)


@adapts(*_RMS_NORMS)
def rms_norm(module, x):
    """RMS normalisations as torch's own function."""
    return F.rms_norm(x, module.weight.shape, module.weight, module.variance_epsilon)
