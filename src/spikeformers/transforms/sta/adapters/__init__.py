"""What converts models of one ecosystem beyond functions that are affine, products or functions of one input: a file for each."""

from . import pytorch

__all__ = ["pytorch"]
