"""`spikeformers shard`."""

from pathlib import Path

from ._parser import Call
from ._verb import FOLDER, Argument, Verb


def shard(call: Call):
    """Pack image folders into WebDataset shards, for data sets of ImageNet's size."""
    from ..data.images import ImageFolders
    from ..data.shards import write_shards

    for split in ("train", "val"):
        source = ImageFolders(Path(call.args["folder"]), split)
        paths = [Path(source.where(index)) for index in range(len(source))]
        shards = write_shards(source, Path(call.args["out"]), split, images_per_shard=call.args["images"], paths=paths)
        print(f"{len(source):,} images in {len(shards)} shards: {shards[0]} ...")


SHARD = Verb(
    "shard",
    shard,
    arguments=(
        Argument("folder", "images in FOLDER/train/CLASS/* and FOLDER/val/CLASS/*", values=FOLDER),
        Argument(
            "out", "where the shards go; train on them with --data.name webdataset --data.root OUT", values=FOLDER
        ),
        Argument("--images", "images per shard (default: 1000)", type=int, default=1000),
    ),
)
