"""The schema of conf/: the one place that knows key names, types, ranges and which options exclude
each other.

Nothing here imports TensorFlow, so that a mistake is answered before the slow imports and before
any work.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from enum import Enum
from functools import reduce
from operator import getitem
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zeronorm import checkout, contents
from zeronorm.ranges import RANGES, Range


class ConfigError(Exception):
    """An option that cannot be, or two that exclude each other: one sentence for the person who
    typed it."""


class ValidationSplit(Enum):
    """Where the validation windows come from. `last_tenth` is Keras's validation_split, as the
    question used it."""

    per_title = "per_title"
    last_tenth = "last_tenth"


class OnNan(Enum):
    """When a run ends before its budget: never; with the first non-finite value anywhere; with the
    step that makes the encoder's kernels non-finite, after which every step is."""

    go_on = "go_on"
    stop = "stop"
    stop_when_lost = "stop_when_lost"


class ZeroTitles(Enum):
    """Cures that leave the zero title rows as they are: their hinges multiplied by 0; no example
    and no negative that holds one."""

    masked = "masked"
    left_out = "left_out"


class Split(Enum):
    test = "test"
    validation = "validation"


class Start(Enum):
    vectors = "vectors"
    uniform = "uniform"


@dataclass
class CorpusConfig:
    name: str = MISSING
    # _target_: a function that yields (title, tokens) articles, and its arguments
    reader: dict[str, Any] = MISSING
    window: int = 100  # tokens of one example; also the padded length of the model's input
    min_window: int = 50  # tokens; a shorter last window of an article is dropped
    test_share: float = 0.1  # of each title's windows; at least one window stays in train
    validation_share: float = 0.1  # of the remaining train windows
    validation_split: ValidationSplit = ValidationSplit.per_title
    seed: int = 0


@dataclass
class VectorsConfig:
    name: str = MISSING
    # _target_: a function that returns gensim KeyedVectors, and its arguments
    source: dict[str, Any] = MISSING
    dtype: str = "float32"  # of the matrices before they enter the model, which is float32
    normalise: bool = False  # rows divided by their norm (zero rows stay)
    # share of zero title rows, set by hand; null leaves those that arise
    zero_share: float | None = None
    # of the title rows that zero_share sets, instead of 0; null: 0
    planted_norm: float | None = None
    zero_word_share: float | None = None  # share of the word rows set to zero besides; null: none


REPAIRS = ("noise", "mean", "title_words")  # what zeronorm.vectors knows


@dataclass
class InitConfig:
    name: str = MISSING
    start: Start = Start.vectors
    repair: str | None = None  # rule for zero title rows, one of REPAIRS; null keeps them
    scale: float | None = None  # uniform in [-scale, scale]; the 'uniform' of Keras 2 is 0.05
    norm: float | None = None  # rescales both matrices to this mean norm of their non-zero rows


@dataclass
class SimilarityConfig:
    name: str = MISSING
    function: str = MISSING  # dotted path
    epsilon: float | None = None
    bounds: str | None = None  # what epsilon bounds; null: the placement has no epsilon
    least_norm: str | None = None  # the row norm below which epsilon takes over
    shipped_by: list[str] = field(default_factory=list)


@dataclass
class NumericsConfig:
    name: str = MISSING


@dataclass
class OptimizerConfig:
    name: str = MISSING
    keras: dict[str, Any] = MISSING  # _target_: a Keras optimizer, and its arguments


@dataclass
class EncoderConfig:
    name: str = "cnn"
    function: str | None = None  # dotted path; null: the question's


@dataclass
class LossConfig:
    name: str = "max_margin"
    function: str | None = None  # dotted path; null: the question's
    temperature: float | None = None  # of a softmax
    in_batch: bool | None = None  # true: a batch's negatives are its other right titles


@dataclass
class ModelConfig:
    filters: int = 1000
    width: int = 5  # words a filter sees
    dropout: float = 0.2
    tied: bool | None = None  # true: a word that is also a title has that title's row


@dataclass
class TrainingConfig:
    name: str = MISSING
    epochs: int = 10
    batch: int = 10
    negatives: int = 10  # random other titles per example
    margin: float = 1.0
    shuffle: bool = True
    on_nan: OnNan = OnNan.go_on
    zero_titles: ZeroTitles | None = None  # null: trained on like any other
    evaluate_on: Split = Split.test
    evaluate_every_epoch: bool = False  # besides the evaluation at the end


@dataclass
class TrackingConfig:
    name: str = MISSING
    uri: str | None = MISSING
    # where a new experiment's artifacts go; null: where the server puts them
    artifacts: str | None = None
    points: int = 40  # logged points of one curve; the artifact curves.csv.gz has every step


@dataclass
class Config:
    corpus: CorpusConfig = MISSING
    vectors: VectorsConfig = MISSING
    init: InitConfig = MISSING
    similarity: SimilarityConfig = MISSING
    numerics: NumericsConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    model: ModelConfig = field(default_factory=ModelConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = MISSING
    tracking: TrackingConfig = MISSING
    trainable: bool | str = True  # true, false: both embeddings; words, titles: that one alone
    # the first so many of a fixed random order of the train windows; null: all
    examples: int | None = None
    seed: int = 0  # of initial weights, negatives, shuffling and dropout
    # a repeat of a run, for its noise: the number from which each initial weight of the kernels is
    # rounded up or down by one float32; null: as they are
    rounding: int | None = None
    # of every run, or of none; null: of a run by itself, and of those that die in a sweep
    autopsy: bool | None = None
    home: str = MISSING  # store, caches and outputs
    study: str | None = None  # the study a run belongs to; set by the study's file


CALLED = ("corpus.reader", "vectors.source", "optimizer.keras")  # nodes with a _target_
SHIPPED = ("zeronorm.", "keras.")  # whose arguments RANGES knows
NUMERICS = ("kernels", "xla", "tf1", "auto")
# the names of options that a type of their own does not list
CHOICES = {
    "trainable": ("true", "false", "words", "titles"),
    "init.repair": REPAIRS,
    "vectors.dtype": ("float32", "float64"),
}
ANY = Range(-math.inf, math.inf, float32=False)  # a finite number


def register() -> None:
    """Makes the schema known to Hydra, under the name conf/config.yaml starts from."""
    ConfigStore.instance().store(name="schema", node=Config)


def composed(*overrides: str) -> DictConfig:
    """The config of one run, as the command line composes it."""
    register()
    with initialize_config_dir(str(checkout.conf_dir()), version_base="1.3"):
        return compose("config", list(overrides))


def is_group(name: str) -> bool:
    """Whether conf/ has choices of that name, one of which a run needs."""
    known = name != "study" and name in Config.__dataclass_fields__
    return known and (checkout.conf_dir() / name).is_dir()


def choices_of(group: str) -> str:
    """What to write to choose one of a group."""
    names = sorted(file.stem for file in (checkout.conf_dir() / group).glob("*.yaml"))
    return f"use {group}={' or '.join(names) if len(names) < 3 else 'one of ' + ', '.join(names)}"


def paths() -> list[str]:
    """The dotted path of every option."""
    return [path for path, _, _ in _leaves(Config)]


def values(path: str) -> list[str]:
    """What an option may be, where that is one of a few names; of others nothing."""
    names = list(CHOICES.get(path, ()))
    for kind in _kinds(path):
        if isinstance(kind, type) and issubclass(kind, Enum):
            names += [option.name for option in kind]
        elif kind is bool and path not in CHOICES:
            names += ["true", "false"]
    return [*names, "null"] if names and NoneType in _kinds(path) else names


def kind(path: str) -> str:
    """What kind of value an option takes, to follow 'must be'; empty of what is no option."""
    said = {str: "a text", list: "a list", dict: "a mapping", NoneType: "null"}
    found = (get_origin(one) or one for one in _kinds(path))
    return " or ".join(said[one] for one in found if one in said)


def _kinds(path: str) -> tuple[Any, ...]:
    """The types that an option of the schema is the union of; none of what is no option."""
    found = {at: option for at, _, option in _leaves(Config)}.get(path)
    return get_args(found) if isinstance(found, UnionType) else (found,)


def require_present(config: DictConfig) -> None:
    """Raises ConfigError with one sentence if an option of the schema is missing from a composed
    config, or another one is there."""
    for test, reason in _present(OmegaConf.to_container(config), Config):
        if test:
            raise ConfigError(reason)


class _Node(dict):
    """A mapping of a plain config, its keys as attributes too, as the rules read them."""

    def __getattr__(self, key: str) -> Any:
        return self[key]


def _noded(value: Any) -> Any:
    if isinstance(value, dict):
        return _Node((key, _noded(inside)) for key, inside in value.items())
    return value


def validate(config: DictConfig | dict[str, Any]) -> None:
    """Raises ConfigError with one sentence if `config` (a composed, resolved Config, or what
    `plain` makes of it) cannot be run."""
    try:
        for test, reason in _rules(_noded(plain(config))):
            if test:
                raise ConfigError(reason)
    except OmegaConfBaseException as error:  # an interpolation that leads nowhere
        raise ConfigError(f"{str(error).splitlines()[0].rstrip('.')}.") from error


def _leaves(of: type, at: str = "") -> Iterator[tuple[str, type, Any]]:
    """(dotted path, the dataclass it belongs to, its type) of every option of the schema."""
    for option in fields(of):
        if isinstance(option.type, type) and is_dataclass(option.type):
            yield from _leaves(option.type, f"{at}{option.name}.")
        else:
            yield f"{at}{option.name}", of, option.type


def _present(config: Any, of: type, at: str = ""):
    """Rules: every option of the schema is there, and no other."""
    known = [option.name for option in fields(of)]
    for key in set(config) - set(known):
        close = get_close_matches(key, known, 1)
        hint = (
            f"did you mean {at}{close[0]}?"
            if close
            else f"the options there are {', '.join(known)}."
        )
        yield True, f"{at}{key} is no option: {hint}"
    for option in fields(of):
        path = f"{at}{option.name}"
        if config.get(option.name, MISSING) == MISSING:
            what = choices_of(option.name) if is_group(option.name) else "give it a value"
            yield True, f"{path} is missing: {what}."
        if isinstance(option.type, type) and is_dataclass(option.type):
            yield from _present(config[option.name], option.type, f"{path}.")


def _at(c: _Node, path: str) -> Any:
    return reduce(getitem, path.split("."), c)


def _numbers(c: _Node) -> Iterator[tuple[str, Any, Range]]:
    """(dotted path, value, range) of every option that is a number or has to be one: those of the
    schema, and the arguments of what a config node calls."""
    for path in RANGES:
        if path.rpartition(".")[0] not in CALLED:
            yield path, _at(c, path), RANGES[path]
    for at in CALLED:
        yield from _arguments(at, at, _at(c, at))


def _arguments(at: str, path: str, node: Any) -> Iterator[tuple[str, Any, Range]]:
    """Of a callable of a user's own nothing is known, but that a number is finite. One inside
    another (an optimizer inside a LossScaleOptimizer) has the ranges of the outer's."""
    ours = isinstance(node, dict) and str(node.get("_target_")).startswith(SHIPPED)
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        inside, called = f"{path}.{key}", isinstance(value, dict) and "_target_" in value
        if ours and f"{at}.{key}" in RANGES and not called:  # a learning rate may be a schedule
            yield inside, value, RANGES[f"{at}.{key}"]
        elif isinstance(value, dict | list):
            yield from _arguments(at, inside, value)
        elif isinstance(value, float):
            yield inside, value, ANY


def _shipped(placement: _Node) -> bool:
    """Whether the placement is one of ours, whose file says if it has an epsilon; of others the
    signature does."""
    return placement.function.startswith("zeronorm.similarity.")


Rules = Iterator[tuple[bool, str]]  # whether it is broken, and the sentence that then says so


def _rules(c: _Node) -> Rules:
    """All of them; the first that is broken is said."""
    yield from _rules_of_form(c)
    yield from _rules_of_choices(c)
    yield from _rules_of_start(c)
    yield from _rules_of_planted_rows(c)
    yield from _rules_of_input(c)
    yield from _rules_of_loss(c)


def _rules_of_form(c: _Node) -> Rules:
    """Every key is there, and every number in its range."""
    similarity = c.get("similarity")
    if isinstance(similarity, dict):
        yield (
            any(similarity.get(key) == MISSING for key in ("name", "function")),
            (
                "The similarity's YAML file needs the keys name and function (and epsilon, if the"
                " function takes one)."
            ),
        )
    yield from _present(c, Config)
    for at in CALLED:
        target = _at(c, at).get("_target_")
        yield (
            not isinstance(target, str) or not target,
            f"{at}._target_={target} must be the dotted path of a function or class.",
        )
    for path, value, allowed in _numbers(c):
        wrong = allowed.fault(value)
        yield wrong is not None, f"{path}={value} {wrong}."


def _rules_of_choices(c: _Node) -> Rules:
    """Names that are known, and a placement that fits its epsilon."""
    placement = c.similarity
    yield not c.home, "home is empty: give the folder for the store, caches and outputs."
    yield (
        c.numerics.name not in NUMERICS,
        f"numerics.name={c.numerics.name} is unknown: use one of {', '.join(NUMERICS)}.",
    )
    yield (
        c.trainable not in (True, False, "words", "titles"),
        f"trainable={c.trainable} is unknown: use true, false, words or titles.",
    )
    yield (
        _shipped(placement) and placement.bounds is None and placement.epsilon is not None,
        (
            f"similarity={placement.name} has no epsilon, but"
            f" similarity.epsilon={placement.epsilon} is set: drop the epsilon or choose a"
            " placement that has one."
        ),
    )
    yield (
        _shipped(placement) and placement.bounds is not None and placement.epsilon is None,
        f"similarity={placement.name} needs 0 < similarity.epsilon < 1, not {placement.epsilon}.",
    )
    yield (
        c.vectors.dtype not in ("float32", "float64"),
        f"vectors.dtype={c.vectors.dtype} is unknown: use float32 or float64.",
    )


def _rules_of_start(c: _Node) -> Rules:
    """What `init` makes of the matrices."""
    init, vectors = c.init, c.vectors
    yield (
        init.repair not in (None, *REPAIRS),
        f"init.repair={init.repair} is unknown: use one of {', '.join(REPAIRS)}.",
    )
    uniform = init.start == Start.uniform.name
    drawn_anew = (
        "vectors.zero_share",
        "vectors.zero_word_share",
        "vectors.planted_norm",
        "init.repair",
    )
    for name, value in ((name, _at(c, name)) for name in drawn_anew):
        yield (
            uniform and value is not None,
            (
                f"init={init.name} draws every row anew, so {name}={value} would have no effect:"
                " drop one of the two."
            ),
        )
    yield (
        uniform and vectors.normalise,
        (
            f"init={init.name} draws every row anew, so vectors.normalise=true would have no"
            " effect: drop one of the two."
        ),
    )
    yield (
        uniform and init.scale is None,
        f"init={init.name} needs init.scale, the half-width of the interval rows are drawn from.",
    )
    yield (
        not uniform and init.scale is not None,
        (
            f"init={init.name} starts from the vectors, so init.scale={init.scale} would have no"
            " effect: use init.norm to rescale them, or init=uniform."
        ),
    )
    yield (
        init.name == "repaired" and init.repair is None,
        (
            "init=repaired needs init.repair, the rule that fills zero title rows: use noise, mean"
            " or title_words, or init=pretrained to leave them."
        ),
    )
    yield (
        init.name == "pretrained" and init.repair is not None,
        (
            f"init=pretrained leaves zero rows as they are, so init.repair={init.repair} would be"
            " reported under a wrong name: use init=repaired."
        ),
    )


def _rules_of_planted_rows(c: _Node) -> Rules:
    init, vectors = c.init, c.vectors
    yield (
        init.repair is not None and vectors.zero_share is not None,
        (
            f"vectors.zero_share={vectors.zero_share} plants zero rows that"
            f" init.repair={init.repair} would fill again: drop one of the two."
        ),
    )
    yield (
        vectors.planted_norm is not None and vectors.zero_share is None,
        (
            f"vectors.planted_norm={vectors.planted_norm} is the norm of the rows that"
            " vectors.zero_share sets: give a share too."
        ),
    )


def _rules_of_input(c: _Node) -> Rules:
    """Texts, splits, the store, and the files that are read."""
    yield (
        c.model.width > c.corpus.window,
        (
            f"model.width={c.model.width} is wider than the text, corpus.window={c.corpus.window}"
            " words."
        ),
    )
    yield (
        c.corpus.min_window > c.corpus.window,
        (
            f"corpus.min_window={c.corpus.min_window} must lie between 1 and"
            f" corpus.window={c.corpus.window}."
        ),
    )
    yield (
        c.training.evaluate_on == Split.validation.name and c.corpus.validation_share == 0,
        "training.evaluate_on=validation needs corpus.validation_share greater than 0.",
    )
    yield (
        not c.tracking.uri,
        (
            f"tracking={c.tracking.name} needs a URI: set MLFLOW_TRACKING_URI, e.g. to"
            " http://127.0.0.1:5000."
        ),
    )
    for group, node in (("corpus", "reader"), ("vectors", "source")):
        missing = c[group][node].get("path") == MISSING
        yield (
            missing,
            f"{group}={c[group].name} needs {group}.{node}.path, the path of your file.",
        )
        file = None if missing else c[group][node].get("path")
        yield (
            file is not None and not (isinstance(file, str) and os.path.isfile(file)),
            f"{group}.{node}.path={file} is no file: give the path of a file that exists.",
        )


def _rules_of_loss(c: _Node) -> Rules:
    """What goes with a loss that is not the question's."""
    loss, masked = c.loss, c.training.zero_titles == ZeroTitles.masked.name
    yield (
        masked and loss.function is not None,
        (
            f"training.zero_titles=masked multiplies hinges by 0, and loss={loss.name} has none:"
            " use training.zero_titles=left_out or loss=max_margin."
        ),
    )
    yield (
        bool(loss.in_batch) and c.training.batch == 1,
        (
            f"loss={loss.name} takes its negatives from the batch, and training.batch=1 has none:"
            " use at least 2."
        ),
    )
    yield (
        loss.function is None and loss.temperature is not None,
        (
            f"loss.temperature={loss.temperature} is set, but loss={loss.name} has no temperature:"
            " drop it or use loss=softmax."
        ),
    )
    yield (
        str(loss.function).startswith("zeronorm.losses.") and loss.temperature is None,
        f"loss={loss.name} needs loss.temperature, which the similarities are divided by.",
    )


def plain(config: DictConfig | dict[str, Any]) -> dict[str, Any]:
    """The config as dicts, lists and values of Python's own; itself, if it is that already."""
    if isinstance(config, dict):
        return config
    found: Any = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    return found


def merged(config: DictConfig, *others: Any) -> DictConfig:
    """The config with what the others say in its place."""
    found = OmegaConf.merge(config, *others)
    assert isinstance(found, DictConfig)  # as OmegaConf makes of a DictConfig
    return found


def flatten(config: DictConfig | dict[str, Any]) -> dict[str, Any]:
    """{'similarity.epsilon': 1e-07, ...}: the composed config, or what `plain` makes of it, as
    MLflow parameters; lists become one string."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(f"{prefix}.{key}" if prefix else str(key), value)
        else:
            flat[prefix] = ", ".join(map(str, node)) if isinstance(node, list) else node

    walk("", plain(config))
    return flat


def identity(config: DictConfig | dict[str, Any]) -> str:
    """A run's identity: the SHA-256 of everything that can change its result, seed included, and
    the contents of the files and of the functions of a user's own that its options name.

    Left out: where it is stored, which study asked for it, documentation fields, and options that
    are not set, so that a new option does not change the identity of the runs before it. Raises
    ConfigError if a file cannot be read.
    """
    ignored = (
        "tracking.",
        "similarity.shipped_by",
        "similarity.bounds",
        "similarity.least_norm",
        "encoder.name",  # what it computes is its function
        "loss.name",
        "home",
        "study",
        "autopsy",  # it comes after the training
    )
    config = plain(config)
    flat = flatten(config).items()
    kept = {key: value for key, value in flat if value is not None and not key.startswith(ignored)}
    try:
        found = contents.named(config)
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}.") from error
    kept |= {f"contents of {place}": digest for place, digest in found.items()}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def graph(config: DictConfig | dict[str, Any]) -> str:
    """What runs with the same compiled steps have in common. Scheduling goes by it;
    `experiment.compiled` decides."""
    kept = (
        "corpus.",
        "vectors.source",
        "similarity.function",
        "similarity.epsilon",
        "numerics.",
        "optimizer.",
        "model.",
        "encoder.",
        "loss.",
        "trainable",
        "training.batch",
        "training.negatives",
        "training.margin",
        "training.zero_titles",
    )
    return json.dumps(
        {key: value for key, value in flatten(config).items() if key.startswith(kept)},
        sort_keys=True,
    )


def condition(config: DictConfig) -> str:
    """The cell of the table a run belongs to: its factors without the seed, e.g. 'frozen uniform
    clamp_squares xla'; with the optimizer where it is not Adam."""
    trainable = {True: "trainable", False: "frozen"}.get(
        config.trainable, f"{config.trainable}-trainable"
    )
    optimizer = "" if config.optimizer.name == "adam" else f" {config.optimizer.name}"
    return (
        f"{trainable} {config.init.name} {config.similarity.name} {config.numerics.name}{optimizer}"
    )
