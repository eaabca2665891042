"""What each number of the configuration may be: one table, so that nan, inf, a wrong sign and what
float32 cannot hold are answered in a sentence before any work."""

from dataclasses import dataclass
from typing import Any

import numpy as np

FLOAT32 = np.finfo(np.float32)
TINY, LARGEST = float(FLOAT32.tiny), float(FLOAT32.max)  # below TINY TensorFlow computes with 0
WHOLE = 2**31 - 1  # int32, which TensorFlow counts in


@dataclass(frozen=True)
class Range:
    """The values of one number key.

    low, high: bounds;
    above, below: whether the bound itself is excluded.
    whole: an int.
    null: may be null as well.
    float32: enters the model, which is float32, and has to lie within the bounds there too.
    squared: its square is taken there.
    """

    low: float = 0.0
    high: float = LARGEST
    above: bool = False
    below: bool = False
    whole: bool = False
    null: bool = False
    float32: bool = True
    squared: bool = False

    def fault(self, value: Any) -> str | None:
        """What is wrong with it, to follow 'key=value '; None if nothing is."""
        if value is None:
            return None if self.null else self._wanted(value)
        number = int if self.whole else int | float
        if isinstance(value, bool) or not isinstance(value, number) or not self._holds(value):
            return self._wanted(value)
        if self.whole or not self.float32 or value == 0:
            return None
        if self.squared and not TINY <= value * value <= LARGEST:
            return (
                f"has a square that is {'0' if abs(value) < 1 else 'infinite'} in float32, and"
                " every norm takes it"
            )
        if abs(value) < TINY:
            return f"is 0 in float32, whose smallest number is {TINY:.1e}"
        if abs(value) > LARGEST:
            return f"is infinite in float32, whose largest number is {LARGEST:.1e}"
        rounded = float(np.float32(value))
        return (
            None
            if self._holds(rounded)
            else f"is {rounded:g} in float32, and {self._wanted(rounded)}"
        )

    def _holds(self, value: float) -> bool:
        """False for nan."""
        over = self.low < value if self.above else self.low <= value
        return (
            over
            and (value < self.high if self.below else value <= self.high)
            and abs(value) != np.inf
        )

    def _wanted(self, value: Any) -> str:
        """The bounds in words; one that every number here has only where it is the one that is
        passed."""
        passed = isinstance(value, int | float) and value > self.high
        bounds = []
        if self.low > -LARGEST:
            bounds.append(f"{'greater than' if self.above else 'of at least'} {self.low:g}")
        if self.high < WHOLE or passed:
            number = f"{self.high:.2g}" if self.high == LARGEST else str(int(self.high))
            bounds.append(f"{'less than' if self.below else 'at most'} {number}")
        kind = "whole number" if self.whole else "finite number"
        said = " ".join([f"must be a {kind}", " and ".join(bounds)]).rstrip()
        return f"{said}{', or null' if self.null else ''}"


def _whole(low: int, high: int = WHOLE, null: bool = False) -> Range:
    return Range(low, high, whole=True, null=null, float32=False)


DECAY = Range(high=1, below=True)  # of a moving average; 1 would never move
POSITIVE = Range(above=True)
LIMIT = Range(above=True, null=True)  # of a gradient
RANGES = {
    "seed": _whole(0, 2**63 - 1),
    "rounding": _whole(1, 2**63 - 1, null=True),
    "examples": _whole(1, null=True),
    "corpus.window": _whole(1),
    "corpus.min_window": _whole(1),
    "corpus.test_share": Range(high=1, below=True, float32=False),
    "corpus.validation_share": Range(high=1, below=True, float32=False),
    "corpus.seed": _whole(0, 2**63 - 1),
    "corpus.reader.title_words": _whole(1),
    "vectors.zero_share": Range(high=1, null=True, float32=False),
    "vectors.zero_word_share": Range(high=1, null=True, float32=False),
    # small ones are what a study asks about
    "vectors.planted_norm": Range(null=True, float32=False),
    "vectors.source.dim": _whole(1),
    "vectors.source.min_count": _whole(0),
    "vectors.source.window": _whole(1),  # of 0 gensim's thread dies, and its parent waits for ever
    "vectors.source.epochs": _whole(1),
    "vectors.source.seed": _whole(0, 2**32 - 1),  # of NumPy's RandomState
    "init.scale": Range(above=True, null=True, squared=True),
    "init.norm": Range(above=True, null=True, squared=True),
    "similarity.epsilon": Range(high=1, above=True, below=True, null=True),
    "loss.temperature": Range(above=True, null=True),
    "model.filters": _whole(1),
    "model.width": _whole(1),
    "model.dropout": Range(high=1, below=True),
    "training.epochs": _whole(1),
    "training.batch": _whole(1),
    "training.negatives": _whole(1),
    "training.margin": Range(high=2**24, below=True),  # from there on float32 adds no cosine to it
    "tracking.points": _whole(1),
    # of Keras's optimizers, by the names that they share
    "optimizer.keras.learning_rate": Range(above=True, squared=True),
    "optimizer.keras.weight_decay": Range(null=True),
    "optimizer.keras.clipnorm": LIMIT,
    "optimizer.keras.global_clipnorm": LIMIT,
    "optimizer.keras.clipvalue": LIMIT,
    "optimizer.keras.ema_momentum": DECAY,
    "optimizer.keras.ema_overwrite_frequency": _whole(1, null=True),
    "optimizer.keras.loss_scale_factor": LIMIT,
    "optimizer.keras.gradient_accumulation_steps": _whole(2, null=True),  # Keras's own limit
    "optimizer.keras.momentum": DECAY,
    "optimizer.keras.beta_1": DECAY,
    # zeronorm.optimizers.Adam divides by it
    "optimizer.keras.beta_2": Range(high=1, above=True, below=True),
    "optimizer.keras.epsilon": POSITIVE,  # of 0 a gradient of 0 gives 0 / 0
    "optimizer.keras.rho": DECAY,
    "optimizer.keras.initial_accumulator_value": Range(),
    "optimizer.keras.learning_rate_power": Range(low=-LARGEST, high=0),
    "optimizer.keras.l1_regularization_strength": Range(),
    "optimizer.keras.l2_regularization_strength": Range(),
    "optimizer.keras.l2_shrinkage_regularization_strength": Range(),
    "optimizer.keras.beta": Range(),
    "optimizer.keras.beta_2_decay": Range(low=-LARGEST, high=0, below=True),
    "optimizer.keras.epsilon_1": POSITIVE,
    "optimizer.keras.epsilon_2": POSITIVE,
    "optimizer.keras.clip_threshold": POSITIVE,
    "optimizer.keras.warmup_steps": _whole(0),
    "optimizer.keras.adam_beta_1": DECAY,
    "optimizer.keras.adam_beta_2": DECAY,
    "optimizer.keras.adam_weight_decay": Range(null=True),
    "optimizer.keras.adam_lr_ratio": POSITIVE,
    "optimizer.keras.muon_a": Range(low=-LARGEST),
    "optimizer.keras.muon_b": Range(low=-LARGEST),
    "optimizer.keras.muon_c": Range(low=-LARGEST),
    "optimizer.keras.ns_steps": _whole(1),
    "optimizer.keras.rms_rate": POSITIVE,
    "optimizer.keras.initial_scale": POSITIVE,
    "optimizer.keras.dynamic_growth_steps": _whole(1),
}
