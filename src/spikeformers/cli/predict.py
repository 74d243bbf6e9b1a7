"""`spikeformers predict`."""

import sys
from pathlib import Path

from .._files import as_csv, write_atomically, write_json
from ._data import checkpoints, must_be_there
from ._parser import Call
from ._verb import FILE, FOLDER, Argument, Verb


def predict(call: Call):
    """Print the likeliest classes of image or event files; draw what detectors and segmenters find into PNG files."""
    checkpoint, images, top, out, threshold = (
        call.args[key] for key in ("checkpoint", "image", "top", "out", "threshold")
    )
    if top < 1:
        raise ValueError(f"--top is {top}; give at least 1")
    if not 0 <= threshold <= 1:
        raise ValueError(f"--threshold is {threshold:g}; scores are probabilities, give 0 to 1")
    must_be_there(checkpoint)

    from .. import evaluation

    trained = evaluation.load_trained(checkpoint)
    shown = evaluation.Shown(top, out, threshold, evaluation.best_device())
    answers = []
    for answer in evaluation.predict_any(trained, images, shown):
        print(answer, file=sys.stderr if answer.broken else sys.stdout, flush=True)
        answers.append(answer)
    if json_file := call.args["json"]:
        write_json(Path(json_file), {"checkpoint": checkpoint, "answers": [answer.record for answer in answers]})
        print(f"wrote {json_file}")
    if csv_file := call.args["csv"]:
        write_atomically(Path(csv_file), as_csv(row for answer in answers for row in answer.rows).encode())
        print(f"wrote {csv_file}")
    if broken := sum(answer.broken for answer in answers):
        raise ValueError(f"{broken} of {len(answers)} files could not be read, the others are answered")


PREDICT = Verb(
    "predict",
    predict,
    arguments=(
        Argument(
            "checkpoint",
            "best.ckpt, last.ckpt or best.safetensors of a run, or a name of `spikeformers list --pretrained`",
            values=checkpoints,
        ),
        Argument(
            "image",
            "an image file, or a recording for models of events, or a folder of them",
            nargs="+",
            values=FILE,
        ),
        Argument("--top", "how many classes to print (default: 3)", type=int, default=3),
        Argument(
            "--out",
            "folder for pictures and the numbers behind them (default: predictions)",
            default="predictions",
            values=FOLDER,
        ),
        Argument("--json", "file for the answers as JSON", metavar="FILE", values=FILE),
        Argument("--csv", "file for the answers as a table", metavar="FILE", values=FILE),
        Argument("--threshold", "lowest score of objects that are drawn (default: 0.5)", type=float, default=0.5),
    ),
)
