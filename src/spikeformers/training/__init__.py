"""Training: recipes, and runs that can be continued."""

from . import classification, detection, segmentation  # noqa: F401 - each registers how its task is learned
