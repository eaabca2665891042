"""A failing step in a file: the weights and optimizer state of before it, its batch and its random
seeds."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

FORMAT = 1  # of the file


class CapsuleError(Exception):
    """A capsule that cannot be used: one sentence that says why and what to do."""


@dataclass(frozen=True)
class Capsule:
    """step: its number in the training.
    jit_compile: as it was trained.
    state: [(path, value), ...] of every variable that the step may change, in the order in which it
        meets them.
    batch: nested lists, tuples and dicts of tensors, as fit had it.
    config: of a run of this project, as YAML.
    names: {weight: what each row stands for}."""

    step: int
    jit_compile: bool
    state: tuple[tuple[str, np.ndarray], ...]
    batch: Any
    config: str = ""
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def save(self, path: str | Path) -> Path:
        """Writes one .npz file, which `load` reads; numpy.load shows what it holds."""
        path = Path(path)
        about = {
            "format": FORMAT,
            "step": self.step,
            "jit_compile": self.jit_compile,
            "paths": [name for name, _ in self.state],
            "batch": _outline(self.batch),
            "config": self.config,
            "names": {weight: list(names) for weight, names in self.names.items()},
            "versions": {name: version(name) for name in ("tensorflow", "keras", "numpy")},
        }
        arrays: dict[str, Any] = {
            f"state_{number}": _storable(value) for number, (_, value) in enumerate(self.state)
        }
        leaves = [
            leaf for leaf in tf.nest.flatten(self.batch, expand_composites=True) if leaf is not None
        ]
        arrays |= {
            f"batch_{number}": _storable(np.asarray(leaf)) for number, leaf in enumerate(leaves)
        }
        with open(path, "wb") as file:
            np.savez_compressed(file, about=json.dumps(about), **arrays)
        return path

    def restore(self, variables: Sequence[tuple[str, tf.Variable]]) -> None:
        """Puts the state into a model's variables, which are found by their paths less the numbers
        that Keras gives to layers without a name of their own, and, among equals, by their order.
        Raises CapsuleError if they do not fit.
        """
        waiting: dict[tuple, list[np.ndarray]] = {}
        for path, value in self.state:
            waiting.setdefault((_unnumbered(path), value.shape), []).append(value)
        found = []
        for path, variable in variables:
            values = waiting.get((_unnumbered(path), tuple(variable.shape)))
            if not values:
                raise CapsuleError(
                    f"The capsule is of another model: it has nothing for '{path}' of shape"
                    f" {tuple(variable.shape)}. Build and compile the model as it was trained."
                )
            found.append(values.pop(0))
        for (path, variable), value in zip(variables, found, strict=True):
            try:
                variable.assign(tf.cast(value, variable.dtype))
            except (TypeError, ValueError, tf.errors.OpError) as error:  # texts, objects
                raise CapsuleError(
                    f"The capsule holds {value.dtype} where '{path}' is {variable.dtype}."
                ) from error


def load(path: str | Path) -> Capsule:
    """Reads what `Capsule.save` wrote; nothing in it is called. Raises CapsuleError if it is no
    such file."""
    if not Path(path).is_file():
        raise CapsuleError(f"There is no file {path}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            if isinstance(about, dict) and about.get("format", FORMAT) != FORMAT:
                raise CapsuleError(
                    f"{path} was written by another version of zeronorm (format"
                    f" {about['format']!r:.40})."
                )
            _check(about)
            state = tuple(
                (name, file[f"state_{number}"]) for number, name in enumerate(about["paths"])
            )
            leaves = [
                file[name] for name in sorted(file.files, key=_number) if name.startswith("batch_")
            ]
        batch = _filled(about["batch"], iter(leaves))
    except CapsuleError:
        raise
    # a file of any other kind fails in a way of its own: zip, zlib, JSON, NumPy, TensorFlow
    except Exception as error:
        why = f": {error}" if isinstance(error, MalformedError) else ""
        raise CapsuleError(
            f"{path} is no capsule{why}: give a file that zeronorm.Autopsy(capsule=...) wrote."
        ) from error
    names = {
        weight: [_printable(name) for name in names] for weight, names in about["names"].items()
    }
    return Capsule(about["step"], about["jit_compile"], state, batch, about["config"], names)


class MalformedError(ValueError):
    """What a capsule's description lacks, in a few words."""


def _check(about) -> None:
    """Raises MalformedError unless a capsule's description has every part, each of its type."""
    if not isinstance(about, dict):
        raise MalformedError("its description is no dict")
    kinds = {
        "format": int,
        "step": int,
        "jit_compile": bool,
        "paths": list,
        "config": str,
        "names": dict,
    }
    for key, kind in kinds.items():
        if type(about.get(key)) is not kind:
            raise MalformedError(
                f"its {key} is {'missing' if key not in about else f'no {kind.__name__}'}"
            )
    if "batch" not in about or about["step"] < 0:
        raise MalformedError("it has no batch" if "batch" not in about else "its step is negative")
    for listed in (about["paths"], *about["names"].values()):
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise MalformedError("its paths and names are no texts")


def _printable(name: str) -> str:
    """Without what would steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in name)


def _unnumbered(path: str) -> str:
    return re.sub(r"_\d+(?=[/_#:]|$)", "", path.removesuffix(":0"))


def _number(name: str) -> int:
    return int(name.rpartition("_")[2]) if "_" in name else -1


def _storable(value: np.ndarray) -> np.ndarray:
    """As numpy can write it without pickling: texts as bytes of one length, bfloat16 as float32."""
    if value.dtype == object:
        return value.astype(np.bytes_)
    return value.astype(np.float32) if value.dtype == tf.bfloat16.as_numpy_dtype else value


def _outline(batch):
    """The nesting of a batch as JSON: in the order in which tf.nest flattens it."""
    if isinstance(batch, dict):
        return {"dict": {name: _outline(batch[name]) for name in sorted(batch)}}
    if isinstance(batch, (list, tuple)):
        return {"list" if isinstance(batch, list) else "tuple": [_outline(part) for part in batch]}
    if isinstance(batch, tf.RaggedTensor):
        return {"ragged": [tf.as_dtype(batch.dtype).name, batch.ragged_rank]}
    if isinstance(batch, tf.SparseTensor):
        return {"sparse": batch.dtype.name}
    return None if batch is None else tf.as_dtype(batch.dtype).name


def _filled(outline, leaves):
    if outline is None:
        return None
    if isinstance(outline, str):
        return tf.constant(next(leaves), outline)
    [(kind, parts)] = outline.items()
    if kind == "dict":
        return {name: _filled(part, leaves) for name, part in parts.items()}
    if kind == "sparse":
        indices, values, shape = (next(leaves) for _ in range(3))
        return tf.SparseTensor(indices, tf.constant(values, parts), shape)
    if kind == "ragged":
        values = tf.constant(next(leaves), parts[0])
        return tf.RaggedTensor.from_nested_row_splits(
            values, [next(leaves) for _ in range(parts[1])]
        )
    return {"list": list, "tuple": tuple}[kind](_filled(part, leaves) for part in parts)
