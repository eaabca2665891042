"""What MLflow costs a run of the ablation: opening it, its parameters, curves, tags and files,
against its training.

python experiments/benchmarks/mlflow_cost.py [rounds] [--small --to FOLDER]
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# a worker of a sweep has one core
for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ[name] = "1"

import tempfile
import time
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir

import pairs
from zeronorm import checkout, experiment, tracking
from zeronorm import config as schema
from zeronorm.preparation import prepare
from zeronorm.report import script
from zeronorm.result import Result


def main(rounds: int, small: bool, to: Path) -> None:
    schema.register()
    rows = []
    with tempfile.TemporaryDirectory() as home:
        budget = ["training=quick", *(pairs.small_run(Path(home)) if small else ["examples=2000"])]
        for name, trainable in (("trainable", "true"), ("frozen", "false")):
            with initialize_config_dir(str(checkout.conf_dir()), version_base="1.3"):
                overrides = [f"home={home}", *budget, f"trainable={trainable}"]
                config = compose("config", overrides)
            client = tracking.connect(config)
            trained, logged = [], []
            for number in range(rounds + 1):
                result = Result(Path(home, f"{name}-{number}"))
                result.folder.mkdir()
                experiment.run(prepare(config), result)
                start = time.perf_counter()
                with tracking.tracked(client, config, overrides, None, None) as run_id:
                    tracking.log(client, run_id, result, config.tracking.points)
                logged.append(time.perf_counter() - start)
                assert result.recording is not None  # the run has been made
                trained.append(result.recording.steps / result.metrics["z/steps_per_second"])
            # the first run also traced its step
            share = np.array(logged[1:]) / np.array(trained[1:])
            low, middle, high = np.percentile(share, [25, 50, 75])
            row = {
                "variant": name,
                "training_s": float(np.median(trained[1:])),
                "mlflow_s": float(np.median(logged[1:])),
            }
            rows.append(row | {"share": middle, "share_low": low, "share_high": high})
    script.write(to, "mlflow_cost", rows, rounds=rounds)


if __name__ == "__main__":
    main(**vars(script.arguments(__file__, __doc__, rounds=5)))
