"""Every script under experiments/ runs for one round, so that the tables it made can be made
again."""

import ast
import json
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # minutes together

ROOT = Path(__file__).parents[1] / "experiments"
SMALL = ("--small", "--to", "{folder}")
# of a round that takes seconds and writes into {folder}; a new script needs its own here
ARGUMENTS = {
    "autopsy/example.py": (),
    "autopsy/suite.py": SMALL,
    "benchmarks/adam.py": SMALL,
    "benchmarks/composing.py": ("1", *SMALL),
    "benchmarks/mlflow_cost.py": ("1", *SMALL),
    "benchmarks/recording.py": ("1", *SMALL),
    "benchmarks/scaling.py": SMALL,
    "benchmarks/step.py": ("1", *SMALL),
    "benchmarks/sweep.py": SMALL,
    "benchmarks/vocabulary.py": ("1", *SMALL),
    "benchmarks/watching.py": ("1", *SMALL),
    "full_budget/peers.py": SMALL,
    "prediction/orders.py": SMALL,
    "releases/affected.py": (),
    "releases/collect.py": SMALL,
    "single_steps/learning.py": SMALL,
    "single_steps/norms.py": SMALL,
    "single_steps/smooth.py": SMALL,
}
RUN_BY = {  # a script that another starts
    "benchmarks/naive.py": "benchmarks/sweep.py",
    "releases/probe.py": "releases/collect.py",
    "releases/question.py": "releases/collect.py",  # where there is a Keras of its time
}
# what a script writes, where it is not NAME.json beside it
COMMITTED = {"autopsy/suite.py": "autopsy/suite.json"}


def is_script(file: Path) -> bool:
    """Whether it does something when it is run: `if __name__ == "__main__":`."""
    tests = [node.test for node in ast.parse(file.read_text()).body if isinstance(node, ast.If)]
    return any(ast.unparse(test) == "__name__ == '__main__'" for test in tests)


SCRIPTS = sorted(str(file.relative_to(ROOT)) for file in ROOT.rglob("*.py") if is_script(file))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def started(tmp_path, home, monkeypatch):
    """started(script) -> the folder it wrote to. In this process, which has TensorFlow already."""
    monkeypatch.setenv("ZERONORM_HOME", str(home))
    # some set them, for themselves alone
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, "0"))

    def start(script: str) -> Path:
        given = [argument.format(folder=tmp_path) for argument in ARGUMENTS[script]]
        monkeypatch.setattr(sys, "argv", [str(ROOT / script), *given])
        runpy.run_path(str(ROOT / script), run_name="__main__")
        return tmp_path

    return start


def contents() -> dict[Path, bytes]:
    return {
        file: file.read_bytes()
        for file in ROOT.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def shape(value):
    """What a JSON value is made of, without its numbers, words and the length of its lists."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value else type(value).__name__


def names(found):
    """What the rows of a benchmark are called, and the keys of all that it wrote beside them."""

    def keys(value):
        if not isinstance(value, dict):
            return None
        return {key: keys(item) for key, item in value.items()}

    called = list(dict.fromkeys((row.get("case"), row.get("variant")) for row in found["rows"]))
    return called, {name: keys(value) for name, value in found.items() if isinstance(value, dict)}


def numbers(value):
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, float):
        yield value


def test_every_script_has_a_round():
    assert set(ARGUMENTS) | set(RUN_BY) == set(SCRIPTS)
    for script, by in RUN_BY.items():
        assert Path(script).name in (ROOT / by).read_text() and by in ARGUMENTS


@pytest.mark.filterwarnings("default")  # a script is no test: it runs as it does on its own
@pytest.mark.parametrize("script", ARGUMENTS)
def test_a_script_runs_for_one_round_and_leaves_the_committed_results(script, started):
    before = contents()
    folder = started(script)
    assert contents() == before
    committed = ROOT / COMMITTED.get(script, script.replace(".py", ".json"))
    if committed.exists():
        written, report = (
            json.loads(file.read_text()) for file in (folder / committed.name, committed)
        )
        assert np.isfinite(list(numbers(written))).all()
        assert shape(written["rows"]) == shape(report["rows"])
        if script.startswith("benchmarks/"):
            assert names(written) == names(report)
        assert set(written) >= set(report)  # more of where it was measured is no other table


@pytest.mark.parametrize(
    "script", [script for script, given in ARGUMENTS.items() if SMALL[0] in given]
)
def test_a_small_round_is_not_written_over_the_committed_results(script, monkeypatch, capsys):
    """Said before anything is measured."""
    monkeypatch.setattr(sys, "argv", [script, "--small"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert ended.value.code == 2 and "--to FOLDER" in capsys.readouterr().err.splitlines()[-1]
