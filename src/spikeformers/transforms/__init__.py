"""A model in, a new model out; the old one is left alone."""

from .merge import merge
from .shrink import average_timestep, shrink

__all__ = ["average_timestep", "merge", "shrink"]
