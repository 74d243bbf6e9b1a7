"""Spiking vision transformers for PyTorch.

Names and packages are loaded when they are first used; models are registered with timm as soon as both are imported, in either order.
"""

import importlib

import lazy_loader
import wrapt

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = [*__all__, "__version__"]

wrapt.register_post_import_hook(lambda timm: importlib.import_module(f"{__name__}.models"), "timm")
