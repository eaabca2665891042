"""zeronorm: why a cosine ranker's weights turn to NaN, as an experiment-tracked ablation; and the
same question asked of any Keras model, by `zeronorm.Autopsy`."""

__all__ = ["Autopsy", "examine", "replay"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'zeronorm' has no attribute {name!r}")
    from zeronorm import autopsy  # imports TensorFlow

    return getattr(autopsy, name)
