import os
import re
import sys
from copy import deepcopy
from functools import cache

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["GIT_OPTIONAL_LOCKS"] = "0"

import numpy as np
import pytest

from zeronorm import config as schema
from zeronorm import corpus as corpora
from zeronorm import preparation


@pytest.fixture(autouse=True)
def forgotten(tmp_path_factory):
    """What a test imported from a temporary folder is no module of the next test's."""
    before, base = set(sys.modules), str(tmp_path_factory.getbasetemp())
    yield
    for name in set(sys.modules) - before:
        # past `__getattr__`, by which a lazy module loads what it stands for
        if str(vars(sys.modules[name]).get("__file__") or "").startswith(base):
            del sys.modules[name]


@pytest.fixture(scope="session")
def covering():
    """covering(jobs) -> those of a sweep's jobs that bring an override which none before had: each
    is composed once."""

    def cover(jobs):
        met: set[str] = set()
        for job in jobs:
            if not met.issuperset(job):
                met.update(job)
                yield job

    return cover


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """One store and cache for the whole session: the corpus and the vectors are built once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def composed(home):
    """composed("numerics=xla", ...) -> the config of one run, as Hydra composes it: once, and a
    copy for each test."""
    once = cache(lambda *overrides: schema.composed(f"home={home}", *overrides))
    return lambda *overrides: deepcopy(once(*overrides))


@pytest.fixture(scope="session")
def excerpt(composed):
    """The embedded corpus and its word2vec matrices, as a run loads them."""

    return preparation.load(composed())


def pytest_collection_modifyitems(items):
    """What XLA compiles is slow: a test with xla among its parameters."""
    for item in items:
        if "xla" in re.split(r"\W", item.name.partition("[")[2]):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def tiny():
    """A corpus of 12 titles and 40 words, 20 words a text, with vectors of d = 8 of which every
    third title is zero."""
    rng = np.random.default_rng(0)
    vocabulary = [f"word{number}" for number in range(40)]
    articles = [
        (f"Title {t}", [vocabulary[w] for w in rng.integers(0, 40, size=200)]) for t in range(12)
    ]
    built = corpora.build(articles, [], 20, 10, 0.1, 0.1, "per_title", seed=0)
    words = rng.standard_normal((len(built.vocabulary), 8)).astype(np.float32)
    titles = rng.standard_normal((12, 8)).astype(np.float32)
    titles[::3] = 0
    return built, words, titles
