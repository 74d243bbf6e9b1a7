"""The backbones, one file per paper, and the registry that creates them by name."""

from . import cifar_resnet, meta_spikeformer, spiking_resnet, spiking_vgg, spikingformer
from ._registry import create_model, list_models, list_tasks
from ._saving import save_model
from .network import Network
from .own import OwnNetwork, forget_network, register_network
from .published import LoadReport, import_checkpoint, load_published

__all__ = [
    "LoadReport",
    "Network",
    "OwnNetwork",
    "cifar_resnet",
    "create_model",
    "forget_network",
    "import_checkpoint",
    "list_models",
    "list_tasks",
    "load_published",
    "meta_spikeformer",
    "register_network",
    "save_model",
    "spiking_resnet",
    "spiking_vgg",
    "spikingformer",
]
