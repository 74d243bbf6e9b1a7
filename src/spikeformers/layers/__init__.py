"""Building blocks shared by several papers. Shapes: T time steps, B batch, C channels, H W pixels, N = H*W tokens, h heads, d = C/h."""

from .attention import PerHead, SpikingSelfAttention, spike_attention
from .conv import ChannelMixer, ConvBN, PerStep, RepConv
from .memory import compact_spikes
from .merging import Part
from .residual import DropPath, Residual, per_step
from .shrink import Redistributed, TimestepShrink, check_temporal, frames_of

__all__ = [
    "ChannelMixer",
    "ConvBN",
    "DropPath",
    "Part",
    "PerHead",
    "PerStep",
    "Redistributed",
    "RepConv",
    "Residual",
    "SpikingSelfAttention",
    "TimestepShrink",
    "check_temporal",
    "compact_spikes",
    "frames_of",
    "per_step",
    "spike_attention",
]
