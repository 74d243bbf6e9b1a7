"""Building blocks shared by several papers. Shapes: T time steps, B batch, C channels, H W pixels, N = H*W tokens, h heads, d = C/h."""

from .attention import PerHead, SpikingSelfAttention, spike_attention
from .conv import ChannelMixer, ConvBN, PerStep, RepConv
from .encoders import delta_code, latency_code, phase_code, rate_code
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
    "delta_code",
    "frames_of",
    "latency_code",
    "per_step",
    "phase_code",
    "rate_code",
    "spike_attention",
]
