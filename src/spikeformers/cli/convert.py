"""`spikeformers convert`."""

from ._data import say_how_images_are_prepared
from ._fields import IMAGES
from ._parser import Call
from ._values import values_of
from ._verb import FILE, FOLDER, Argument, Section, Verb
from .train import stopped


def convert(call: Call):
    """Make a pretrained network spike, without training, and test it at every time step."""
    from torch import nn

    from .. import evaluation
    from ..data import ImageData
    from ..evaluation import conversion, fetching
    from ..measure import Constants
    from ..transforms.sta import load_source

    options, given = values_of(call), call.given("data")
    of_data, run_dir, resume = (options.pop(key) for key in ("data", "run_dir", "resume"))
    named = "name" in given
    lengths = [len(of_data[key]) for key in ("mean", "std") if key in given]
    channels = of_data["channels"] if "channels" in given else next(iter(lengths), 3)  # the network will say
    unknown = {key: [0.5] * channels for key in ("mean", "std") if key not in given}
    ImageData(**of_data | unknown | {"channels": channels})
    conversion.must_be_possible(conversion.Conversion(**options), named, run_dir, resume)
    fetching.must_be_had(options["model"], options["weights"])
    model = load_source(options["model"], options["kwargs"], options["weights"])
    if not isinstance(model, nn.Module):
        raise ValueError(f"{options['model']} is {type(model).__name__}, not a network (torch.nn.Module)")
    settings, said = evaluation.preprocessing(model, options["weights"])
    data = ImageData(**values_of(call, defaults={f"data.{key}": value for key, value in settings.items()})["data"])
    say_how_images_are_prepared(given, data, settings, said, options["weights"])
    try:
        result, path = conversion.run(conversion.Conversion(**options), model, data, named, run_dir, resume)
    except KeyboardInterrupt as error:
        raise stopped(call, error, "whole batches are kept") from None
    if result:
        print(result.as_text(Constants(options["mac"], options["ac"])))
        print(f"wrote {path.with_name('any_time.csv')}")
    print(f"wrote {path}, which eval, profile and predict read")


CONVERT = Verb(
    "convert",
    convert,
    arguments=(
        Argument("model", "timm:NAME, torchvision:NAME, transformers:FOLDER[:CLASS], or a name of timm"),
        Argument("--run_dir", "where to write; runs/convert/MODEL by default", type=str | None, values=FOLDER),
        Argument("--resume", "continue an interrupted test", action="store_true"),
    ),
    sections=(
        Section(
            "",
            ("evaluation.conversion:Conversion",),
            without=("model",),
            values={"weights": FILE, "calib": FOLDER, "eval": FOLDER, "spiking": ("hybrid", "full")},
        ),
        Section("data", (IMAGES,), values={"root": FOLDER}),
    ),
    first="give the model first: spikeformers convert MODEL --calib FOLDER --eval FOLDER",
    needs=("train", "jsonargparse"),
)
