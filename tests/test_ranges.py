"""Every number of the configuration has its range, and no value of one ends in anything but a
sentence."""

import inspect
import math
import typing
from dataclasses import fields, is_dataclass

import keras
import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zeronorm import (
    checkout,
    checks,
    mistakes,
    optimizers,
    preparation,
    similarity,
    treatments,
    vectors,
)
from zeronorm import config as schema
from zeronorm import corpus as corpora
from zeronorm.ranges import RANGES

GROUPS = sorted(name for name in schema.Config.__dataclass_fields__ if schema.is_group(name))
CHOICES = [
    (group, file.stem) for group in GROUPS for file in (checkout.conf_dir() / group).glob("*.yaml")
]
OPTIMIZERS = [
    value
    for value in (*vars(keras.optimizers).values(), optimizers.Adam)
    if inspect.isclass(value) and issubclass(value, keras.Optimizer)
]
VALUES = (
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1e40",
    "1e-50",
    "1e308",
    "0.5",
    "abc",
    "null",
    "-0.0",
    "true",
    "[1]",
    "",
)


def numbers_of_schema(of: type = schema.Config, at: str = "") -> dict[str, tuple]:
    """{path: types} of the options that hold an int or a float."""
    found = {}
    for option in fields(of):
        types = typing.get_args(option.type) or (option.type,)
        if is_dataclass(option.type):
            found |= numbers_of_schema(option.type, f"{at}{option.name}.")
        elif int in types or float in types:
            found[f"{at}{option.name}"] = types
    return found


def is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def arguments_of_optimizers() -> set[str]:
    """Names of those that are numbers: by their default, or, of a default of None, by what Keras
    says of them."""
    unset = {"weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "ema_overwrite_frequency"}
    unset |= {"loss_scale_factor", "gradient_accumulation_steps"}
    other = {"name", "exclude_layers", "args", "kwargs", "inner_optimizer", "optimizer_map"}
    found = {
        p.name: p.default
        for of in OPTIMIZERS
        for p in inspect.signature(of.__init__).parameters.values()
    }
    numbers = {name for name, default in found.items() if is_number(default)} | unset
    assert {
        name for name, default in found.items() if not isinstance(default, bool)
    } - numbers <= other | {"self"}
    return numbers


def test_every_number_of_the_schema_and_of_its_files_has_a_range(composed, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert set(numbers_of_schema()) <= set(RANGES)
    for group, choice in CHOICES:
        flat = schema.flatten(
            composed(f"{group}={choice}", "+corpus.reader.path=x", "+vectors.source.path=x")
        )
        assert {key for key, value in flat.items() if is_number(value)} <= set(RANGES)
    word2vec = inspect.signature(vectors.word2vec).parameters.values()
    known = {f"vectors.source.{p.name}" for p in word2vec if p.annotation in (int, float)}
    known |= {f"optimizer.keras.{name}" for name in arguments_of_optimizers()}
    known.add("corpus.reader.title_words")
    # and no range is of a key that is not there
    assert known | set(numbers_of_schema()) == set(RANGES)


def test_null_and_whole_are_as_the_schema_says():
    for path, types in numbers_of_schema().items():
        assert RANGES[path].null == (type(None) in types), path
        assert RANGES[path].whole == (int in types), path


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda of: of.__name__)
def test_the_defaults_of_keras_lie_in_their_ranges(optimizer):
    for parameter in inspect.signature(optimizer.__init__).parameters.values():
        if parameter.default is None or is_number(parameter.default):
            allowed = RANGES.get(f"optimizer.keras.{parameter.name}")
            assert allowed is None or allowed.fault(parameter.default) is None, parameter.name


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A run on 12 titles, of a corpus that is read and vectors that are trained in no time."""
    folder, rng = tmp_path_factory.mktemp("small"), np.random.default_rng(0)
    words = [f"{a}{b}{c}" for a in "bdfg" for b in "aeiou" for c in "klmn"]
    lines = [
        f"{' '.join(rng.choice(words, 20))}\t{title}" for title in words[:12] for _ in range(10)
    ]
    (folder / "pairs.tsv").write_text("\n".join(lines) + "\n")
    corpus = ["corpus=pairs", f"corpus.reader.path={folder / 'pairs.tsv'}", "corpus.window=20"]
    less = [
        "vectors.source.dim=4",
        "vectors.source.min_count=1",
        "examples=20",
        "model.filters=4",
        "model.width=2",
    ]
    return schema.composed(f"home={folder}", *corpus, *less)


OF_KEY = {  # what a key needs about it
    "init.scale": {"init": {"name": "uniform", "start": "uniform", "scale": 0.05}},
    "vectors.planted_norm": {"vectors": {"zero_share": 0.5}},
}


def with_value(config, key: str, value: str):
    """The config with an override as Hydra sets it. Raises what Hydra does."""
    changed = config.copy()
    OmegaConf.set_struct(changed, False)
    for node, values in OF_KEY.get(key, {}).items():
        changed[node] = OmegaConf.merge(changed[node], values)
    parsed = OverridesParser.create().parse_override(f"{key}={value}").value()
    OmegaConf.update(changed, key, parsed, merge=True)
    return changed


@pytest.fixture(scope="module")
def accepted(small):
    """[(key, value, config)] of the values that are not refused. Whatever refuses one does it in a
    sentence."""
    found = []
    for key in RANGES:
        if key in ("optimizer.keras.initial_scale", "optimizer.keras.dynamic_growth_steps"):
            continue  # of a wrapper
        for value in VALUES:
            try:
                changed = with_value(small, key, value)
            except OmegaConfBaseException as error:  # Hydra's own, for a wrong type
                assert len(mistakes.sentence(error).splitlines()) == 1
                continue
            try:
                schema.validate(changed)
            except schema.ConfigError as error:
                assert str(error).startswith((key, "similarity=", "init=")) and "\n" not in str(
                    error
                )
            else:
                found.append((key, value, changed))
    return found


def test_no_value_of_a_number_is_not_finite_negative_where_it_may_not_or_lost_in_float32(accepted):
    values = {(key, value) for key, value, _ in accepted}
    signed = {"learning_rate_power", "beta_2_decay", "muon_a", "muon_b", "muon_c"}
    assert not [
        pair
        for pair in values
        if pair[1] in ("nan", "inf", "-inf", "1e40", "1e308", "abc", "true", "[1]", "")
    ]
    assert {key for key, value in values if value == "-1"} == {
        f"optimizer.keras.{name}" for name in signed
    }
    shares = {
        "corpus.test_share",
        "corpus.validation_share",
        "vectors.zero_share",
        "vectors.zero_word_share",
    }
    shares.add("vectors.planted_norm")
    assert {key for key, value in values if value == "1e-50"} == shares  # NumPy's, not the model's
    assert {key for key, value in values if value == "null"} == {
        key for key, of in RANGES.items() if of.null
    } - {"init.scale", "similarity.epsilon"}


def test_what_is_accepted_can_be_checked(accepted):
    """The tiny run passes, or is refused by an error that is said in a sentence."""
    known = (preparation.ExperimentError, corpora.CorpusError, vectors.VectorsError)
    passed = 0
    for key, value, config in accepted:
        try:
            checks.check(config)
            passed += 1
        except known as error:
            assert len(str(error).splitlines()) == 1, (key, value)
    assert passed > len(accepted) / 2


REFUSED = {
    "seed=-1": "seed=-1 must be a whole number of at least 0.",
    "corpus.seed=-1": "corpus.seed=-1 must be a whole number of at least 0.",
    "vectors.source.dim=0": "vectors.source.dim=0 must be a whole number of at least 1.",
    "vectors.source.dim=1.5": "vectors.source.dim=1.5 must be a whole number of at least 1.",
    "vectors.source.dim=abc": "vectors.source.dim=abc must be a whole number of at least 1.",
    "vectors.source.window=0": "vectors.source.window=0 must be a whole number of at least 1.",
    "vectors.source.epochs=0": "vectors.source.epochs=0 must be a whole number of at least 1.",
    "vectors.source.min_count=-1": (
        "vectors.source.min_count=-1 must be a whole number of at least 0."
    ),
    "vectors.source.seed=4294967296": (
        "vectors.source.seed=4294967296 must be a whole number of at least 0 and at most"
    ),
    "training.epochs=100000000000": (
        "training.epochs=100000000000 must be a whole number of at least 1 and at most"
    ),
    "training.margin=nan": (
        "training.margin=nan must be a finite number of at least 0 and less than 16777216."
    ),
    "training.margin=1e40": (
        "training.margin=1e+40 must be a finite number of at least 0 and less than 16777216."
    ),
    "optimizer.keras.learning_rate=0": (
        "optimizer.keras.learning_rate=0 must be a finite number greater than 0."
    ),
    "optimizer.keras.learning_rate=null": (
        "optimizer.keras.learning_rate=None must be a finite number greater than 0."
    ),
    "optimizer.keras.learning_rate=1e30": (
        "optimizer.keras.learning_rate=1e+30 has a square that is infinite in"
    ),
    "+optimizer.keras.beta_1=1": (
        "optimizer.keras.beta_1=1 must be a finite number of at least 0 and less than 1."
    ),
    "+optimizer.keras.beta_1=0.9999999999": (
        "optimizer.keras.beta_1=0.9999999999 is 1 in float32, and must be"
    ),
    "+optimizer.keras.clipnorm=-1": (
        "optimizer.keras.clipnorm=-1 must be a finite number greater than 0, or null."
    ),
    "+optimizer.keras.my_own=inf": "optimizer.keras.my_own=inf must be a finite number.",
    "optimizer=sgd +optimizer.keras.momentum=-0.1": (
        "optimizer.keras.momentum=-0.1 must be a finite number of at least"
    ),
    "init.norm=inf": "init.norm=inf must be a finite number greater than 0",
    "init.norm=1e38": "init.norm=1e+38 has a square that is infinite in float32",
    "init.norm=1e-45": "init.norm=1e-45 has a square that is 0 in float32",
    "init=uniform init.scale=1e308": (
        "init.scale=1e+308 must be a finite number greater than 0 and at most 3.4e+38"
    ),
    "similarity.epsilon=1e-46": (
        "similarity.epsilon=1e-46 is 0 in float32, whose smallest number is 1.2e-38."
    ),
    "init=repaired init.repair=null": "init=repaired needs init.repair",
    "init.repair=noise": "init=pretrained leaves zero rows as they are",
    "numerics.name=foo": "numerics.name=foo is unknown: use one of kernels, xla, tf1, auto.",
    "~similarity": "similarity is missing: use similarity=one of add_to_norms,",
    "~model": "model is missing",
    "+foo.bar=1": "foo is no option: the options there are corpus, vectors,",
    "+training.epoch=1": "training.epoch is no option: did you mean training.epochs?",
    "~vectors.source._target_": (
        "vectors.source._target_=None must be the dotted path of a function or class."
    ),
    "home=": "home is empty",
    "tracking.uri=${nowhere}": "Interpolation key 'nowhere' not found",
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_a_sentence_before_anything_starts(composed, overrides):
    with pytest.raises(schema.ConfigError) as refused:
        schema.validate(composed(*overrides.split()))
    assert str(refused.value).startswith(REFUSED[overrides])
    assert "\n" not in str(refused.value)


NOT_COMPOSED = {
    "numerics=null": "numerics=null chooses nothing: use numerics=one of auto, kernels, tf1, xla.",
    "optimizer=null": "optimizer=null chooses nothing",
    "study=null": "study=null chooses nothing",
    "seed=": "seed= must be a whole number of at least 0.",
    "seed=1.5": "seed=1.5 must be a whole number of at least 0.",
    "seed=range(0,0)": "seed=range(0,0) has no value, so there is nothing to run.",
    "seed=[]": "seed=[] must be a whole number of at least 0.",
    "trainng.epochs=3": "trainng.epochs is no option: did you mean training.epochs?",
    "similarity=größe": "similarity=größe cannot be read: put in quotes",
    "study=nonexistent": "study=nonexistent is unknown: use one of ablation,",
    "training.on_nan=crash": "training.on_nan=crash is unknown: use one of go_on, stop,",
    "home=${x": "home=${x cannot be read",
    "seed=a,b": "seed=a must be a whole number of at least 0.",
    "~training.epochs": "~training.epochs cannot be: a run needs training.epochs,",
}


@pytest.mark.parametrize("override", NOT_COMPOSED)
def test_what_hydra_refuses_in_many_lines_is_one_sentence(override):
    with pytest.raises(schema.ConfigError) as refused:
        mistakes.require_composable([override])
    assert str(refused.value).startswith(NOT_COMPOSED[override])
    assert "\n" not in str(refused.value)


def test_what_hydra_takes_is_composable():
    for override in (
        "seed=0,1",
        "seed=range(0,3)",
        "study=claims",
        "init.norm=null,0.3",
        "hydra.launcher.workers=2",
    ):
        mistakes.require_composable([override])
    mistakes.require_composable(["similarity=glob(clamp*)", "numerics=xla"])


UNCALLABLE = {
    "vectors.source._target_=zeronorm.vectors.nothing": (
        "vectors.source._target_=zeronorm.vectors.nothing cannot be"
    ),
    "corpus.reader._target_=nowhere.at.all": (
        "corpus.reader._target_=nowhere.at.all cannot be imported (No module"
    ),
    "corpus.reader._target_=zeronorm.corpus.PADDING": (
        "corpus.reader._target_=zeronorm.corpus.PADDING is a int"
    ),
    "+vectors.source.foo=1": (
        "vectors.source: zeronorm.vectors.word2vec does not take these arguments (got an"
    ),
    "~vectors.source.dim": (
        "vectors.source: zeronorm.vectors.word2vec does not take these arguments (missing a"
    ),
    "+optimizer.keras.foo=1": (
        "optimizer=adam cannot be made: Argument(s) not recognized: {'foo': 1}."
    ),
    "optimizer.keras._target_=keras.optimizers.Nope": (
        "optimizer=adam cannot be made: No module named"
    ),
    "optimizer.keras._target_=builtins.dict": "optimizer=adam: builtins.dict makes a",
    "training.evaluate_on=validation corpus.validation_share=0.001": (
        "There will be no score, because corpus."
    ),
}


@pytest.mark.parametrize("overrides", UNCALLABLE)
def test_what_cannot_be_called_is_said_with_its_reason(small, overrides):
    """Needs the imports, but nothing that is built."""
    changed = small.copy()
    OmegaConf.set_struct(changed, False)
    for override in overrides.split():
        key, _, value = override.lstrip("+~").partition("=")
        if override.startswith("~"):
            del changed.vectors.source[key.rpartition(".")[2]]
        else:
            OmegaConf.update(
                changed, key, OverridesParser.create().parse_override(f"{key}={value}").value()
            )
    schema.validate(changed)
    with pytest.raises(preparation.ExperimentError) as refused:
        checks.check(changed)
    assert str(refused.value).startswith(UNCALLABLE[overrides]), str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_run_without_a_test_window_is_told_so(small):
    few = small.copy()
    few.corpus.test_share = 0.01
    checks.check(few)
    assert (
        checks.unscored(few)
        == "There will be no score, because corpus.test_share=0.01 holds out none of the 120"
        " windows of 12 titles: raise it, or give each title more text."
    )
    assert checks.unscored(small) == ""


def test_a_model_without_dropout_trains_and_is_treated(small):
    """Keras gives a dropout of 0 no random state."""
    small = small.copy()
    small.model.dropout = 0
    prepared = preparation.prepare(small)
    prepared.start()
    batch = next(prepared.order())
    placements = {"unguarded": similarity.unguarded}
    first, again = (
        treatments.tried(prepared.program, batch, placements, "unguarded", {})[0] for _ in range(2)
    )
    assert first == again and first.finite and first.loss_after < first.loss


def test_numerics_are_those_that_there_are():
    from zeronorm import numerics

    assert set(schema.NUMERICS) == {*numerics.BY_NAME, "auto"}


def test_an_argument_inside_another_has_its_range_too(small):
    changed = small.copy()
    inner = {"_target_": "keras.optimizers.SGD", "learning_rate": 0.1, "momentum": -1}
    changed.optimizer.keras = {
        "_target_": "keras.optimizers.LossScaleOptimizer",
        "inner_optimizer": inner,
    }
    with pytest.raises(
        schema.ConfigError, match=r"optimizer\.keras\.inner_optimizer\.momentum=-1 must be"
    ):
        schema.validate(changed)
    rate = {
        "_target_": "keras.optimizers.schedules.ExponentialDecay",
        "decay_steps": 9,
        "decay_rate": math.nan,
    }
    changed.optimizer.keras = {"_target_": "keras.optimizers.SGD", "learning_rate": rate}
    with pytest.raises(
        schema.ConfigError, match=r"learning_rate\.decay_rate=nan must be a finite number\."
    ):
        schema.validate(changed)
    rate.update(decay_rate=0.9, initial_learning_rate=0.1)
    changed.optimizer.keras.learning_rate = rate
    schema.validate(changed)


def test_a_range_holds_in_float32_too():
    beta = RANGES["optimizer.keras.beta_1"]
    assert beta.fault(math.nextafter(1, 0)).startswith("is 1 in float32")
    assert beta.fault(float(np.nextafter(np.float32(1), np.float32(0)))) is None
    assert RANGES["similarity.epsilon"].fault(1.2e-38) is None
    assert RANGES["training.margin"].fault(0) is None
