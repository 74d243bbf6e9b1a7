"""Functions for which torch has no name. Like torch's own they announce themselves to a `Rate`, so that one neuron transmits each."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import wrap_torch_function


@wrap_torch_function(lambda x: (x,))
def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x) of x [...], as in CLIP."""
    return x * torch.sigmoid(1.702 * x)


@wrap_torch_function(lambda x: (x,))
def relu_squared(x: Tensor) -> Tensor:
    """max(x, 0)^2 of x [...]."""
    return F.relu(x).square()
