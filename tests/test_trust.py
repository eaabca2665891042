"""A stranger's file: whatever its config names, nothing of it is called, and one sentence says what
it holds."""

import json
import os
import pickle

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from omegaconf import OmegaConf

from zeronorm import checkout, cli, preparation, run_autopsy, trust
from zeronorm import config as schema
from zeronorm.autopsy import capsule
from zeronorm.examples import Batch

N_WORDS, N_TITLES, DIM = 20, 12, 8


class Evil:
    """A pickle of it makes a folder when it is opened."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.fixture(scope="module")
def moment(tmp_path_factory):
    """A run's moment of which nothing had to be read or trained."""
    home = tmp_path_factory.mktemp("small")
    config = schema.composed(
        f"home={home}", "model.filters=4", "corpus.window=10", "corpus.min_window=1"
    )
    program, rng = preparation.compiled(config, N_WORDS, N_TITLES, DIM), np.random.default_rng(0)
    words, titles = (rng.standard_normal((n, DIM)).astype(np.float32) for n in (N_WORDS, N_TITLES))
    titles[0] = 0
    program.reset(words, titles, 0)
    text, negatives = rng.integers(0, N_WORDS, (10, 10)), rng.integers(0, N_TITLES, (10, 10))
    batch = Batch(0, 0, 0, *(x.astype(np.int32) for x in (text, np.zeros((10, 1)), negatives)))
    state = tuple(np.array(variable) for variable in program.state)
    names = [
        [f"{what} {n}" for n in range(count)]
        for what, count in (("word", N_WORDS), ("title", N_TITLES))
    ]
    return run_autopsy.Moment(config, 0, state, batch, *names)


@pytest.fixture(scope="module")
def plain(moment):
    return OmegaConf.to_container(moment.config, resolve=True, enum_to_str=True)


@pytest.fixture(scope="module")
def parts(moment, tmp_path_factory):
    """What a whole capsule consists of: {name in the file: array}."""
    with np.load(moment.capsule().save(tmp_path_factory.mktemp("whole") / "whole.npz")) as file:
        return dict(file)


def written(parts, path, **about):
    """The capsule with other entries in its description."""
    described = json.loads(str(parts["about"])) | about
    np.savez(path, **(parts | {"about": np.array(json.dumps(described))}))
    return path


def evil(folder, monkeypatch):
    """{what: (group, changes)}: configs that make the folder's `marker` when they are believed."""
    marker, bad = folder / "marker", folder / "bad.pkl"
    bad.write_bytes(pickle.dumps(Evil(marker)))
    (folder / "evil_module.py").write_text(
        f"import os\nos.mkdir({str(marker)!r})\ndef f(a, b, numerics): return a\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    call = {"_target_": "zeronorm.preparation._call", "_recursive_": False}
    program = {"_target_": "subprocess.check_output", "args": ["mkdir", str(marker)]}
    adam = {"_target_": "keras.optimizers.Adam"}
    optimizers = {
        "_call": call | {"_args_": [program]},
        "joblib": {"_target_": "joblib.load", "filename": str(bad)},
        "pandas": {"_target_": "pandas.read_pickle", "filepath_or_buffer": str(bad)},
        "gensim": {"_target_": "gensim.utils.unpickle", "fname": str(bad)},
        "numpy": {"_target_": "numpy.load", "file": str(bad), "allow_pickle": True},
        "vectors": {
            "_target_": "zeronorm.vectors.keyed_vectors",
            "corpus": None,
            "path": str(bad),
            "format": "gensim",
        },
        "module": {"_target_": "evil_module.f"},
        "nested": adam | {"learning_rate": {"_target_": "joblib.load", "filename": str(bad)}},
        "deeper": (
            adam
            | {
                "learning_rate": {
                    "_target_": "keras.optimizers.schedules.CosineDecay",
                    "decay_steps": {"_target_": "joblib.load", "filename": str(bad)},
                }
            }
        ),
        "list": adam | {"name": [{"_target_": "joblib.load", "filename": str(bad)}]},
        "positional": adam | {"_args_": [{"_target_": "joblib.load", "filename": str(bad)}]},
        "partial": adam | {"_partial_": True},
        "inner": {"_target_": "keras.optimizers.LossScaleOptimizer", "inner_optimizer": adam},
        "near": {"_target_": "keras.optimizers.Adam.from_config", "config": {}},
        "attribute": {"_target_": "zeronorm.optimizers.keras.utils.get_file", "origin": "x"},
        "resolver": adam | {"learning_rate": "${oc.env:HOME}"},
        "no name": {},
        "text": "joblib.load",
    }
    found = {
        f"optimizer {what}": {"optimizer": {"keras": node}} for what, node in optimizers.items()
    }
    load = {"_target_": "joblib.load", "filename": str(bad)}
    return found | {
        "similarity": {"similarity": {"function": "evil_module.f"}},
        "similarity of another package": {"similarity": {"function": "os.system"}},
        "epsilon of another": {
            "similarity": {"function": "zeronorm.similarity.double_where", "epsilon": 0.1}
        },
        "reader": {"corpus": {"reader": load}},
        "reader's argument": {
            "corpus": {"reader": {"_target_": "zeronorm.corpus.pairs", "path": load}}
        },
        "descriptor": {"corpus": {"reader": {"_target_": "zeronorm.corpus.pairs", "path": 0}}},
        "source": {"vectors": {"source": load}},
        "pickle": {"vectors": {"source": optimizers["vectors"] | {}}},
        "control characters": {"similarity": {"name": "x\x1b]0;title\x07"}},
        "interpolated": {"home": "${oc.env:PATH}"},
        "numerics": {"numerics": {"name": "evil_module"}},
        "unknown key": {"callbacks": {"x": load}},
        "wrong type": {"model": {"filters": "many"}},
        "nothing": {"corpus": None},
        "out of range": {"model": {"dropout": 7}},
    }


def replaced(plain, changes):
    """The config with the changes; what is no plain option is replaced whole."""
    found = dict(plain)
    for group, values in changes.items():
        found[group] = (
            found[group] | values if isinstance(values, dict) and group in found else values
        )
    if "pickle" in str(changes.get("vectors", "")):
        found["vectors"]["source"].pop("corpus", None)
    return found


def one_sentence(output):
    return output.startswith("Error: ") and output.count("\n") == 1


def test_no_capsule_runs_what_its_config_names(parts, plain, tmp_path, monkeypatch):
    monkeypatch.setenv("ZERONORM_HOME", str(tmp_path / "home"))
    said = {}
    for what, changes in evil(tmp_path, monkeypatch).items():
        path = written(
            parts, tmp_path / "evil.npz", config=yaml.safe_dump(replaced(plain, changes))
        )
        done = CliRunner().invoke(cli.main, ["autopsy", str(path)])
        assert not (tmp_path / "marker").exists(), what
        assert done.exit_code == 1 and one_sentence(done.output), (
            what,
            done.output,
            done.exception,
        )
        said[what] = done.output
    assert (
        "optimizer.keras._target_=joblib.load" in said["optimizer joblib"]
        and "--trust" in said["optimizer joblib"]
    )
    assert "similarity.function=evil_module.f" in said["similarity"]
    assert "learning_rate=${oc.env:HOME}, an interpolation" in said["optimizer resolver"]


@pytest.mark.parametrize(
    "what",
    [
        "_call",
        "joblib",
        "pandas",
        "gensim",
        "numpy",
        "vectors",
        "module",
        "nested",
        "deeper",
        "list",
    ],
)
def test_the_same_runs_once_it_is_trusted(parts, plain, tmp_path, monkeypatch, what):
    """So the files of the tests around are what they are meant to be."""
    changes = evil(tmp_path, monkeypatch)[f"optimizer {what}"]
    text = yaml.safe_dump(replaced(plain, changes))
    with pytest.raises(Exception):  # noqa: B017 (what follows the program is of no interest)
        run_autopsy.of_capsule(
            capsule.load(written(parts, tmp_path / "evil.npz", config=text)), trusted=True
        )
    assert (tmp_path / "marker").exists()


def test_no_run_of_a_store_runs_what_its_config_names(plain, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv("ZERONORM_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    client = MlflowClient(f"sqlite:///{tmp_path}/home/mlflow.db")
    experiment_id = client.create_experiment(
        "shared", artifact_location=(tmp_path / "artifacts").as_uri()
    )
    cases = evil(tmp_path, monkeypatch)
    for what in (
        "optimizer _call",
        "optimizer joblib",
        "similarity",
        "reader",
        "source",
        "pickle",
        "interpolated",
    ):
        run_id = client.create_run(experiment_id, tags={"nan.first_step": "many"}).info.run_id
        client.log_text(run_id, yaml.safe_dump(replaced(plain, cases[what])), "config.yaml")
        done = CliRunner().invoke(cli.main, ["autopsy", run_id])
        assert not (tmp_path / "marker").exists(), what
        assert done.exit_code == 1 and one_sentence(done.output), (
            what,
            done.output,
            done.exception,
        )
        assert run_id in done.output


TEXTS = {
    "a tag": "!!python/object/apply:os.mkdir [marker]",
    "aliases": "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]",
    "deep": "[" * 5000,
    "long": "a: " + "x" * 200_000,
    "no YAML": "a: [1, 2",
    "a word": "hello",
    "a list": "- 1",
    "a date": "seed: 2001-01-01",
    "twice": "seed: 1\nseed: 2",
    "control": "a: \x00",
    "empty": "{}",
}


@pytest.mark.parametrize("what", TEXTS)
def test_what_is_no_config_is_said(what):
    for trusted in (False, True):
        with pytest.raises(schema.ConfigError, match="The capsule holds no ") as said:
            trust.config(TEXTS[what], "The capsule", trusted)
        assert "\n" not in str(said.value) and len(str(said.value)) < 300


def test_every_shipped_choice_is_taken(plain):
    for group, node in {
        "similarity": "",
        "corpus": "reader",
        "vectors": "source",
        "optimizer": "keras",
    }.items():
        for file in (checkout.conf_dir() / group).glob("*.yaml"):
            choice = OmegaConf.to_container(OmegaConf.load(file))
            if choice.get(node, {}).get("path") == "???":
                choice[node]["path"] = __file__
            base = {
                key: value
                for key, value in plain[group].items()
                if key not in ("epsilon", "bounds")
            }
            found = trust.config(yaml.safe_dump(plain | {group: base | choice}), "It")
            assert found[group].name == file.stem


def test_an_option_is_what_it_was_typed_as(plain, moment):
    """A config that is read back without the schema compares every choice as unequal to what it
    is."""
    changes = {"init": {"name": "uniform", "start": "uniform", "scale": 0.05}}
    found = trust.config(yaml.safe_dump(plain | changes), "It")
    assert found.init.start is schema.Start.uniform
    again = trust.config(OmegaConf.to_yaml(moment.config, resolve=True), "It")
    assert schema.identity(again) == schema.identity(moment.config) and again == moment.config


@pytest.mark.parametrize(
    "node",
    [
        {
            "_target_": "keras.optimizers.AdamW",
            "learning_rate": 0.1,
            "name": "x",
            "amsgrad": True,
            "clipnorm": None,
        },
        {
            "_target_": "keras.optimizers.SGD",
            "learning_rate": {
                "_target_": "keras.optimizers.schedules.PiecewiseConstantDecay",
                "boundaries": [5],
                "values": [1, 0.1],
            },
        },
    ],
)
def test_keras_optimizers_and_schedules_are_taken(plain, node):
    text = yaml.safe_dump(plain | {"optimizer": {"name": "own", "keras": node}})
    preparation.compiled(trust.config(text, "It"), N_WORDS, N_TITLES, DIM)


def test_trust_takes_what_would_be_refused(parts, plain, tmp_path, monkeypatch):
    (tmp_path / "trusted.py").write_text(
        "from zeronorm.similarity import clamp_norms\nf = clamp_norms\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    text = yaml.safe_dump(
        plain | {"similarity": plain["similarity"] | {"function": "trusted.f", "bounds": None}}
    )
    found = capsule.load(written(parts, tmp_path / "own.npz", config=text))
    with pytest.raises(
        schema.ConfigError, match=r"similarity\.function=trusted\.f, which conf/similarity does not"
    ):
        run_autopsy.of_capsule(found)
    assert run_autopsy.of_capsule(found, trusted=True).config.similarity.function == "trusted.f"


def test_an_optimizer_with_a_wrong_argument_is_said(parts, plain, tmp_path):
    node = {"_target_": "keras.optimizers.SGD", "speed": 1}
    text = yaml.safe_dump(plain | {"optimizer": {"name": "own", "keras": node}})
    with pytest.raises(preparation.ExperimentError, match=r"The optimizer cannot be made: .*speed"):
        run_autopsy.of_capsule(capsule.load(written(parts, tmp_path / "own.npz", config=text)))


def test_nothing_that_a_capsule_names_is_looked_for(parts, plain, tmp_path, monkeypatch):
    source = {"_target_": "zeronorm.vectors.keyed_vectors", "path": "/nowhere/v", "format": None}
    changes = {"vectors": plain["vectors"] | {"source": source}, "home": "/nowhere", "study": "x"}
    looked = []
    monkeypatch.setattr(os.path, "isfile", lambda path: looked.append(path) or False)
    trust.config(yaml.safe_dump(plain | changes), "It", opens=False)
    assert not any("/nowhere" in str(path) for path in looked)


def mutations(parts, plain, rng):
    """Capsules that are broken somewhere, without end."""
    junk = (
        None,
        0,
        -1,
        1.5,
        "x",
        "",
        True,
        [],
        {},
        [[]],
        {"a": 1},
        [1, 2],
        "float32",
        float("nan"),
        10**30,
    )
    while True:
        about = json.loads(str(parts["about"]))
        arrays = dict(parts)
        which = rng.integers(6)
        pick = lambda of: list(of)[rng.integers(len(of))]  # noqa: E731
        if which == 0:
            about[pick(about)] = pick(junk)
        elif which == 1:
            del about[pick(about)]
        elif which == 2:
            key = pick([key for key in arrays if key != "about"])
            other = (
                np.zeros((3,)),
                np.array("x"),
                np.array([b"x"]),
                np.full(arrays[key].shape, 1e9),
                np.array(5),
            )
            arrays[key] = (
                *other,
                arrays[key].astype(np.float64),
                arrays[key][..., :1] if arrays[key].ndim else 0,
            )[rng.integers(7)]
        elif which == 3:
            del arrays[pick([key for key in arrays if key != "about"])]
        elif which == 4:
            config = json.loads(json.dumps(plain))
            group = pick(config)
            if isinstance(config[group], dict) and rng.integers(4):
                config[group][pick(config[group])] = pick(junk)
            else:
                config[group] = pick(junk)
            about["config"] = yaml.safe_dump(config)
        else:
            about["batch"] = pick(
                (
                    {"tuple": ["int32", "int32"]},
                    {"list": ["int32", "int32", "int32"]},
                    {"sparse": "int32"},
                    "int32",
                    {"ragged": ["int32", 99]},
                    {"tuple": ["int32", "int32", "nothing"]},
                    {"a": []},
                    {},
                    {"dict": {}},
                )
            )
        arrays["about"] = np.array(
            json.dumps(about) if rng.integers(20) else pick(("", "{", "[]", "1", "null"))
        )
        yield arrays


def test_a_malformed_capsule_costs_one_sentence(parts, plain, tmp_path):
    refused, rng = 0, np.random.default_rng(0)
    for number, arrays in zip(range(120), mutations(parts, plain, rng), strict=False):
        np.savez(tmp_path / "broken.npz", **arrays)
        try:
            run_autopsy.of_capsule(capsule.load(tmp_path / "broken.npz"))
        except (capsule.CapsuleError, schema.ConfigError, preparation.ExperimentError) as error:
            assert "\n" not in str(error), number
            refused += 1
    assert refused > 70  # of the rest the change is to what does not matter


def test_a_file_of_bytes_that_is_no_capsule(parts, tmp_path):
    path, rng = tmp_path / "file.npz", np.random.default_rng(0)
    np.savez(path, **parts)
    whole = path.read_bytes()
    np.save(tmp_path / "array.npy", np.zeros(3))
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([{}], dtype=object), allow_pickle=True)
    cases = [
        b"",
        b"x",
        whole[: len(whole) // 2],
        (tmp_path / "array.npy").read_bytes(),
        objects.read_bytes(),
    ]
    for _ in range(60):
        start = rng.integers(len(whole) - 64)
        cases.append(whole[:start] + rng.bytes(64) + whole[start + 64 :])
    for content in cases:
        path.write_bytes(content)
        try:
            run_autopsy.of_capsule(capsule.load(path))
        except (capsule.CapsuleError, schema.ConfigError) as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("group", ["encoder", "loss"])
def test_an_encoder_or_a_loss_that_is_not_shipped_is_not_called(plain, group):
    strange = plain | {group: {"name": "mine", "function": "os.mkdir"}}
    with pytest.raises(schema.ConfigError, match=f"which conf/{group} does not ship"):
        trust.config(yaml.safe_dump(strange), "It")
