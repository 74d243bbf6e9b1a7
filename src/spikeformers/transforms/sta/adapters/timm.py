"""Modules of timm that are one function, written as several."""

from ..functions import quick_gelu, relu_squared
from ..rates import adapts


@adapts("timm.layers.activations.QuickGELU")
def quick(module, x):
    return quick_gelu(x)


@adapts("timm.models.metaformer.StarReLU")
def star_relu(module, x):
    return module.scale * relu_squared(x) + module.bias
