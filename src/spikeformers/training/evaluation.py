"""The earlier place of `spikeformers.evaluation`, whose names it passes on."""

from ..evaluation import *  # noqa: F403
from ..evaluation.detection import evaluate_detection  # noqa: F401
from ..evaluation.segmentation import evaluate_segmentation  # noqa: F401
