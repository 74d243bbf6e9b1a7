"""`spikeformers eval`."""

from ._data import (
    CHECKPOINT,
    EVENT_DRIVEN,
    checkpoints,
    data_and_options,
    event_driven_model,
    folder_for_files,
    must_be_there,
)
from ._parser import Call
from ._verb import FOLDER, Argument, Verb, data_section


def evaluate(call: Call):
    """Print a checkpoint's accuracy, AP or mIoU on its test images, or on others given as --data.* options."""
    (checkpoint,) = call.values("checkpoint")
    must_be_there(checkpoint)
    folder = folder_for_files(call, "out")

    from .. import evaluation

    trained = evaluation.load_trained(checkpoint)
    data, options = data_and_options(call, checkpoint, trained)
    images = evaluation.test_samples(trained, data)
    model, device = trained.model, evaluation.best_device()
    if options["event_driven"]:
        from ..data import test_loader

        model, device = event_driven_model(model, data, options["event_driven"], test_loader(images)), "cpu"
    result = evaluation.evaluate_any(model, images, device)
    print(result.as_text(data.name))
    how = (
        f"event-driven, with {options['event_driven']} weights"
        if options["event_driven"]
        else f"in {evaluation.precision_of(model)}"
    )
    print(f"computed     {how}")
    if images.left_out:
        print(f"left out     {images.left_out}")
    if folder:
        print(f"wrote        {', '.join(map(str, result.write(folder)))}")


EVAL = Verb(
    "eval",
    evaluate,
    arguments=(
        Argument("checkpoint", CHECKPOINT, values=checkpoints),
        Argument("--event_driven", EVENT_DRIVEN, type=str | None, values=("float32", "bfloat16", "int8")),
        Argument(
            "--out",
            "folder for the numbers as JSON and CSV, and the confusion matrix as a picture",
            type=str | None,
            values=FOLDER,
        ),
    ),
    sections=(data_section(in_checkpoint=True),),
    first="give the checkpoint first: spikeformers eval CKPT, then options such as --data.root FOLDER",
    needs=("train", "jsonargparse"),
)
