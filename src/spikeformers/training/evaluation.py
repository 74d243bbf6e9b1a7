"""The earlier place of `spikeformers.evaluation`, whose names it passes on."""

from ..evaluation import *  # noqa: F403
from ..evaluation.dense import evaluate_detection, evaluate_segmentation  # noqa: F401
