"""Spiking vision transformers for PyTorch."""

from .models import create_model, list_models, load_published, save_model
from .profiling import audit, estimate, profile
from .transforms import convert, merge, shrink

__all__ = [
    "__version__",
    "audit",
    "convert",
    "create_model",
    "estimate",
    "list_models",
    "load_published",
    "merge",
    "profile",
    "save_model",
    "shrink",
]
__version__ = "0.1.0"
