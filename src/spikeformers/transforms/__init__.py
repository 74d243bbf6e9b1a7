"""A model in, a new model out; the old one is left alone."""

from .merge import merge

__all__ = ["merge"]
