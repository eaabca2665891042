"""A config that comes out of a file (a capsule, a run in a store) is a stranger's: it is held
against the schema, and may name only what conf/ ships and Keras's own optimizers, because a name in
a config is imported and called.

What a person types may name anything. Nothing here imports TensorFlow or opens what a config names.
"""

from collections.abc import Iterator
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zeronorm import checkout
from zeronorm import config as schema
from zeronorm.config import ConfigError

LONGEST = 100_000  # characters of a config; a run's own has about 2,000
DEEPEST = 20  # levels; a run's own has 4
SCALAR = (str, int, float, bool, type(None))

OPTIMIZERS = {  # besides those of conf/optimizer
    f"keras.optimizers.{name}"
    for name in (
        *("SGD", "RMSprop", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax", "Adafactor", "Nadam"),
        *("Ftrl", "Lion", "Lamb", "Muon", "ScheduleFreeAdamW"),
    )
}
SCHEDULES = {
    f"keras.optimizers.schedules.{name}"
    for name in (
        *("CosineDecay", "CosineDecayRestarts", "ExponentialDecay", "InverseTimeDecay"),
        *("PiecewiseConstantDecay", "PolynomialDecay"),
    )
}


def config(text: str, source: str, trusted: bool = False, opens: bool = True) -> DictConfig:
    """The config in `text`, YAML, merged into the schema and validated.

    source: what the text is of, the beginning of every sentence.
    trusted: names and interpolations are taken as if they had been typed.
    opens: whether the files that it names will be read; else they are not even looked for.

    Raises ConfigError: one sentence, which for a name names --trust.
    """
    node = _parsed(text, source)
    if not trusted:
        for key, value in _leaves(OmegaConf.to_container(node, resolve=False)):
            if "${" in f"{key}{value}":
                raise _refused(
                    source, key, value, "an interpolation, which a finished run has none of"
                )
            if not f"{key}{value}".isprintable():
                raise _refused(source, key, value, "a text that would steer a terminal")
    found = _merged(node, source)
    if not trusted:
        for key, value, why in _strange(schema.plain(found)):
            raise _refused(source, key, value, why)
    try:
        schema.validate(found if opens else _without_paths(found))
    except ConfigError as error:
        raise ConfigError(f"{source} cannot be run: {error}") from error
    # only trusted arguments can be of a type that the rules do not expect
    except Exception as error:
        raise ConfigError(f"{source} cannot be run: {shown(error)}.") from error
    return found


def shown(value: Any) -> str:
    """A value of a file as part of a sentence: one line, printable, not long."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(value).split()))
    return text if len(text) <= 100 else f"{text[:100]}..."


def _refused(source: str, key: str, value: Any, why: str) -> ConfigError:
    return ConfigError(
        f"{source} holds {shown(key)}={shown(value)}, {why}: of a file nothing is called or opened"
        " unasked; if you trust it, add --trust."
    )


def _parsed(text: str, source: str) -> DictConfig:
    try:
        if len(text) > LONGEST:
            raise ValueError(f"it has {len(text)} characters")
        _require_plain(text)
        node = OmegaConf.create(text)
        if not isinstance(node, DictConfig):
            raise ValueError("it is a list")
    # YAML, OmegaConf and Python each have their own; whichever it is, the text is at fault
    except Exception as error:
        raise ConfigError(
            f"{source} holds no config of a run ({shown(error) or type(error).__name__})."
        ) from error
    return node


def _require_plain(text: str) -> None:
    """Raises ValueError at what makes a few lines of YAML take gigabytes, or minutes."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
            event, yaml.CollectionEndEvent
        )
        if isinstance(event, yaml.AliasEvent) or depth > DEEPEST:
            raise ValueError(
                "it holds YAML aliases" if depth <= DEEPEST else f"it is nested over {DEEPEST} deep"
            )


def _merged(node: DictConfig, source: str) -> DictConfig:
    try:
        found = schema.merged(OmegaConf.structured(schema.Config), node)
        OmegaConf.resolve(found)
        missing = sorted(OmegaConf.missing_keys(found))
    except (OmegaConfBaseException, RecursionError, ValueError, TypeError) as error:
        key = getattr(error, "full_key", None)
        at = f"{key}: " if key else ""
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"{source} holds no config of this version of zeronorm ({shown(at + said)})."
        ) from error
    if missing:
        raise ConfigError(
            f"{source} holds no whole config of a run: {shown(', '.join(missing))} has no value."
        )
    return found


def _without_paths(found: DictConfig) -> DictConfig:
    """With nothing that would be looked for on this machine."""
    held = {"reader": {"path": None}}, {"source": {"path": None}}, {"uri": "unused"}
    return schema.merged(found, dict(zip(("corpus", "vectors", "tracking"), held, strict=True)))


def _leaves(node: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted place, value) of every value that holds no others; of an empty dict and list too."""
    parts = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    if not parts:
        yield at, node
    for key, value in parts:
        yield from _leaves(value, f"{at}.{key}" if at else str(key))


def _strange(found: dict) -> Iterator[tuple[str, Any, str]]:
    """(place, value, what it is) of what a file may not hold."""
    yield from _strange_similarity(found["similarity"])
    if found["numerics"]["name"] not in _choices("numerics"):
        yield "numerics.name", found["numerics"]["name"], "which is none of conf/numerics"
    for group in ("encoder", "loss"):
        shipped_functions = [of["function"] for of in _choices(group).values()]
        if found[group]["function"] not in shipped_functions:
            yield f"{group}.function", found[group]["function"], f"which conf/{group} does not ship"
    for group, node in (("corpus", "reader"), ("vectors", "source")):
        shipped: dict[str, dict] = {}
        for of in _choices(group).values():
            shipped.setdefault(of[node]["_target_"], {}).update(of[node])
        yield from _strange_source(f"{group}.{node}", found[group][node], shipped)
    optimizer = found["optimizer"]["keras"]
    known = OPTIMIZERS | {of["keras"]["_target_"] for of in _choices("optimizer").values()}
    yield from _strange_call("optimizer.keras", optimizer, known, ("learning_rate",))


def _choices(group: str) -> dict[str, dict]:
    """{name: content} of the files of a folder of conf/."""
    files = (checkout.conf_dir() / group).glob("*.yaml")
    found: dict[str, Any] = {
        file.stem: OmegaConf.to_container(OmegaConf.load(file)) for file in files
    }
    return found


def _strange_similarity(placement: dict) -> Iterator[tuple[str, Any, str]]:
    shipped = {of["function"]: of for of in _choices("similarity").values()}
    if placement["function"] not in shipped:
        yield "similarity.function", placement["function"], "which conf/similarity does not ship"
        return
    for key in ("epsilon", "bounds"):
        if (placement[key] is None) != (shipped[placement["function"]].get(key) is None):
            yield (
                f"similarity.{key}",
                placement[key],
                f"which does not go with {placement['function']}",
            )


def _strange_source(
    at: str, node: dict, shipped: dict[str, dict]
) -> Iterator[tuple[str, Any, str]]:
    """A corpus's reader or the vectors' source: one of conf/, with arguments of the kinds that
    stand there."""
    target = node.get("_target_")
    if not isinstance(target, str) or target not in shipped:
        yield f"{at}._target_", target, "which conf/ does not ship"
        return
    for key, value in node.items():
        if key not in shipped[target]:
            yield f"{at}.{key}", value, f"which {target} does not take"
        kind = int if isinstance(shipped[target].get(key), int) else (str, type(None))
        if not isinstance(value, kind) or isinstance(value, bool):
            yield f"{at}.{key}", value, f"which is no argument of {target}"
    if node.get("format") == "gensim":
        yield f"{at}.format", "gensim", "a pickle, which runs what it holds when it is opened"


def _strange_call(at: str, node: Any, allowed: set[str], scheduled: tuple[str, ...] = ()):
    """A call of one of the `allowed`, with numbers, texts, true, false and null; `scheduled`: the
    arguments that may be a schedule of Keras."""
    target = node.get("_target_") if isinstance(node, dict) else None
    if not isinstance(target, str) or target not in allowed:
        yield f"{at}._target_", target, "which is no optimizer or schedule of Keras or of zeronorm"
        return
    for key, value in node.items():
        key = str(key)
        numbers = isinstance(value, list) and all(type(one) in (int, float) for one in value)
        if key != "_target_" and (not key.isidentifier() or key.startswith("_")):
            yield f"{at}.{key}", value, "which is no argument of an optimizer"
        elif key in scheduled and isinstance(value, dict):
            yield from _strange_call(f"{at}.{key}", value, SCHEDULES)
        elif not isinstance(value, SCALAR) and not (numbers and allowed is SCHEDULES):
            yield f"{at}.{key}", value, "which is no number, text, true, false or null"
