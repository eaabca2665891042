"""Whether what the configuration names can be called with the arguments that it gives."""

import inspect
import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any


class CallError(Exception):
    """A config node that cannot be called: one sentence for the person who wrote it."""


def require_callable(at: str, node: Mapping[str, Any], passed: Iterable[str]) -> None:
    """Raises CallError unless the node's _target_ is there and takes the node's arguments.

    at: the node's dotted path. passed: names of the arguments that the run adds to them.
    """
    target = node["_target_"]
    try:
        function = pkgutil.resolve_name(target)
    except Exception as error:
        raise CallError(
            f"{at}._target_={target} cannot be imported ({reason(error)}): correct the path, or put"
            " its module's folder on PYTHONPATH."
        ) from error
    if not callable(function):
        raise CallError(
            f"{at}._target_={target} is a {type(function).__name__}, which cannot be called."
        )
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    try:
        inspect.signature(function).bind(**arguments, **dict.fromkeys(passed))
    except ValueError:  # some builtins have no signature
        return
    except TypeError as error:
        raise CallError(
            f"{at}: {target} does not take these arguments ({reason(error)})."
        ) from error


def reason(error: BaseException) -> str:
    """What lies under an exception, in one line: of a chain the first, which the others only pass
    on."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = " ".join(str(error).split()).rstrip(".")
    return said or type(error).__name__
