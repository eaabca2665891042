"""Is a training smooth? The loss and the gradients of single steps, of the conditions that the
question calls smooth and of its own.

python experiments/single_steps/smooth.py [--small --to FOLDER]
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path

import numpy as np
from scipy.stats import kendalltau, median_abs_deviation

import walk
from zeronorm import recorder, training
from zeronorm.report import script

SEEDS = 3
COMPILERS = ("kernels", "xla", "tf1")
CONDITIONS = {  # as in the study claims
    "frozen": ["trainable=false"],
    "uniform": ["init=uniform"],
    "as asked": [],
}
BUDGET = ["training=quick", "examples=1000"]


def measured(recording: recorder.Recording) -> dict:
    """Of a training, where its loss stays finite:

    trend: Kendall's tau between step and loss, and p, that of no trend (Mann, Econometrica 1945).
    jump: the largest change of the loss from one step to the next, in standard deviations of these
        changes, estimated from their median absolute deviation.
    spike: the largest norm of the gradient of a weight over its median, the largest of the weights.
    """
    loss = recording.curves["train/loss"]
    if not np.isfinite(loss).all() or recording.first_nan():
        return {"finite": False, "trend": None, "p": None, "jump": None, "spike": None}
    changes = np.diff(loss)
    trend = kendalltau(np.arange(len(loss)), loss)
    norms = [recording.curves[f"norm/grad/{name}"] for name in recording.trained]
    return {
        "finite": True,
        "trend": float(trend.statistic),
        "p": float(trend.pvalue),
        "jump": float(np.abs(changes).max() / median_abs_deviation(changes, scale="normal")),
        "spike": float(max(norm.max() / np.median(norm) for norm in norms)),
    }


def main(small: bool, to: Path) -> None:
    rows = []
    for compiler in COMPILERS[: 1 if small else None]:
        for condition, overrides in CONDITIONS.items():
            found = []
            for seed in range(1 if small else SEEDS):
                size = [*walk.SMALL, "training.batch=1"] if small else []
                where = [f"numerics={compiler}", f"seed={seed}"]
                run = walk.prepared(*BUDGET, *size, *overrides, *where)
                recording = run.start()
                training.train(run.program, run.order(), recording)
                found.append(measured(recording))
            row = {"condition": condition, "numerics": compiler}
            rows.append(row | {key: [one[key] for one in found] for key in found[0]})
            print(rows[-1], flush=True)
    script.write(to, "smooth", rows)


if __name__ == "__main__":
    main(**vars(script.arguments(__file__, __doc__)))
