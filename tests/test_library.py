"""The autopsy as a library of its own: the built wheel beside TensorFlow and what TensorFlow
brings, nothing else."""

import importlib.metadata
import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from zeronorm import checkout

SCRIPT = """
import keras, numpy as np, tensorflow as tf
import zeronorm

def model():
    x = keras.Input((4,))
    made = keras.Model(x, keras.layers.Dense(1)(x))
    made.compile("sgd", loss=lambda y, p: tf.reduce_mean(tf.sqrt(tf.square(p - p) + 0 * y)))
    return made

if __name__ == "__main__":
    watch = zeronorm.Autopsy(verbose=0, capsule="step.npz")
    x = np.ones((8, 4), "float32")
    model().fit(x, x[:, :1], batch_size=4, verbose=0, callbacks=[watch])
    print(watch.report.guilty[0].forward_op_type, watch.report.step)
    examined = zeronorm.examine(model(), x[:4], x[:4, :1])
    print(zeronorm.replay(model(), "step.npz").guilty[0].line == examined.guilty[0].line)
"""


def brought_by(name: str) -> set[str]:
    """The distributions that an installation of this one has, itself among them."""
    found, waiting = set(), [name]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # for another system or Python
            continue
        if name not in found:
            found.add(name)
            waiting += [re.match(r"[\w.-]+", one)[0] for one in needed if "extra ==" not in one]
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The Python of an environment that holds the wheel, TensorFlow and what TensorFlow brings."""
    folder = tmp_path_factory.mktemp("bare")
    python, root = [sys.executable, "-m"], str(checkout.conf_dir().parent)
    subprocess.run([*python, "venv", "--without-pip", str(folder / "env")], check=True)
    build = [*python, "build", "--wheel", "--no-isolation", "--outdir", str(folder), root]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    [site] = (folder / "env" / "lib").glob("python*/site-packages")
    install = [*python, "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    here = Path(sysconfig.get_paths()["purelib"])
    for name in brought_by("tensorflow"):
        for file in importlib.metadata.files(name):
            top = Path(file.parts[0])
            if not (site / top).exists() and (here / top).exists() and ".." not in file.parts:
                (site / top).symlink_to(here / top)
    return folder / "env" / "bin" / "python"


def ran(python: Path, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(python), *arguments],
        cwd=folder,
        env={"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow  # builds the wheel, imports TensorFlow five times
def test_a_stranger_with_tensorflow_alone(bare, tmp_path):
    (tmp_path / "mine.py").write_text(SCRIPT)
    others = ("hydra", "omegaconf", "mlflow", "gensim", "pandas", "psutil", "click")
    there = f"import importlib.util as u; print([n for n in {others} if u.find_spec(n)])"
    assert ran(bare, tmp_path, "-c", there).strip() == "[]"
    assert ran(bare, tmp_path, "mine.py").splitlines() == ["Sqrt 0", "True"]
    said = ran(bare, tmp_path, "-m", "zeronorm.autopsy", "step.npz", "--model", "mine:model")
    assert "mine.py:8, in <lambda>" in said and said.startswith("Step 0 made values")
    told = ran(
        bare, tmp_path, "-m", "zeronorm.autopsy", "step.npz", "--model", "mine:model", "--json"
    )
    assert json.loads(told)["guilty"][0]["forward_op_type"] == "Sqrt"


@pytest.mark.parametrize(
    "body, said",
    [
        ("def f(): raise KeyError('gone')", "gives no model: KeyError: 'gone' (theirs.py:1)."),
        ("def f(): import sys; sys.exit(0)", "gives no model: SystemExit: 0 (theirs.py:1)."),
        ("def f(): return 1", "returns int, not a compiled Keras model."),
        ("f = None", "gives no model: TypeError: 'NoneType' object is not callable."),
    ],
)
def test_a_function_that_gives_no_model_is_said(tmp_path, monkeypatch, body, said):
    from zeronorm.autopsy import factory

    (tmp_path / "theirs.py").write_text(f"{body}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(factory.ModelError) as raised:
        factory.made("theirs:f")
    assert str(raised.value) == f"--model theirs:f {said}"
