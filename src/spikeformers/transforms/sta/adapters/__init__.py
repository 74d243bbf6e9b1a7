"""What converts networks of one ecosystem beyond what functions show by themselves: a file for each (torchvision needs none).

Two tables are extended here, and by users: `handles` takes a torch function, `adapts` a class of modules.
"""

from . import pytorch, timm, transformers

__all__ = ["pytorch", "timm", "transformers"]
