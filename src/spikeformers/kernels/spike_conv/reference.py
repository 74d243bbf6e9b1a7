"""The event-driven operations in plain PyTorch: what the native kernels have to reproduce.

    x[t] = W * s[t] + bias + residual[t];  spikes = LIF(x)

Bits in and out are `Packed`; * is a convolution (or depthwise convolution), and the order of its sums is not part of the definition.
"""

from torch import Tensor
from torch.nn import functional

from ..lif import Dynamics
from ..lif.reference import lif_forward
from .packed import Packed, pack, unpack


def spike_conv(
    spikes: Packed | None,
    weight: Tensor | None,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    groups: int,
    addends: list[Tensor],
) -> Tensor:
    """Potentials [T, B, C', H', W'].

    Args:
        spikes: bits [T, B, C, H, W], or None: only the addends.
        weight: [C', C / groups, kh, kw]; needed with spikes.
        bias: [C'], or None.
        stride, padding: of the convolution.
        groups: 1, or C for a depthwise convolution.
        addends: of [T, B, C', H', W'].
    """
    if spikes is None:
        x = addends[0] if bias is None else addends[0] + bias[:, None, None]
        addends = addends[1:]
    else:
        assert weight is not None, "spikes come with a weight"
        s = unpack(spikes, weight.dtype)
        x = functional.conv2d(s.flatten(0, 1), weight, bias, stride, padding, groups=groups).unflatten(0, s.shape[:2])
    for addend in addends:
        x = x + addend
    return x


def fire(x: Tensor, v: Tensor | None, dynamics: Dynamics) -> tuple[Packed, Tensor]:
    """Spikes of neurons that receive x, and their potentials [B, C, H, W] after the last step.

    Args:
        x: input currents [T, B, C, H, W].
        v: potentials [B, C, H, W] before the first step, or None for rest.
        dynamics: of the neurons.
    """
    s, v = lif_forward(x, v, dynamics)
    return pack(s), v


def pool(spikes: Packed, kernel: int, stride: int, padding: int) -> Packed:
    """Maximum over windows.

    Args:
        spikes: bits [T, B, C, H, W].
        kernel, stride, padding: of square windows.
    """
    s = unpack(spikes)
    s = functional.max_pool2d(s.flatten(0, 1), kernel, stride, padding).unflatten(0, s.shape[:2])
    return pack(s)
