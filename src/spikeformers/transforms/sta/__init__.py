"""Training-free conversion of pretrained networks (STA, ICLR 2024)."""

from .convert import Converted, convert, logits_of
from .rates import handles
from .saved import is_converted, load_converted, save_converted
from .sources import Source, load_source

__all__ = ["Converted", "Source", "convert", "handles", "is_converted", "load_converted", "load_source", "logits_of", "save_converted"]
