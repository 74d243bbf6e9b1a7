"""Spiking vision transformers for PyTorch."""

from . import tasks as _tasks  # noqa: F401  create_model knows them
from .models import create_model, list_models, list_tasks, load_published, save_model
from .profiling import audit, estimate, profile
from .transforms import convert, event_driven, merge, shrink

__all__ = [
    "__version__",
    "audit",
    "convert",
    "create_model",
    "estimate",
    "event_driven",
    "list_models",
    "list_tasks",
    "load_published",
    "merge",
    "profile",
    "save_model",
    "shrink",
]
__version__ = "0.1.0"
