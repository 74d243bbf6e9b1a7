"""Training-free conversion of pretrained networks (STA, ICLR 2024)."""

from .convert import Converted, convert
from .rates import handles

__all__ = ["Converted", "convert", "handles"]
