"""Modules of timm that are one function, written as several."""

from ..functions import quick_gelu, relu_squared
from ..rates import adapts


@adapts("timm.layers.activations.QuickGELU")
def quick(module, x):
    """timm's QuickGELU as one function."""
    return quick_gelu(x)


@adapts("timm.models.metaformer.StarReLU")
def star_relu(module, x):
    """timm's StarReLU: scale max(x, 0)^2 + bias."""
    return module.scale * relu_squared(x) + module.bias
