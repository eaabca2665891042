"""The model that a user's function returns, for a capsule that holds only its step."""

import pkgutil
import traceback
from pathlib import Path

import keras


class ModelError(Exception):
    """A MODULE:FUNCTION that gives no compiled model: one sentence."""


def made(factory: str) -> keras.Model:
    """Calls MODULE:FUNCTION. Raises ModelError, with the line of the user's code that did it."""
    if ":" not in factory:
        raise ModelError(f"--model {factory} names no function: write MODULE:FUNCTION.")
    try:
        model = pkgutil.resolve_name(factory)()
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}"
        inside = traceback.extract_tb(error.__traceback__)[1:]
        own = [frame for frame in inside if not frame.filename.startswith("<frozen")]
        at = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
        raise ModelError(f"--model {factory} gives no model: {said}{at}.") from error
    if not getattr(model, "compiled", False):
        raise ModelError(
            f"--model {factory} returns {type(model).__name__}, not a compiled Keras model."
        )
    return model
