"""Networks of one's own under a name, so that everything that takes a model's name takes them: training, tests, profiles, saving."""
# Shapes: T time steps, B batch, C channels, H W pixels, K classes.

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from .._arguments import Count, Steps, checked
from ..layers.merging import MergeChoices
from ._registry import add_model, list_models, remove_model
from .early import EarlyClassifiers
from .network import Network, configure, unconfigure

Maker = TypeVar("Maker", bound=Callable[..., nn.Module])


class OwnNetwork(Network):
    """A module that maps sequences [T, B, C, H, W] to logits [T, B, K], as one of the library's networks: it also takes images, which it
    sees `time_steps` times, and its answer is the mean over time. It has no stages that the library knows of.

    Args:
        net: the module.
        in_chans: C.
        num_classes: K.
        time_steps: T of images.
        img_size: height and width, as it says in `pretrained_cfg`.
    """

    @checked
    def __init__(
        self, net: nn.Module, in_chans: Count, num_classes: Count, time_steps: Steps = 4, img_size: Count = 32
    ):
        super().__init__()
        self.net = net
        self.in_chans, self.num_classes, self.time_steps = in_chans, num_classes, time_steps
        self.schedule, self.distillation, self.early = None, False, EarlyClassifiers()
        half = (0.5,) * in_chans
        self.pretrained_cfg = {
            **{"input_size": (in_chans, img_size, img_size), "num_classes": num_classes, "mean": half, "std": half},
            **{"crop_pct": 1.0, "interpolation": "bicubic"},
        }

    @property
    def stages(self) -> nn.ModuleList:
        """The whole module, which is one stage."""
        return nn.ModuleList([self.net])

    def forward(self, x: Tensor, per_step: bool = False) -> Tensor:
        """Images [B, C, H, W] or a sequence [T, B, C, H, W] -> logits [B, K], or those of each step [T, B, K] `per_step`.

        Args:
            x: the input.
            per_step: whether the answer is that of each step.

        Raises:
            ValueError: the module does not answer [T, B, K].
        """
        if x.ndim == 4:
            x = x.unsqueeze(0).expand(self.time_steps, *x.shape)
        logits = self.net(x)
        wanted = (*x.shape[:2], self.num_classes)
        if not isinstance(logits, Tensor) or logits.shape != wanted:
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(
                f"{type(self.net).__name__} must answer [T, B, classes] = {wanted} for {tuple(x.shape)}, not {found}"
            )
        return logits if per_step else logits.mean(0)

    def set_schedule(self, schedule: list[int], temporal: str = "softmax") -> None:
        """An own network has no stages whose time steps could differ.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"{type(self.net).__name__} has no stages that the library knows of, so it has no schedule; give time_steps"
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """An own network keeps its activations, unless its module sees to it itself.

        Raises:
            ValueError: it is asked for.
        """
        if enable:
            raise ValueError(f"{type(self.net).__name__} has no stages to recompute; leave out training.checkpointing")

    def add_early_classifiers(self, shared: bool = False) -> None:
        """There are no stages behind which they could stand.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"{type(self.net).__name__} has no stages that the library knows of, so it has no early classifiers"
        )

    def describe_input(self, known: Mapping[str, object]) -> None:
        self.pretrained_cfg = {**self.pretrained_cfg, **known}

    def merged(self, choices: MergeChoices) -> nn.Module:
        """Its module's parts have been merged; no `config` describes them any more."""
        unconfigure(self)
        return self


def register_network(maker: Maker) -> Maker:
    """Decorator of a class or a function that makes a module: its name becomes one that `create_model`, recipes, `save_model` and
    checkpoints know, in processes that have imported it.

    The module maps sequences [T, B, C, H, W] to logits [T, B, K] and starts from rest in every call. Of the options that every network
    has, the maker gets those that it names: in_chans, num_classes, time_steps, img_size. Its other options must be numbers, words, or
    lists of them, and have defaults, so that a file can hold them. Files hold the name and the options, and no code.

    Args:
        maker: the class or function.

    Raises:
        ValueError: the name is taken, or an option has no default.
    """
    name, own = maker.__name__, inspect.signature(maker).parameters
    common = {"in_chans": 3, "num_classes": 10, "time_steps": 4, "img_size": 32}
    if name in list_models():
        raise ValueError(f"there is a model {name!r} already; give yours another name")
    if bare := [key for key, option in own.items() if option.default is option.empty and key not in common]:
        raise ValueError(
            f"{name} has options without default: {', '.join(bare)}; give them one, so that the name alone makes a network"
        )
    defaults = common | {key: option.default for key, option in own.items() if option.default is not option.empty}
    options = inspect.Signature(
        [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=value) for key, value in defaults.items()]
    )

    def create(**kwargs: Any) -> OwnNetwork:
        settings = defaults | kwargs
        net = maker(**{key: value for key, value in settings.items() if key in own})
        model = OwnNetwork(net, **{key: settings[key] for key in common})
        configure(model, name, settings)
        return model

    add_model(name, create, options)
    return maker


def forget_network(name: str) -> None:
    """Takes back `register_network`, such as in a notebook before the class is defined again.

    Raises:
        ValueError: no network of one's own has this name.
    """
    remove_model(name)
