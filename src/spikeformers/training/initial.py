"""Weights to start training from."""

import re
from pathlib import Path

from torch import nn

from ..evaluation.checkpoint import trained_weights
from ..models._backbone import spiking_backbone
from ..models._published_names import translate
from ..models._reading import read_state_dict
from ..models._state_dict import unwrap
from ..models.published import LoadReport, load_published


def load_initial(model: nn.Module, path: str | Path) -> LoadReport:
    """Loads weights of a run (best.ckpt), of `save_model` (.safetensors) or a published checkpoint into a model of the same
    architecture, whatever their number of time steps; those of a classifier also into the backbone of a detector or segmenter.

    A classifier for other classes stays as it is, and so do what the file lacks of distillation and of shrinking time steps, and
    layers of a dense model's head whose shape depends on the number of classes.

    Raises:
        ValueError: there is no such file, or its weights do not fit.
    """
    content = read_state_dict(path)
    if "model_config" in content:
        content = trained_weights(content["state_dict"])
    body = spiking_backbone(model)
    if body is not model:
        return _load_dense(model, body, unwrap(content), path)
    content = {key: value for key, value in content.items() if model.distillation or not key.startswith("head_kd.")}
    report = load_published(model, content, strict=False)
    wrong = [*report.missing, *report.unexpected, *report.mismatched]
    _must_fit([name for name in wrong if not name.startswith(("head.", "head_kd.", "shrinks."))], path)
    return report


def _load_dense(model, body, content, path):
    if any(name.startswith("backbone.") for name in content):
        report = load_published(model, content, strict=False)
        wrong = [*report.missing, *report.unexpected]
        wrong += [name for name in report.mismatched if name.startswith("backbone.")]
        kept = "backbone.body.shrinks."
    else:
        needed = {name: value for name, value in content.items() if not _only_classifies(body, name)}
        report = load_published(body, needed, strict=False)
        wrong, kept = [*report.missing, *report.unexpected, *report.mismatched], "shrinks."
    _must_fit([name for name in wrong if not name.startswith(kept)], path)
    return report


def _only_classifies(body, name):
    """Whether a parameter of a classifier, by our name or the published one, belongs to what a dense task leaves out: heads and
    the stages behind the last one whose map is read."""
    leaves_out = ("head.", "head_kd.", "early.", "shrinks.")
    if name.startswith(leaves_out) or name in body.state_dict():
        return name.startswith(leaves_out)
    stage = re.match(r"stages\.(\d+)\.", name) or re.match(r"stages\.(\d+)\.", translate(body, name) or "")
    return stage is not None and int(stage[1]) >= len(body.stages)


def _must_fit(wrong, path):
    if wrong:
        raise ValueError(
            f"the weights of {path} do not fit the model: {len(wrong)} parameters are missing, left over or of another shape, "
            f"such as {wrong[0]}; give the model.kwargs that they belong to"
        )
