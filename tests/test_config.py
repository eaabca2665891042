"""Contracts of conf/: every file composes, every study expands to the runs it states, exclusive
options are refused."""

import re
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException, OverrideParseException
from omegaconf import OmegaConf

from zeronorm import checkout
from zeronorm import config as schema
from zeronorm.sweep.plan import expand

CONF = checkout.conf_dir()
GROUPS = (
    "corpus",
    "vectors",
    "init",
    "similarity",
    "numerics",
    "optimizer",
    "encoder",
    "loss",
    "training",
    "tracking",
)
CHOICES = [(group, file.stem) for group in GROUPS for file in sorted((CONF / group).glob("*.yaml"))]
STUDIES = sorted(file.stem for file in (CONF / "study").glob("*.yaml"))


@pytest.fixture
def existing(tmp_path):
    """Overrides that give the groups with a mandatory path a file that exists."""
    file = tmp_path / "file"
    file.touch()
    return {
        "wikipedia_dump": [f"corpus.reader.path={file}"],
        "pairs": [f"corpus.reader.path={file}"],
        "keyed_vectors": [f"vectors.source.path={file}"],
        "uniform": [],
    }


@pytest.mark.parametrize("group, choice", CHOICES)
def test_every_choice_composes_and_is_named_after_its_file(
    composed, existing, monkeypatch, group, choice
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    config = composed(f"{group}={choice}", *existing.get(choice, []))
    schema.validate(config)
    assert config[group].name == choice


def test_every_similarity_is_there_and_says_what_epsilon_bounds(composed):
    from zeronorm import similarity

    names = [choice for group, choice in CHOICES if group == "similarity"]
    functions = {
        name for name, value in vars(similarity).items() if callable(value) and name[0] != "_"
    }
    assert set(names) == functions
    for name in names:
        placement = composed(f"similarity={name}").similarity
        assert placement.function == f"zeronorm.similarity.{name}"
        assert (
            (placement.bounds is None)
            == (placement.epsilon is None)
            == (placement.least_norm is None)
        )


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_states_its_contract_and_keeps_it(home, covering, name):
    """Question, command, cost and expectation stand in the header; the command expands to the
    stated number of runs."""
    text = (CONF / "study" / f"{name}.yaml").read_text()
    header = dict(re.findall(r"^# (Question|Command|Cost|Expect): +(.+)$", text, re.MULTILINE))
    assert set(header) == {"Question", "Command", "Cost", "Expect"}
    assert header["Command"] == f"zeronorm train study={name}"
    stated = int(re.match(r"(\d+) runs?\b", header["Cost"])[1])
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [f"study={name}", f"home={home}"], return_hydra_config=True)
        assert config.hydra.mode.name == "MULTIRUN"
        expanded = expand(config)
        assert len(expanded) == stated == len({frozenset(overrides) for overrides in expanded})
        jobs = [compose("config", overrides) for overrides in covering(expanded)]
        for job in jobs:
            schema.validate(job)
            assert job.study == name
        identities = {schema.identity(job) for job in jobs}
        assert len(identities) == len(jobs)


def test_the_command_line_wins_over_a_study(composed):
    assert composed("study=quick_ablation").training.name == "quick"
    assert composed("study=quick_ablation", "training=smoke").training.name == "smoke"
    assert composed("study=quick_ablation", "examples=50").examples == 50


def expanded(home, *overrides):
    """The jobs of a sweep as the command line makes it."""
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        study = [override for override in overrides if override.startswith("study=")]
        config = compose("config", [*study, f"home={home}"], return_hydra_config=True)
        config.hydra.overrides.task = list(overrides)
        return expand(config), config


def test_a_study_is_the_union_of_its_grids_and_the_command_line_narrows_it(home):
    jobs, config = expanded(home, "study=epsilon_placement")
    assert len(jobs) == (7 * 2 + 4) * 3 * 5
    assert not any(
        "similarity=unguarded" in job and any("epsilon" in o and "study" not in o for o in job)
        for job in jobs
    )
    jobs, _ = expanded(home, "study=epsilon_placement", "numerics=xla", "seed=0")
    assert len(jobs) == 7 * 2 + 4 and all("numerics=xla" in job and "seed=0" in job for job in jobs)
    jobs, _ = expanded(
        home,
        "study=epsilon_placement",
        "similarity=unguarded",
        "similarity.epsilon=null",
        "seed=0,1",
    )
    assert len(jobs) == 3 * 2  # both grids make them: each counts once
    config.hydra.sweeper.grids, config.hydra.sweeper.params = None, None
    config.hydra.overrides.task = ["seed=1,2"]
    assert expand(config) == [["seed=1"], ["seed=2"]]


REFUSED = {
    "trainable=maybe": "trainable=maybe is unknown: use true, false, words or titles.",
    "similarity=unguarded similarity.epsilon=1e-3": (
        "similarity=unguarded has no epsilon, but similarity.epsilon=0.001"
    ),
    "similarity.epsilon=0": (
        "similarity.epsilon=0.0 must be a finite number greater than 0 and less than 1"
    ),
    "similarity.epsilon=null": (
        "similarity=clamp_product needs 0 < similarity.epsilon < 1, not None"
    ),
    "init=uniform vectors.zero_share=0.5": (
        "init=uniform draws every row anew, so vectors.zero_share=0.5"
    ),
    "init=uniform init.repair=noise": "init=uniform draws every row anew, so init.repair=noise",
    "init=uniform vectors.normalise=true": (
        "init=uniform draws every row anew, so vectors.normalise=true"
    ),
    "init=uniform init.scale=null": "init=uniform needs init.scale",
    "init.scale=0.1": (
        "init=pretrained starts from the vectors, so init.scale=0.1 would have no effect"
    ),
    "init=repaired init.repair=foo": (
        "init.repair=foo is unknown: use one of noise, mean, title_words."
    ),
    "init=repaired vectors.zero_share=0.5": (
        "vectors.zero_share=0.5 plants zero rows that init.repair=noise would fill"
    ),
    "init=uniform vectors.zero_word_share=1": (
        "init=uniform draws every row anew, so vectors.zero_word_share=1"
    ),
    "vectors.zero_word_share=2": (
        "vectors.zero_word_share=2.0 must be a finite number of at least 0 and at most 1"
    ),
    "vectors.zero_share=2": (
        "vectors.zero_share=2.0 must be a finite number of at least 0 and at most 1"
    ),
    "vectors.dtype=float16": "vectors.dtype=float16 is unknown",
    "model.dropout=1": "model.dropout=1.0 must be a finite number of at least 0 and less than 1",
    "model.width=200": "model.width=200 is wider than the text, corpus.window=100 words",
    "corpus.min_window=101": "corpus.min_window=101 must lie between 1 and corpus.window=100",
    "corpus.test_share=1": (
        "corpus.test_share=1.0 must be a finite number of at least 0 and less than 1"
    ),
    "examples=0": "examples=0 must be a whole number of at least 1",
    "training.batch=0": "training.batch=0 must be a whole number of at least 1",
    "init.norm=-1": "init.norm=-1.0 must be a finite number greater than 0",
    "loss=in_batch_softmax training.batch=1": "loss=in_batch_softmax takes its negatives from the",
    "loss=softmax training.zero_titles=masked": (
        "training.zero_titles=masked multiplies hinges by 0, and loss=softmax has none"
    ),
    "loss.temperature=0.5": "loss.temperature=0.5 is set, but loss=max_margin has no",
    "loss=softmax loss.temperature=null": "loss=softmax needs loss.temperature",
    "training.evaluate_on=validation corpus.validation_share=0": (
        "training.evaluate_on=validation needs"
    ),
    "corpus=pairs corpus.reader.path=/nowhere/x.tsv": (
        "corpus.reader.path=/nowhere/x.tsv is no file"
    ),
    "vectors=keyed_vectors vectors.source.path=/nowhere/v": (
        "vectors.source.path=/nowhere/v is no file"
    ),
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_what_cannot_be_is_refused_in_one_sentence_naming_both(composed, overrides):
    with pytest.raises(schema.ConfigError) as refused:
        schema.validate(composed(*overrides.split()))
    assert str(refused.value).startswith(REFUSED[overrides])
    assert "\n" not in str(refused.value)


def test_a_mandatory_path_is_asked_for(composed):
    with pytest.raises(schema.ConfigError, match=r"corpus=pairs needs corpus\.reader\.path"):
        schema.validate(composed("corpus=pairs"))
    with pytest.raises(
        schema.ConfigError, match=r"vectors=keyed_vectors needs vectors\.source\.path"
    ):
        schema.validate(composed("vectors=keyed_vectors"))


@pytest.mark.parametrize(
    "override",
    ["numerics=torch", "model.filter=5", "training.epochs=many", "training.on_nan=crash"],
)
def test_hydra_refuses_unknown_names_and_wrong_types(composed, override):
    with pytest.raises((ConfigCompositionException, OverrideParseException)):
        composed(override)


def test_identity_is_what_can_change_the_result(composed):
    base = schema.identity(composed())
    assert schema.identity(composed("tracking.points=7", "home=/elsewhere")) == base
    assert schema.identity(composed("numerics=kernels")) == base
    assert schema.identity(composed("training.zero_titles=null")) == base
    for override in (
        "training.zero_titles=masked",
        "seed=1",
        "numerics=xla",
        "similarity.epsilon=1e-8",
        "model.filters=999",
        "vectors.source.seed=2",
    ):
        assert schema.identity(composed(override)) != base


def test_flat_parameters(composed):
    flat = schema.flatten(composed("similarity=clamp_norms"))
    assert flat["similarity.epsilon"] == 1e-7 and flat["corpus.validation_split"] == "per_title"
    assert all(not isinstance(value, dict | list) for value in flat.values())


def test_no_yaml_names_what_the_schema_does_not_know():
    """A study holds differences only: every top-level key is in the schema, or Hydra's."""
    known = set(schema.Config.__dataclass_fields__) | {"defaults", "hydra"}
    for name in STUDIES:
        assert set(yaml.safe_load(Path(CONF, "study", f"{name}.yaml").read_text())) <= known


def test_the_repairs_are_those_of_the_vectors():
    from zeronorm import vectors

    assert set(schema.REPAIRS) == set(vectors.REPAIRS)


def test_the_usual_encoder_and_loss_are_no_part_of_a_runs_identity(composed):
    """A report names the runs that were made before there were others."""
    usual = composed()
    older = OmegaConf.masked_copy(usual, [key for key in usual if key not in ("encoder", "loss")])
    assert schema.identity(usual) == schema.identity(
        schema.merged(OmegaConf.structured(schema.Config), older)
    )
    others = {schema.identity(composed(f"loss={loss}")) for loss in ("softmax", "in_batch_softmax")}
    others |= {schema.identity(composed(f"encoder={name}")) for name in ("relu", "mean_pooling")}
    assert len(others | {schema.identity(usual)}) == 5
