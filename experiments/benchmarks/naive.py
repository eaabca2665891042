"""One run of the ablation as one writes it without this project: a process of its own, Keras's fit,
a callback that takes np.linalg.norm of every weight after every batch and logs it to MLflow.

python experiments/benchmarks/naive.py OUTPUT.json STORE.db OVERRIDE...

It builds its corpus and trains its vectors itself, as every process does that shares nothing with
others. Writes the outcome and where its seconds went.
"""

import time

START = time.perf_counter()

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import mlflow
import numpy as np
from hydra import compose, initialize_config_dir

import plain_keras
from zeronorm import checkout, numerics, preparation, ranking, similarity, vectors
from zeronorm import config as schema


class Watch(keras.callbacks.Callback):
    """Norm and finiteness of every weight after every batch."""

    def __init__(self, clock):
        self.clock, self.first_nan, self.batch = clock, None, 0

    def on_train_batch_end(self, batch, logs=None):
        if self.batch == 0:
            self.clock.mark("tracing and compiling, first step")
        self.clock.mark("steps")
        norms = {}
        for weight in self.model.weights:
            value = np.asarray(weight)
            if np.issubdtype(value.dtype, np.floating):
                norms[weight.path.replace("/", "_")] = float(np.linalg.norm(value))
        if self.first_nan is None and not np.isfinite(list(norms.values())).all():
            self.first_nan = self.batch
        self.clock.mark("norms")
        finite = {name: norm for name, norm in norms.items() if np.isfinite(norm)}
        mlflow.log_metrics(
            {"loss": logs["loss"], **finite} if np.isfinite(logs["loss"]) else finite,
            step=self.batch,
        )
        self.clock.mark("logging")
        self.batch += 1


class Clock:
    def __init__(self):
        self.last, self.seconds = START, {}

    def mark(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self.last
        self.last = now


def evaluated(ranker, corpus) -> dict[str, float]:
    """The ranking metrics of the held-out texts."""
    z = ranker.encoder.predict(corpus.text[corpus.test], verbose=0)
    rows = np.asarray(ranker.weights["titles"])
    lengths = np.linalg.norm(z, axis=1)[:, None] * np.linalg.norm(rows, axis=1)
    scores = z @ rows.T / np.maximum(lengths, 1e-7)
    target = corpus.title[corpus.test]
    return ranking.metrics(ranking.ranks(scores, target), scores.shape[1])


def main(output: Path, store: Path, overrides: list[str]) -> None:
    clock = Clock()
    clock.mark("imports")
    schema.register()
    with initialize_config_dir(str(checkout.conf_dir()), version_base="1.3"):
        config = compose("config", ["training=quick", "examples=2000", *overrides])
    with TemporaryDirectory() as config.home:
        data = preparation.load(config)
    words, titles = preparation.initial_matrices(config, data)
    drawn = preparation.draw(config, data, vectors.zero_rows(titles))
    clock.mark("corpus and vectors")
    used = numerics.BY_NAME[config.numerics.name]
    placement = partial(
        getattr(similarity, config.similarity.name), epsilon=config.similarity.epsilon
    )
    ranker = plain_keras.build(
        words,
        titles,
        window=config.corpus.window,
        negatives=config.training.negatives,
        filters=config.model.filters,
        width=config.model.width,
        dropout=config.model.dropout,
        margin=config.training.margin,
        trainable=config.trainable,
        similarity=placement,
        numerics=used,
        optimizer=keras.optimizers.Adam(),
    )
    mlflow.set_tracking_uri(f"sqlite:///{store}")
    watch = Watch(clock)
    with mlflow.start_run():
        mlflow.log_params(dict(override.split("=") for override in overrides))
        clock.mark("model, store")
        ranker.model.fit(
            [drawn.text, drawn.positive, drawn.negatives],
            np.zeros(len(drawn)),
            batch_size=config.training.batch,
            epochs=config.training.epochs,
            verbose=0,
            callbacks=[watch],
        )
        clock.mark("steps")
        quality = evaluated(ranker, data.corpus)
        clock.mark("evaluation")
        mlflow.log_metrics(quality)
        clock.mark("logging")
    output.write_text(
        json.dumps(
            {
                "overrides": overrides,
                "first_nan": watch.first_nan,
                "seconds": clock.seconds,
                **quality,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), sys.argv[3:])
