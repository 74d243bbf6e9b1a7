"""Spiking vision transformers for PyTorch."""

from .models import create_model, list_models, load_published, save_model

__all__ = ["__version__", "create_model", "list_models", "load_published", "save_model"]
__version__ = "0.1.0"
