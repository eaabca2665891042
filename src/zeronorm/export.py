"""The first weights and the batches of a run as one .npz, which experiments/releases/probe.py
trains on any release of TensorFlow."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from omegaconf import OmegaConf

from zeronorm import checkout, optimizers
from zeronorm import config as schema
from zeronorm.preparation import ExperimentError, Prepared

FORMAT = "zeronorm start 1"
KNOWN = {
    keras.optimizers.SGD: {"name": "sgd"},
    # Keras 3 squares the gradients of a row that a step names several times one by one
    keras.optimizers.Adam: {"name": "adam", "squares": "of each gradient"},
    optimizers.Adam: {"name": "adam", "squares": "of each gradient"},
    optimizers.Adam2017: {"name": "adam", "squares": "of their sum"},
}
"""The optimizers whose update the probe has."""

NUMBERS = ("learning_rate", "beta_1", "beta_2", "epsilon")


def save(prepared: Prepared, steps: int, path: Path) -> int:
    """Writes the file, with at most so many steps, and returns how many it holds.

    It holds, in arrays that are read without pickle: about, a JSON text; weights/NAME, float32, for
    each of model.WEIGHTS; sizes, int32 [steps], the examples of each batch; text, int32 [examples,
    window], positive [examples, 1] and negatives [examples, k], of all batches one after the other;
    kept, uint8 [examples, filters / 8], the bits that the dropout keeps, if there is any; present,
    float32 [titles], if titles are masked.

    Raises ExperimentError where the run's placement or optimizer is one that the probe has not.
    """
    config, program = prepared.config, prepared.program
    settings = optimizer_settings(program.optimizer)
    epsilons = placements()
    if config.similarity.name not in epsilons:
        raise ExperimentError(
            f"similarity={config.similarity.name} is not one of the placements that the probe"
            f" knows: {', '.join(epsilons)}."
        )
    for group, usual in (("encoder", "cnn"), ("loss", "max_margin")):
        if config[group].function is not None or (group == "loss" and config.loss.in_batch):
            raise ExperimentError(
                f"{group}={config[group].name} is not the question's, which alone the probe knows:"
                f" use {group}={usual}."
            )
    if config.model.tied:
        raise ExperimentError(
            "The probe has two embeddings that share no row: use model.tied=false."
        )
    prepared.start()
    batches = list(islice(prepared.order(), steps))
    about = {
        "format": FORMAT,
        "similarity": config.similarity.name,
        "epsilon": config.similarity.epsilon,
        "epsilons": epsilons,
        "margin": config.training.margin,
        "dropout": config.model.dropout,
        "trained": program.trained,
        "optimizer": settings,
        "condition": schema.condition(config),
        "seed": config.seed,
    }
    arrays: dict[str, Any] = {
        f"weights/{name}": np.array(variable) for name, variable in program.ranker.weights.items()
    }
    for part in ("text", "positive", "negatives"):
        arrays[part] = np.concatenate([getattr(batch, part) for batch in batches])
    if prepared.masked is not None:
        arrays["present"] = np.float32(1.0 - prepared.masked)
    if program.ranker.random_state:
        arrays["kept"] = _kept(prepared, [len(batch.text) for batch in batches])
    sizes = np.array([len(batch.text) for batch in batches], np.int32)
    with open(path, "wb") as file:
        np.savez_compressed(file, about=json.dumps(about), sizes=sizes, **arrays)
    return len(batches)


def placements() -> dict[str, float | None]:
    """{placement in conf/: its epsilon, None where it has none}."""
    return {
        file.stem: OmegaConf.select(OmegaConf.load(file), "epsilon")
        for file in sorted((checkout.conf_dir() / "similarity").glob("*.yaml"))
    }


def optimizer_settings(optimizer: keras.Optimizer) -> dict:
    """What the probe's update needs. Raises ExperimentError of another than plain Adam or SGD."""
    known, used = KNOWN.get(type(optimizer)), optimizer.get_config()
    numbers = {name: used.pop(name) for name in NUMBERS if name in used}
    usual = {} if known is None else type(optimizer)().get_config()
    more = [key for key, value in used.items() if key != "name" and value != usual.get(key)]
    if known is None or more or not all(isinstance(x, float) for x in numbers.values()):
        what = f"{type(optimizer).__name__}{' with ' + ', '.join(more) if more else ''}"
        raise ExperimentError(
            f"The probe trains by plain Adam and SGD at one learning rate, not by {what}: use"
            " optimizer=adam, adam_2017 or sgd."
        )
    return known | numbers


def _kept(prepared: Prepared, sizes: list[int]) -> np.ndarray:
    """The bits of the dropout's masks in a run's first steps, from the state before them."""
    layer = prepared.program.ranker.model.get_layer("dropout")
    filters = prepared.config.model.filters

    @tf.function(jit_compile=prepared.program.numerics.jit_compile, autograph=False)
    def mask(ones):
        return layer(ones, training=True)

    masks = [mask(tf.ones([size, filters])).numpy() for size in sizes]
    return np.packbits(np.concatenate(masks) > 0, axis=1)
