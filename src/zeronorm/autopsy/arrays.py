"""Values as an examination hands them over: arrays, and of large ones only where they are not
finite."""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Packed:
    """A large value of which only what is not finite, or large, is told.

    kinds: as `examiner.compacted` has them.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    kinds: bytes
    largest: float

    def array(self) -> np.ndarray:
        """NaN and infinity where they were, `largest` where the value was finite and large,
        else 0."""
        kinds = np.frombuffer(zlib.decompress(self.kinds), np.uint8).reshape(self.shape)
        return np.array([0, np.inf, np.nan, self.largest], self.dtype)[kinds]


def unpacked(kind: str, *value):
    """What `examiner.compacted` made of a value: an array or, of a large one that is not finite, a
    `Packed`."""
    if kind == "array":
        return value[0]
    shape, dtype, *more = value
    dtype = tf.as_dtype(dtype).as_numpy_dtype
    return (
        np.broadcast_to(dtype(more[0]), shape) if kind == "largest" else Packed(shape, dtype, *more)
    )


def as_array(value) -> np.ndarray:
    if isinstance(value, Packed):
        return value.array()
    # a bfloat16 of rank 0 is no array yet
    return np.asarray(value.numpy() if tf.is_tensor(value) else value)


class Arrays(Mapping):
    """{tensor: array} of values but lists of tensors; those that are packed are unpacked each time
    that they are asked for, because all at once may be too large."""

    def __init__(self, values: Mapping):
        packed = {n: v for n, v in values.items() if isinstance(v, Packed)}
        others = {n: v for n, v in values.items() if n not in packed and v.dtype != tf.variant}
        self._values = packed | {name: as_array(value) for name, value in others.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        return as_array(self._values[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
