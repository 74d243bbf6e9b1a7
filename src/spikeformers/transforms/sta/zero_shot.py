"""Zero-shot classification by networks that learned from pairs of images and texts, such as CLIP (ICML 2021) and SigLIP."""
# Shapes: B batch, N classes, d width of the embeddings.

from collections.abc import Callable, Sequence

import torch
from timm.data import ImageNetInfo
from torch import Tensor, nn
from torch.nn import functional as F

PROMPTS = ("a photo of a {}.",)
TEXTS_AT_ONCE = 64


class ZeroShot(nn.Module):
    """Images [B, 3, H, W] -> logits [B, N]: their similarity to texts about the classes, which were embedded once.

    Args:
        model: from Hugging Face, as below.
        classes: N.
        width: of the embeddings.

    Attributes:
        model: from Hugging Face, with `get_image_features`; its text tower is taken off.
        head: embeddings of the texts, times the temperature that was learned.
    """

    def __init__(self, model: nn.Module, classes: int, width: int):
        super().__init__()
        self.model, self.num_classes = model, classes
        for tower in ("text_model", "text_projection"):
            if hasattr(model, tower):
                delattr(model, tower)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(F.normalize(_embedding(self.model.get_image_features(pixel_values=images)), dim=-1))


def takes_texts(model: nn.Module) -> bool:
    """Whether a network embeds images and texts alike."""
    return hasattr(model, "get_image_features") and hasattr(model, "get_text_features")


@torch.no_grad()
def zero_shot(
    model: nn.Module, tokenizer: Callable, classes: Sequence[str], prompts: Sequence[str] = PROMPTS
) -> ZeroShot:
    """A classifier of a CLIP-like network of Hugging Face, for `convert`. The network loses its text tower to it.

    Each class is the normalised mean of its normalised embeddings over the prompts.

    Args:
        tokenizer: of the network.
        classes: their names, in words; see `readable`.
        prompts: texts with {} where the name of a class goes.

    Raises:
        ValueError: a prompt has no {}, or there are no classes or prompts.
    """
    if not classes or not prompts:
        raise ValueError("zero-shot classification needs at least one class and one prompt")
    for prompt in prompts:
        if "{}" not in prompt:
            raise ValueError(f"the prompt {prompt!r} has no {{}}, where the name of the class goes")
    texts = [prompt.replace("{}", name) for name in classes for prompt in prompts]
    length = model.config.text_config.max_position_embeddings
    found = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = texts[start : start + TEXTS_AT_ONCE]
        tokens = tokenizer(part, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        tokens = {key: tokens[key].to(model.device) for key in ("input_ids", "attention_mask") if key in tokens}
        found.append(F.normalize(_embedding(model.get_text_features(**tokens)), dim=-1))
    embeddings = F.normalize(torch.cat(found).unflatten(0, (len(classes), len(prompts))).mean(1), dim=-1)
    scale, shift = model.logit_scale.exp(), getattr(model, "logit_bias", 0.0)
    made = ZeroShot(model, *embeddings.shape)
    made.head.weight.copy_(scale * embeddings)
    made.head.bias.copy_(torch.as_tensor(shift))
    return made.to(model.device).eval()


def readable(names: Sequence[str]) -> list[str]:
    """Words for classes: ImageNet's for its identifiers, such as "tench" for n01440764; otherwise spaces for underscores."""
    known = ImageNetInfo("imagenet-22k")
    identifiers = set(known.label_names())

    def words(name):
        return known.label_name_to_description(name).split(",")[0] if name in identifiers else name.replace("_", " ")

    return [words(name) for name in names]


def _embedding(found):
    return found if isinstance(found, Tensor) else found.pooler_output
