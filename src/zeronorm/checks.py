"""What a run would refuse before its first step, tried before the first run of a sweep begins."""

import inspect
import os
import shutil
from functools import partial
from pathlib import Path

import hydra
import keras
import numpy as np
from omegaconf import DictConfig

from zeronorm import callables, contents, numerics, vectors
from zeronorm import config as schema
from zeronorm.preparation import (
    ExperimentError,
    draw,
    first_line,
    initial_matrices,
    load,
    optimizer_json,
    optimizer_sources,
    reaches,
)

FREE_SPACE = 200e6  # bytes a run may need for its outputs


def check(config: DictConfig) -> None:
    """Raises what `run` would raise before its first step; what it builds on the way is kept for
    the run."""
    require_space(Path(config.home))
    try:
        callables.require_callable("corpus.reader", config.corpus.reader, ["bad_lines"])
        callables.require_callable("vectors.source", config.vectors.source, ["corpus"])
    except callables.CallError as error:
        raise ExperimentError(str(error)) from error
    data = load(config)
    draw(config, data, vectors.zero_rows(initial_matrices(config, data)[1]))
    if config.training.evaluate_on == schema.Split.validation and unscored(config):
        raise ExperimentError(unscored(config))
    _check_similarity(config.similarity)
    for group in ("encoder", "loss"):
        _check_function(group, config[group])
    _check_optimizer(config)


def unscored(config: DictConfig) -> str:
    """Why a run of `config` will have no score, in one sentence; empty if it will have one."""
    corpus, split = load(config).corpus, config.training.evaluate_on.value
    windows, titles = len(corpus.title), len(corpus.titles)
    if len(getattr(corpus, split)):
        return ""
    return (
        f"There will be no score, because corpus.{split}_share={config.corpus[f'{split}_share']:g} "
        f"holds out none of the {windows} windows of {titles} titles: raise it, or give each title "
        "more text."
    )


def _check_optimizer(config: DictConfig) -> None:
    optimizer = config.optimizer
    try:
        made = hydra.utils.instantiate(optimizer.keras)
    except Exception as error:
        raise ExperimentError(
            f"optimizer={optimizer.name} cannot be made: {callables.reason(error)}."
        ) from error
    if not isinstance(made, keras.Optimizer):
        raise ExperimentError(
            f"optimizer={optimizer.name}: {optimizer.keras._target_} makes a {type(made).__name__},"
            " no Keras optimizer."
        )
    used = numerics.named(config.numerics.name)
    reaches(optimizer_json(config), used.jit_compile, optimizer_sources(config))


def _check_function(group: str, node: DictConfig) -> None:
    """Tries to import the function of an encoder or a loss that is not the question's."""
    try:
        if node.function is not None:
            contents.resolved(node.function)
    except Exception as error:
        raise ExperimentError(
            f"{group}={node.name}: {node.function} cannot be imported; correct the path in its YAML"
            " file, or put its module's folder on PYTHONPATH."
        ) from error


def _check_similarity(placement: DictConfig) -> None:
    """Tries the placement on two texts and three titles, as the model will call it."""
    try:
        function = contents.resolved(placement.function)
    except Exception as error:
        raise ExperimentError(
            f"similarity={placement.name}: {placement.function} cannot be imported; correct the"
            " path in its YAML file, or put its module's folder on PYTHONPATH."
        ) from error
    takes_epsilon = "epsilon" in inspect.signature(function).parameters
    if takes_epsilon != (placement.epsilon is not None):
        raise ExperimentError(
            f"similarity={placement.name}: its YAML file has {'no' if takes_epsilon else 'an'}"
            f" epsilon, but {placement.function} {'takes one' if takes_epsilon else 'takes none'}."
        )
    bound = partial(function, epsilon=placement.epsilon) if takes_epsilon else function
    try:
        shape = bound(
            np.ones((2, 1, 4), np.float32), np.ones((2, 3, 4), np.float32), numerics.KERNELS
        ).shape
    except Exception as error:
        raise ExperimentError(
            f"similarity={placement.name} fails: {type(error).__name__}: {first_line(error)}"
        ) from error
    if tuple(shape) != (2, 3):
        raise ExperimentError(
            f"similarity={placement.name} returns shape {tuple(shape)} for a [2, 1, 4] and b [2, 3,"
            " 4]; it must reduce the last axis only, to (2, 3)."
        )


def require_space(folder: Path) -> None:
    """Raises ExperimentError if the disk under `folder` has too little room for a run's outputs."""
    free = shutil.disk_usage(folder).free
    if free < FREE_SPACE:
        raise ExperimentError(
            f"The disk under {os.path.abspath(folder)} has {free / 1e6:.0f} MB left and a run may"
            f" need {FREE_SPACE / 1e6:.0f}: free some, or set ZERONORM_HOME to another disk."
        )
