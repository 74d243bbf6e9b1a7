"""Pictures of what detectors and segmenters find: boxes with names and scores, masks, and class maps with a legend."""
# Shapes: N objects, H W pixels of the image.

import io
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from .._files import write_atomically
from .colours import oklab
from .palettes import palette

ALPHA = 0.5  # how much of a mask's colour covers the image


def picture(
    image: Image.Image | Tensor, result: dict | Tensor, classes: Sequence[str] | None = None, threshold: float = 0.5
) -> Image.Image:
    """Draws objects or a class map onto an image. A class always has the same colour.

    Args:
        image: Pillow's, or [3, H, W] in [0, 1] or in uint8.
        result: what a detector found: boxes [N, 4] (x0, y0, x1, y1 in pixels), labels [N] from 1 on, scores [N] and, if it finds
            masks, their probabilities [N, 1, H, W] or the masks [N, H, W]; or the class [H, W] of each pixel from 0 on.
        classes: their names.
        threshold: the lowest score that is drawn.
    Returns:
        The image with the objects, or with the class map and below it the names of the classes that occur, largest first.
    """
    if torch.is_tensor(image):
        pixels = image.cpu() if image.dtype == torch.uint8 else (image.cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    else:
        pixels = pil_to_tensor(image.convert("RGB"))
    if torch.is_tensor(result):
        return _with_class_map(pixels, result.cpu(), classes)
    return _with_objects(pixels, result, above(result, threshold), classes)


def above(result: dict, threshold: float) -> list[int]:
    """The places of the objects with scores of at least `threshold`, the likeliest first."""
    scores = result["scores"]
    order = scores.argsort(descending=True, stable=True)
    return order[scores[order] >= threshold].tolist()


def name_of(classes: Sequence[str] | None, index: int) -> str:
    """A class's name; `index` counts from 0."""
    return classes[index] if classes else f"class {index}"


def _with_objects(pixels, result, shown, classes):
    height, width = pixels.shape[1:]
    labels, scores, boxes = (result[key][shown].cpu() for key in ("labels", "scores", "boxes"))
    places = [label - 1 for label in labels.tolist()]
    paints = palette(classes)
    fills = [paints[place % len(paints)] for place in places]
    line = max(1, round(min(height, width) / 240))
    boxes = _inside(boxes, height, width)
    if "masks" in result:
        for place, fill in zip(shown[::-1], fills[::-1], strict=True):  # the likeliest on top
            mask = result["masks"][place].reshape(height, width).cpu() > 0.5
            if mask.any():
                pixels = draw_segmentation_masks(pixels, mask, ALPHA, fill)
                pixels = draw_segmentation_masks(pixels, _edge(mask, line), 1.0, fill)
    if places:
        pixels = draw_bounding_boxes(pixels, boxes.flip(0), colors=fills[::-1], width=line)
    drawn = to_pil_image(pixels)
    texts = [f"{name_of(classes, place)} {score:.0%}" for place, score in zip(places, scores.tolist(), strict=True)]
    _write(drawn, texts, boxes.tolist(), fills)
    return drawn


def _inside(boxes, height, width):
    """Boxes whose corners are pixels of the image."""
    most = torch.tensor([width - 1, height - 1, width - 1, height - 1])
    return torch.minimum(boxes.float().clamp(min=0), most)


def _edge(mask, line):
    """The pixels of a mask that are at most `line` pixels from its outside."""
    outside = F.max_pool2d((~mask)[None].float(), 2 * line + 1, 1, line)[0].bool()
    return mask & outside


def _write(drawn, texts, boxes, fills):
    """Writes each text on a filled rectangle above its box, or in or below it where that covers no text before."""
    places = []
    for text, (left, top, _, bottom) in zip(texts, boxes, strict=True):
        font, wide, high, margin = _fitting(text, drawn.height, drawn.width)
        left = int(min(left, drawn.width - wide))
        tops = [top - high, top, bottom, bottom - high, *np.arange(top + high, bottom - high, high)]
        tops = [int(top) for top in tops if 0 <= int(top) <= drawn.height - high] or [0]
        areas = [(left, top, left + wide, top + high) for top in tops]
        free = (area for area in areas if not _covers(area, [other for other, *_ in places]))
        places.append((next(free, areas[0]), font, margin))
    draw = ImageDraw.Draw(drawn)
    for text, ((left, top, right, bottom), font, margin), fill in reversed(
        list(zip(texts, places, fills, strict=True))
    ):
        draw.rectangle((left, top, right - 1, bottom - 1), fill=fill)
        draw.text((left + margin, (top + bottom) // 2), text, fill=_readable_on(fill), font=font, anchor="lm")


def _covers(area, others):
    left, top, right, bottom = area
    return any(left < r and x < right and top < b and y < bottom for x, y, r, b in others)


def _fitting(text, height, width):
    """The font, 1/28 of the image's shorter side but smaller where the text would be wider than the image, and the width and
    height of the text's rectangle and its margin in pixels."""
    size = max(11, round(min(height, width) / 28))
    while True:
        font = ImageFont.load_default(size)
        margin = max(2, size // 5)
        wide, high = int(font.getlength(text)) + 1 + 2 * margin, round(1.3 * size)
        if wide <= width or size <= 6:
            return font, min(wide, width), min(high, height), margin
        size -= 1


def _readable_on(fill):
    return "black" if oklab(np.array(fill))[0] > 0.65 else "white"


def _with_class_map(pixels, found, classes):
    present, counts = found.unique(return_counts=True)
    paints = palette(classes)
    table = torch.tensor(paints, dtype=torch.float32)
    paint = table[found.long()].permute(2, 0, 1)
    blended = to_pil_image((pixels * (1 - ALPHA) + paint * ALPHA).round().to(torch.uint8))
    shares = sorted(zip((counts / found.numel()).tolist(), present.tolist(), strict=True), reverse=True)
    return _with_legend(blended, [(f"{name_of(classes, index)} {share:.1%}", paints[index]) for share, index in shares])


def _with_legend(image, entries):
    """Adds a white strip with (text, colour) entries in as many rows as they need below the image."""
    size = max(12, round(min(image.size) / 28))
    font, row, gap = ImageFont.load_default(size), round(1.6 * size), size // 2
    widths = [size + gap + int(font.getlength(text)) + 1 for text, _ in entries]
    total = max(image.width, max(widths) + 2 * gap)
    places, x, y = [], gap, 0
    for width in widths:
        if x > gap and x + width + gap > total:
            x, y = gap, y + row
        places.append((x, y))
        x += width + 2 * gap
    result = Image.new("RGB", (total, image.height + y + row), "white")
    result.paste(image)
    draw = ImageDraw.Draw(result)
    for (text, fill), (x, y) in zip(entries, places, strict=True):
        middle = image.height + y + row // 2
        draw.rectangle((x, middle - size // 2, x + size - 1, middle - size // 2 + size - 1), fill=fill, outline="black")
        draw.text((x + size + gap, middle), text, fill="black", font=font, anchor="lm")
    return result


class PictureFolder:
    """A folder for files about images: OUT/NAME.png and others beside it, and NAME_2 where NAME is taken by another image.

    Args:
        out: the folder, made when needed.
        inputs: the images, over which nothing is written.
    """

    def __init__(self, out: str | Path, inputs: Iterable[Path]):
        self.out = Path(out)
        self.taken = {_key(path) for path in inputs}

    def files(self, image: Path, *endings: str) -> list[Path]:
        """A free file for each ending, such as ".png"."""
        for number in itertools.count(1):
            stem = image.stem if number == 1 else f"{image.stem}_{number}"
            files = [self.out / f"{stem}{ending}" for ending in endings]
            if self.taken.isdisjoint(map(_key, files)):
                self.taken.update(map(_key, files))
                return files


def _key(path):
    return str(path.resolve()).casefold()  # some file systems do not tell a.png and A.png apart


def write_picture(path: Path, image: Image.Image) -> None:
    """Writes a PNG file whole or not at all."""
    content = io.BytesIO()
    image.save(content, "PNG")
    write_atomically(path, content.getvalue())
