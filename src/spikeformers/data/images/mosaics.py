"""Square images side by side on large sheets."""

import contextlib
from pathlib import Path

import numpy as np
from PIL import Image

from ..reading import UNREADABLE, image_header, stored_image


class Mosaics:
    """Square images side by side on large sheets, a compact way to keep many small ones.

    ROOT/train_*.webp (or .png), ROOT/test_*.webp: sheets in the order of their names, tiles row by row. ROOT/labels.npz:
    `y_train`, `y_test` with a label per tile, `classes` with the names, and `tile`, the tiles' side in pixels, which may be left
    out where the tiles fill all rows of the sheets. The sheets are decoded once and kept in memory.

    Raises:
        ValueError: sheets or labels are missing or damaged, or their numbers of tiles differ.
    """

    def __init__(self, root: Path, split: str):
        layout = f"mosaics look like {root}/{split}_00.webp and {root}/labels.npz; set data.root"
        self.sheets = sorted(path for path in root.glob(f"{split}_*") if path.suffix in (".webp", ".png"))
        try:
            with np.load(root / "labels.npz", allow_pickle=False) as labels:
                self.labels = labels[f"y_{split}"].tolist()
                self.classes = [str(name) for name in labels["classes"]]
                tile = int(labels["tile"]) if "tile" in labels else None
        except Exception as error:  # of damaged archives NumPy and zipfile raise many kinds
            raise ValueError(f"cannot read {root / 'labels.npz'} ({error}); {layout}") from None
        if not isinstance(self.labels, list):
            raise ValueError(f"y_{split} in {root / 'labels.npz'} is a single number; give a label per tile")
        if not self.sheets:
            raise ValueError(f"no sheet {split}_* in {root}; {layout}")
        sizes = set()
        for path in self.sheets:
            with (
                contextlib.suppress(*UNREADABLE),
                image_header(path) as sheet,
            ):  # a broken sheet is reported when one of its tiles is asked for
                sizes.add(sheet.size)
        if len(sizes) != 1:
            raise ValueError(f"the sheets {split}_* in {root} must be images of one size, not of {sorted(sizes)}")
        self.width, self.height = sizes.pop()
        if tile is not None and not 1 <= tile <= min(self.width, self.height):
            raise ValueError(
                f"{root / 'labels.npz'} says that tiles have a side of {tile} pixels, but the sheets have {self.width}x{self.height}"
            )
        self.tile = tile or self._side()
        self.per_sheet = (self.width // self.tile) * (self.height // self.tile)
        if len(self.labels) > self.per_sheet * len(self.sheets):
            raise ValueError(
                f"{root} has {len(self.labels)} {split} labels for {self.per_sheet * len(self.sheets)} tiles"
            )
        for label in self.labels:
            if type(label) is not int or not 0 <= label < len(self.classes):
                raise ValueError(
                    f"{root / 'labels.npz'} has the {split} label {str(label)[:40]}; give whole numbers from 0 to "
                    f"{len(self.classes) - 1}, one per tile, as there are {len(self.classes)} classes"
                )
        self.tiles = [self._decoded(path) for path in self.sheets]

    def _side(self):
        for side in range(min(self.width, self.height), 0, -1):
            empty = self.width * self.height // side**2 * len(self.sheets) - len(self.labels)
            if self.width % side == self.height % side == 0 and 0 <= empty < self.width // side:
                return side
        raise ValueError(
            f"{len(self.labels)} labels do not say how large the tiles of {len(self.sheets)} sheets of "
            f"{self.width}x{self.height} pixels are; add their side in pixels to labels.npz as tile"
        )

    def _decoded(self, path: Path) -> np.ndarray | None:
        """Tiles [n, side, side, 3] in uint8; None if the sheet cannot be read, which is reported when one of its tiles is asked for."""
        try:
            return self._decode(path)
        except UNREADABLE:
            return None

    def _decode(self, path):
        pixels = np.asarray(stored_image(path)[0])
        if pixels.shape[:2] != (self.height, self.width):
            raise ValueError(
                f"it has {pixels.shape[1]}x{pixels.shape[0]} pixels, other sheets {self.width}x{self.height}"
            )
        rows, columns = self.height // self.tile, self.width // self.tile
        pixels = pixels[: rows * self.tile, : columns * self.tile].reshape(rows, self.tile, columns, self.tile, 3)
        return pixels.swapaxes(1, 2).reshape(-1, self.tile, self.tile, 3)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        sheet, place = divmod(index, self.per_sheet)
        tiles = self.tiles[sheet]
        if tiles is None:
            tiles = self._decode(self.sheets[sheet])
        return Image.fromarray(tiles[place]), self.labels[index]

    def where(self, index):
        """What messages call a sample."""
        return str(self.sheets[index // self.per_sheet])
