"""Spiking vision transformers for PyTorch."""

from . import tasks as _tasks  # noqa: F401  create_model knows them
from .models import create_model, list_models, list_tasks, load_published, save_model
from .profiling import audit, estimate, profile
from .transforms import convert, merge, shrink

__all__ = [
    "__version__",
    "audit",
    "convert",
    "create_model",
    "estimate",
    "list_models",
    "list_tasks",
    "load_published",
    "merge",
    "profile",
    "save_model",
    "shrink",
]
__version__ = "0.1.0"
