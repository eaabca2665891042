"""A sweep's configs are those that Hydra composes one by one, down to the types and flags of their
nodes; what Hydra refuses is refused in its words."""

import random
import re
from dataclasses import fields

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig

from zeronorm import checkout, mistakes
from zeronorm import config as schema
from zeronorm.sweep import plan
from zeronorm.sweep.composer import Composer, without_hydra

CHOICES = (
    "init=uniform", "init=pretrained", "similarity=mine", "similarity=add_to_squares",
    "similarity=nowhere", "numerics=xla", "training=smoke", "training=[quick]", "optimizer=sgd",
    "corpus=pairs", "vectors=keyed_vectors", "study=null", "study=quick_ablation", "study=1",
    "~study", "~init", "+training@more=quick", "+training=quick", "++training=quick",
    "training@model=quick", "hydra/launcher=basic",
)  # fmt: skip
VALUES = (
    "seed=3", "seed=4", "seed=x", "seed", "seed=1,2", "modle.width=3", "model.width=7",
    "model={width:3}", "similarity.epsilon=1e-3", "similarity.epsilon=null",
    "init.scale=${vectors.zero_share}", "training.on_nan=stop", "training.on_nan=never",
    "similarity.shipped_by=[a,'${home}']", "corpus.reader.path='x=y, z'", "similarity.more=1",
    "optimizer.keras={learning_rate:0.5}", "optimizer.keras=null", "trainable=words",
    "model@more=3", "home=${hydra.job.name}",
)  # fmt: skip
ADDED = (
    "+optimizer.keras.clipnorm=1", "+optimizer.keras.clipnorm=${hydra.job.id}",
    "++optimizer.keras.clipnorm=2", "++optimizer.keras.beta_2=0.5", "+seed=5", "+model.depth=2",
    "~optimizer.keras.learning_rate", "~optimizer.keras.beta_2=0.5", "~seed",
    "~similarity.shipped_by",
    "~optimizer.keras.clipnorm", "+similarity.shipped_by=[b]",
)  # fmt: skip
HYDRAS = (
    "hydra.job.name=x", "~hydra.job.name", "+hydra.job.env_set.A=b", "hydra.job.env_copy=[PATH]",
    "hydra.job.config.override_dirname.exclude_keys=[seed]", "hydra={job:{chdir:true}}",
    "hydra.job.config.override_dirname.kv_sep=:", "~hydra.run.dir=x", "hydra.run.dir=${home}/x",
    "hydra.overrides.task=[a]", "hydra.searchpath=['file:///tmp']",
)  # fmt: skip


def state(node) -> tuple:
    """All that a node is: its type, what is declared of it, its flags, and what is in it."""
    declared = [
        (field.name, str(getattr(node._metadata, field.name)))
        for field in fields(node._metadata)
        if field.name != "flags_root"
    ]
    held = vars(node)["_content"] if isinstance(node, DictConfig | ListConfig) else node._value()
    if isinstance(held, dict):
        held = [(key, state(child)) for key, child in held.items()]
    elif isinstance(held, list):
        held = [state(child) for child in held]
    return type(node), declared, held


def outcome(compose) -> tuple:
    """What comes of it: a config, with Hydra's node and without, or a refusal."""
    try:
        config, own = compose()
    except Exception as error:
        said = (str(error), mistakes.sentence(error))
        return type(error), [re.sub(r"\d{8}-\d{6}-\d{6}", "now", text) for text in said]
    return state(config), state(own)


@pytest.fixture(scope="module")
def loader(tmp_path_factory):
    """Hydra's loader, with a folder of the user's own, as --config-dir adds it."""
    schema.register()
    setup_globals()
    folder = tmp_path_factory.mktemp("conf")
    (folder / "similarity").mkdir()
    (folder / "similarity" / "mine.yaml").write_text("name: mine\nfunction: mine.f\nepsilon: 0.1\n")
    path = create_config_search_path(str(checkout.conf_dir()))
    last = path.get_path().pop()  # Hydra wants its schemas there
    path.append("command-line", f"file://{folder}")
    path.get_path().append(last)
    return ConfigLoaderImpl(path)


def of_a_sweep(loader, *typed):
    master = loader.load_configuration("config", list(typed), run_mode=RunMode.MULTIRUN)
    assert master.hydra.sweep.dir  # settled for all jobs, as `begin_sweep` does
    return master


def require_equal(loader, master, jobs):
    composer = Composer(loader, master)
    for job in jobs:

        def hydras(job=job):
            config = loader.load_sweep_config(master, job)
            return config, without_hydra(config)

        expected = outcome(hydras)
        for _ in range(2):  # the second is not spoiled by the first
            assert outcome(lambda job=job: composer.composed(job)) == expected, job


@pytest.mark.parametrize("name", sorted(file.stem for file in checkout.conf_dir().glob("study/*")))
def test_the_jobs_of_a_study(loader, covering, name):
    master = of_a_sweep(loader, f"study={name}")
    require_equal(loader, master, covering(plan.expand(master)))


@pytest.mark.parametrize("override", [*CHOICES, *VALUES, *ADDED, *HYDRAS])
def test_an_override_before_and_after_others(loader, override):
    master = of_a_sweep(loader)
    around = ["similarity=clamp_squares", "seed=9", "optimizer.keras.beta_1=0.8"]
    require_equal(loader, master, [[override, *around], [*around, override]])


@pytest.mark.parametrize("seed", range(8))
def test_overrides_at_random(loader, seed):
    drawn = random.Random(seed)
    typed = drawn.choice([[], ["hydra.job.name=y"], ["+hydra.job.env_set.B=1"], ["seed=8"]])
    pool = [*CHOICES, *VALUES, *ADDED, *ADDED, *HYDRAS]
    jobs = [drawn.choices(pool, k=drawn.randint(1, 4)) for _ in range(5)]
    require_equal(loader, of_a_sweep(loader, *typed), jobs)


def test_hydra_composes_each_combination_of_choices_once(loader, monkeypatch):
    master = of_a_sweep(loader, "study=quick_ablation")
    composer, called, original = Composer(loader, master), [], loader.load_sweep_config
    monkeypatch.setattr(
        loader, "load_sweep_config", lambda *given: called.append(given[1]) or original(*given)
    )
    for init in ("uniform", "pretrained"):
        for seed in range(5):
            values = [f"seed={seed}", "++model.width=3", "+optimizer.keras.clipnorm=1"]
            config, own = composer.composed([f"init={init}", *values])
            assert (config.init.name, own.seed) == (init, seed) and "hydra" not in own
            assert config.hydra.sweep.dir == master.hydra.sweep.dir
    assert called == [["init=uniform"], ["init=pretrained"]]


def test_the_identities_of_a_study_are_those_of_its_jobs(loader):
    master = of_a_sweep(loader, "study=best")
    own = [without_hydra(loader.load_sweep_config(master, job)) for job in plan.expand(master)]
    assert plan.identities("best") == [schema.identity(config) for config in own]
