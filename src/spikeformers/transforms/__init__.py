"""A model in, a new model out; the old one is left alone."""

from .merge import merge
from .shrink import average_timestep, early_exit, shrink, stage_timesteps

__all__ = ["average_timestep", "early_exit", "merge", "shrink", "stage_timesteps"]
