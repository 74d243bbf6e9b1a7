"""Building blocks shared by several papers. Shapes: T time steps, B batch, C channels, H W pixels, N = H*W tokens, h heads, d = C/h."""

from .attention import PerHead, SpikingSelfAttention, spike_attention
from .conv import ChannelMixer, ConvBN, PerStep, RepConv
from .memory import compact_spikes
from .residual import DropPath, Residual, per_step
from .shrink import TimestepShrink

__all__ = [
    "ChannelMixer",
    "ConvBN",
    "DropPath",
    "PerHead",
    "PerStep",
    "RepConv",
    "Residual",
    "SpikingSelfAttention",
    "TimestepShrink",
    "compact_spikes",
    "per_step",
    "spike_attention",
]
