"""What a run would find here: versions, devices, compilers, the home folder and the store."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import joblib
import psutil
import tensorflow as tf
from omegaconf import DictConfig

from zeronorm import checks, numerics, preparation, provenance, tracking

GIGA = 2**30
COUNTED = 1000  # runs, at most


@dataclass(frozen=True)
class Finding:
    """A line of the examination.

    what: is examined.
    found: in words.
    fault: what is wrong with it and what to do, in a sentence; empty where nothing is.
    """

    what: str
    found: str
    fault: str = ""


def examined(config: DictConfig) -> Iterator[Finding]:
    """Everything, in order: each finding as soon as it is known, because some take seconds."""
    made = provenance.tags()
    libraries = [part.strip() for part in made["versions"].split(",")]
    yield Finding("versions", ", ".join(libraries[:4]))
    yield Finding("", ", ".join(libraries[4:]))
    dirty = " with uncommitted changes" if made.get("git.dirty") == "true" else ""
    commit = made["git.commit"][:12] if "git.commit" in made else "an installed package"
    yield Finding("zeronorm", f"{version('zeronorm')}, {commit}{dirty}")
    memory = psutil.virtual_memory()
    cores = joblib.cpu_count()  # those that a sweep may use, container limits included
    room = f"{memory.available / GIGA:.1f} of {memory.total / GIGA:.1f} GiB of memory free"
    yield Finding("machine", f"{cores} cores, {room}")
    yield from _compilers()
    yield _home(Path(config.home))
    yield _store(config)


def _compilers() -> Iterator[Finding]:
    """What TensorFlow sees, and what Keras would compile with."""
    gpus = [device.name for device in tf.config.list_physical_devices("GPU")]
    yield Finding("devices", ", ".join(["CPU", *gpus]))
    picked = numerics.named("auto").name
    yield Finding("jit_compile", f'"auto", Keras\'s default, means {picked} here')
    try:
        doubled = tf.function(lambda x: x + x, jit_compile=True)(tf.constant(1.0))
        fault = "" if float(doubled) == 2.0 else "XLA computes 1 + 1 wrongly: leave numerics=xla."
    except Exception as error:  # whatever a compiler that is broken raises
        said = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        fault = f"XLA does not compile here ({said}): leave numerics=xla."
    yield Finding("XLA", "does not work" if fault else "compiles", fault)


def _home(home: Path) -> Finding:
    """The folder that everything is written to, or the nearest above it that is there."""
    home = home.resolve()
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    found = f"{home}, {shutil.disk_usage(there).free / GIGA:.1f} GiB free"
    if not there.is_dir() or not os.access(there, os.W_OK):
        return Finding("home", found, f"{there} cannot be written: set ZERONORM_HOME to another.")
    try:
        checks.require_space(there)
    except preparation.ExperimentError as error:
        return Finding("home", found, str(error))
    return Finding("home", found if home.exists() else f"{found}; not made yet")


def _store(config: DictConfig) -> Finding:
    """The tracking store, which is not made by looking at it."""
    if config.tracking.uri is None:
        return Finding("store", "none", "tracking=server needs a URI: set MLFLOW_TRACKING_URI.")
    uri = tracking.store_uri(config)
    shown = provenance.without_passwords(uri)
    file = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not file.exists():
        return Finding("store", f"none yet at {file}: the first run makes it")
    try:
        client = tracking.answering(uri)
        found = [one for one in client.search_experiments() if one.name != "Default"]
        numbers = [one.experiment_id for one in found]
        runs = len(client.search_runs(numbers, max_results=COUNTED)) if numbers else 0
    except tracking.TrackingError as error:
        return Finding("store", shown, str(error))
    except tracking.MlflowException as error:
        fault = f"The store does not answer ({provenance.without_passwords(str(error))[:100]})."
        return Finding("store", shown, fault)
    more = " or more" if runs == COUNTED else ""
    return Finding("store", f"{shown} answers; experiments: {len(found)}, runs: {runs}{more}")
