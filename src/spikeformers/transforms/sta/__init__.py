"""Training-free conversion of pretrained networks (STA, ICLR 2024)."""

from .convert import convert
from .converted import Converted, classes_of, logits_of
from .rates import adapts, handles
from .saved import is_converted, load_converted, save_converted
from .sources import NetworkSource, load_source, with_texts
from .zero_shot import ZeroShot, readable, takes_texts, zero_shot

__all__ = [
    "Converted",
    "NetworkSource",
    "ZeroShot",
    "adapts",
    "classes_of",
    "convert",
    "handles",
    "is_converted",
    "load_converted",
    "load_source",
    "logits_of",
    "readable",
    "save_converted",
    "takes_texts",
    "with_texts",
    "zero_shot",
]
