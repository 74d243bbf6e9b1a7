"""The backbones, one file per paper, and the registry that creates them by name."""

from . import cifar_resnet, meta_spikeformer, spiking_resnet, spiking_vgg, spikingformer
from ._registry import create_model, list_models, list_tasks
from ._saving import save_model
from .network import Network
from .published import LoadReport, import_checkpoint, load_published

__all__ = [
    "LoadReport",
    "Network",
    "cifar_resnet",
    "create_model",
    "import_checkpoint",
    "list_models",
    "list_tasks",
    "load_published",
    "meta_spikeformer",
    "save_model",
    "spiking_resnet",
    "spiking_vgg",
    "spikingformer",
]
