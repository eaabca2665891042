"""What stands behind a name is part of a run's identity, and a process that goes on does not go on
with the old."""

import os
import sys

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from zeronorm import checkout, contents, preparation, run_autopsy
from zeronorm import config as schema
from zeronorm.sweep.plan import expand

STUDIES = sorted(file.stem for file in (checkout.conf_dir() / "study").glob("*.yaml"))
FUNCTION = (
    "from zeronorm.similarity import clamp_norms\ndef f(a, b, numerics, epsilon):\n    return {}\n"
)
BODY = "clamp_norms(a, b, numerics, epsilon)"


@pytest.mark.parametrize("study", STUDIES)
def test_the_identities_of_the_committed_reports_are_what_they_were(home, study):
    committed = checkout.conf_dir().parent / "experiments" / study / "runs.csv"
    known = set(pd.read_csv(committed, dtype=str)["config_sha"])
    schema.register()
    with initialize_config_dir(str(checkout.conf_dir()), version_base="1.3"):
        config = compose("config", [f"study={study}", f"home={home}"], return_hydra_config=True)
        jobs = expand(config)
        for job in (jobs[0], jobs[-1]):
            assert (
                schema.identity(compose("config", [f"study={study}", *job, f"home={home}"]))[:16]
                in known
            )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder on the path for modules of a user's own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture(scope="module")
def base():
    return schema.composed(
        "similarity=clamp_norms", "model.filters=4", "corpus.window=10", "corpus.min_window=1"
    )


def changed(base, **groups):
    free = base.copy()
    OmegaConf.set_struct(free, False)
    return OmegaConf.merge(free, groups)


# a module of a user's own: what is written, the dotted name, the file that changes, its new text
NAMES = {
    "function": ({"mine.py": "def f(): return 1\n"}, "mine.f", "mine.py", "def f(): return 2\n"),
    "helper": (
        {
            "mine.py": "import helper\ndef f(): return helper.one()\n",
            "helper.py": "def one(): return 1\n",
        },
        *("mine.f", "helper.py", "def one(): return 2\n"),
    ),
    "far helper": (
        {
            "mine.py": "def f():\n    from pack.deep import tool\n    return tool.x\n",
            "pack/__init__.py": "",
            "pack/deep/__init__.py": "from . import tool\n",
            "pack/deep/tool.py": "x = 1\n",
        },
        *("mine.f", "pack/deep/tool.py", "x = 2\n"),
    ),
    "package": (
        {"pack/__init__.py": "y = 1\n", "pack/mine.py": "from pack import y\ndef f(): return y\n"},
        *("pack.mine.f", "pack/__init__.py", "y = 2\n"),
    ),
    "sibling": (
        {
            "pack/__init__.py": "",
            "pack/mine.py": "from .tool import x as f\n",
            "pack/tool.py": "x = 1\n",
        },
        *("pack.mine:f", "pack/tool.py", "x = 2\n"),
    ),
    "partial": (
        {
            "mine.py": "from functools import partial\nimport helper\nf = partial(helper.one, 1)\n",
            "helper.py": "def one(n): return n\n",
        },
        *("mine.f", "helper.py", "def one(n): return n + 1\n"),
    ),
    "class": ({"mine.py": "class F:\n    x = 1\n"}, "mine.F.x", "mine.py", "class F:\n    x = 2\n"),
    "circle": (
        {"mine.py": "import helper\nf = 1\n", "helper.py": "import mine\nx = 1\n"},
        *("mine.f", "helper.py", "import mine\nx = 2\n"),
    ),
    "no Python": ({"mine.py": "def f(: pass\n"}, "mine.f", "mine.py", "def f(:: pass\n"),
}


@pytest.mark.parametrize(
    "place", ["similarity.function", "corpus.reader", "vectors.source", "optimizer.keras"]
)
@pytest.mark.parametrize("kind", NAMES)
def test_the_source_of_a_users_own_is_in_the_identity_and_nothing_is_imported(
    base, folder, kind, place
):
    files, name, file, text = NAMES[kind]
    for path, content in files.items():
        write(folder / path, content)
    group, key = place.split(".")
    config = changed(base, **{group: {key: name if key == "function" else {"_target_": name}}})
    before = schema.identity(config)
    assert schema.identity(config) == before != schema.identity(base)
    write(folder / "unrelated.py", "x = 3\n")
    assert schema.identity(config) == before
    write(folder / file, text)
    assert schema.identity(config) != before
    write(folder / file, files[file])
    assert schema.identity(config) == before
    assert not {"mine", "helper", "pack"} & set(sys.modules)


def test_nothing_shipped_adds_to_the_identity(base):
    plain = OmegaConf.to_container(base, resolve=True, enum_to_str=True)
    assert contents.named(plain) == {}
    for name in (
        "keras.optimizers.SGD",
        "zeronorm.optimizers.Adam2017",
        "os.path.join",
        "math.sqrt",
        "no.such.thing",
    ):
        assert (
            contents.functions("x", {"_target_": name, "learning_rate": 0.1, "text": "of words."})
            == {}
        )


def test_what_is_read_is_in_the_identity_with_what_stands_beside_it(base, tmp_path):
    pairs, kept, folder = tmp_path / "pairs.tsv", tmp_path / "a [b] c.kv", tmp_path / "texts"
    folder.mkdir()
    files = [
        pairs,
        kept,
        tmp_path / "a [b] c.kv.vectors.npy",
        folder / "one.txt",
        tmp_path / "second.txt",
    ]
    for file in files:
        file.write_bytes(b"first")
    own = {
        "_target_": "own.reader",
        "folder": str(folder),
        "more": [{"file": str(tmp_path / "second.txt")}],
    }
    configs = [
        changed(base, corpus={"reader": {"_target_": "zeronorm.corpus.pairs", "path": str(pairs)}}),
        changed(
            base,
            vectors={"source": {"_target_": "zeronorm.vectors.keyed_vectors", "path": str(kept)}},
        ),
        changed(base, corpus={"reader": own}),
    ]
    reads = [(0,), (1, 2), (3, 4)]
    for number, file in enumerate(files):
        before = [schema.identity(config) for config in configs]
        status = os.stat(file)
        file.write_bytes(b"other")  # of the same size, and of the same time
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        differ = [schema.identity(config) != of for config, of in zip(configs, before, strict=True)]
        assert differ == [number in of for of in reads]
    (folder / "two.txt").write_text("")
    assert schema.identity(configs[2]) not in before


def test_a_process_that_goes_on_takes_a_changed_function(base, folder):
    """Of the same size and in the same second, so that Python's own compiled code would pass for
    the new one."""
    write(folder / "own_one.py", "from own_two import BODY\n" + FUNCTION.format(BODY))
    write(folder / "own_two.py", "BODY = 1\n")
    config = changed(base, similarity={"function": "own_one.f"})
    sizes = (20, 12, 8)
    first = preparation.compiled(config, *sizes)
    placed = run_autopsy._placements(config)["clamp_norms"]
    assert preparation.compiled(config, *sizes) is first
    assert run_autopsy._placements(config)["clamp_norms"] is placed
    write(
        folder / "own_one.py",
        "from own_two import BODY\n" + FUNCTION.format(BODY.replace("(a", "(b")),
    )
    second = preparation.compiled(config, *sizes)
    assert second is not first and run_autopsy._placements(config)["clamp_norms"] is not placed
    assert preparation.compiled(config, *sizes) is second
    for number in range(2, 5):  # what it imports from beside it
        write(folder / "own_two.py", f"BODY = {number}\n")
        assert contents.resolved("own_one.BODY") == number
    kept = contents.resolved("own_one.f")
    assert contents.resolved("own_one.f") is kept


def test_a_process_that_goes_on_reads_a_changed_file(composed, tmp_path):
    """The array beside a .kv is as good as the .kv itself, in the matrices too."""
    from gensim.models import KeyedVectors

    vectors = KeyedVectors(vector_size=4)
    vectors.add_vectors(["anarchism", "alien", "zz"], np.ones((3, 4), dtype=np.float32))
    path = str(tmp_path / "own.kv")
    vectors.save(path, sep_limit=0)
    assert os.path.exists(path + ".vectors.npy")
    config = composed(
        "vectors=keyed_vectors", f"vectors.source.path={path}", "vectors.source.format=gensim"
    )
    before = schema.identity(config)
    row = preparation.load(config).corpus.vocabulary.index("alien")
    assert preparation.load(config).words[row].tolist() == [1, 1, 1, 1]
    np.save(path + ".vectors.npy", np.full((3, 4), 2, np.float32))
    assert preparation.load(config).words[row].tolist() == [2, 2, 2, 2]
    assert schema.identity(config) != before
