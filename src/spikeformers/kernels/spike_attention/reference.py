"""Attention between spikes in plain PyTorch: what the native kernel has to reproduce exactly, as its results are counts.

out[n, e] = sum over c of q[n, c] * (sum over m of k[m, c] v[m, e]), for every head's channels c, e and tokens n, m
"""

import torch
from torch import Tensor

from ..spike_conv import Packed, unpack


def spike_attention(q: Packed, k: Packed, v: Packed, num_heads: int, dtype: torch.dtype) -> Tensor:
    """Counts [T, B, C, H, W].

    Args:
        q, k, v: binary spikes [T, B, C, H, W].
        num_heads: h, a divisor of C.
        dtype: of the counts.
    """
    t, b, channels, h, w = q.shape
    queries, keys, values = (
        unpack(z, dtype).reshape(t * b * num_heads, channels // num_heads, h * w) for z in (q, k, v)
    )
    return ((values @ keys.transpose(1, 2)) @ queries).reshape(t, b, channels, h, w)
