"""Early classifiers around a backbone: what answers behind its stages while it learns (SSNN, AAAI 2024, arXiv 2401.01912)."""
# Shapes: T time steps, B batch, C channels, H W pixels.

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .._arguments import Count, checked
from ..layers import ConvBN
from ..neurons import MLF, Neuron

if TYPE_CHECKING:
    from ._backbone import SpikingBackbone


class EarlyClassifier(nn.Module):
    """Convolution 3x3 (stride 2) - BN - spiking neuron - mean over pixels - linear: an early classifier (SSNN, AAAI 2024).

    The paper says convolution, neuron and linear layer; their sizes are our choice.

    Args:
        channels: of the map that it reads.
        num_classes: of its answer.
        neuron: of this kind are its neurons.
    """

    @checked
    def __init__(self, channels: Count, num_classes: Count, neuron: nn.Module):
        super().__init__()
        self.conv_bn = ConvBN(channels, channels, 3, 2)
        self.lif = copy.deepcopy(neuron)
        self.head = nn.Linear(channels, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, C, H, W] -> logits [T, B, classes]"""
        return self.head(self.lif(self.conv_bn(x)).mean((3, 4)))


class EarlyClassifiers(nn.ModuleDict):
    """Those of a backbone, by the index of the stage that each reads; none as long as it is empty."""

    @classmethod
    def of(cls, backbone: SpikingBackbone, shared: bool = False) -> EarlyClassifiers:
        """New ones behind every stage but the last.

        Args:
            backbone: whose stages, classes and neurons they take.
            shared: one for all stages, behind a 1x1 convolution to the channels of the last but one; otherwise one for each.

        Raises:
            ValueError: the backbone has no classes, or only one stage.
        """
        if len(backbone.stages) < 2:
            raise ValueError("early classifiers stand between stages, and this model has only one")
        if not backbone.num_classes:
            raise ValueError("early classifiers need classes, and this model has none; give it num_classes first")
        channels = [info["num_chs"] for info in backbone.feature_info[:-1]]
        neuron, like = _last_neuron(backbone.stages), next(backbone.parameters())
        early = cls()
        one = EarlyClassifier(channels[-1], backbone.num_classes, neuron) if shared else None
        for index, width in enumerate(channels):
            own = (
                EarlyClassifier(width, backbone.num_classes, neuron)
                if one is None
                else nn.Sequential(ConvBN(width, channels[-1]), one)
            )
            early[str(index)] = own
        return early.to(like.device, like.dtype)

    @property
    def shared(self) -> bool:
        """Whether all stages have the same one."""
        return any(isinstance(classifier, nn.Sequential) for classifier in self.values())

    def anew(self, backbone: SpikingBackbone) -> EarlyClassifiers:
        """As many for the backbone's classes as they are now; none where there were none, or without classes."""
        return EarlyClassifiers.of(backbone, self.shared) if len(self) and backbone.num_classes else EarlyClassifiers()

    def before(self, stage: int) -> EarlyClassifiers:
        """Those that read stages in front of this one."""
        return EarlyClassifiers({index: classifier for index, classifier in self.items() if int(index) < stage})

    def forward(self, backbone: SpikingBackbone, x: Tensor, per_step: bool = False) -> tuple[Any, list[Tensor]]:
        """The backbone's answer and their logits in the order of the stages, each [B, classes], or [T, B, classes] `per_step`.

        Args:
            backbone: whose stages they read.
            x: [B, C, H, W] or [T, B, C, H, W].
            per_step: as for the backbone.
        """
        x, maps = backbone.forward_intermediates(x, [int(index) for index in self])
        answers = [classifier(found) for classifier, found in zip(self.values(), maps, strict=True)]
        return backbone.forward_head(x, per_step=per_step), [
            answer if per_step else answer.mean(0) for answer in answers
        ]


def _last_neuron(stages: nn.Module) -> nn.Module:
    """The last layer of neurons; one of several levels is one."""
    neurons = [module for module in stages.modules() if isinstance(module, (Neuron, MLF))]
    levels = {level for module in neurons if isinstance(module, MLF) for level in module.levels}
    return next(module for module in reversed(neurons) if module not in levels)
