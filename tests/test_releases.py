"""A run is taken to any TensorFlow and computes the same there; the tables of experiments/releases
follow from what was recorded."""

import ast
import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from zeronorm import checkout, cli, export, training
from zeronorm.preparation import ExperimentError, prepare
from zeronorm.report import asked, committed, releases

FOLDER = checkout.conf_dir().parent / "experiments" / "releases"
SMALL = ("training=smoke", "examples=40", "model.filters=16")


def probed(start, *options) -> dict:
    ran = subprocess.run(
        [sys.executable, FOLDER / "probe.py", start, *options], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize(
    "compiler, overrides",
    [
        ("kernels", ["similarity=add_to_norms"]),
        ("kernels", ["optimizer=adam_2017", "similarity=double_where", "training.batch=7"]),
        ("kernels", ["optimizer=sgd", "training.zero_titles=masked", "trainable=words"]),
        ("xla", ["similarity=clamp_squares", "optimizer=adam_2017"]),
        ("xla", ["similarity=keras_normalize"]),  # which goes to NaN there
    ],
)
def test_the_probe_computes_what_the_run_does(composed, tmp_path, compiler, overrides):
    """Loss, norms and losses of weights of every step, dropout and rows named twice included."""
    prepared = prepare(composed(*overrides, f"numerics={compiler}", *SMALL))
    steps = export.save(prepared, 100, tmp_path / "start.npz")
    recording = prepared.start()
    training.train(prepared.program, prepared.order(), recording)
    assert steps == recording.steps >= 8
    answer = probed(tmp_path / "start.npz", "--compilers", compiler, "--steps", str(steps))
    [found] = answer["compilers"][compiler]["training"].values()
    assert found["xla_steps"] == (steps if compiler == "xla" else 0)
    finite = np.isfinite(recording.curves["train/loss"])
    np.testing.assert_allclose(
        np.float64(found["loss"])[finite], recording.curves["train/loss"][finite], rtol=2e-5
    )
    for weight in recording.trained:
        norm = recording.curves[f"norm/{weight}"]
        np.testing.assert_allclose(np.float64(found["norms"][weight]), norm, rtol=2e-5)
        lost = recording.curves[f"nonfinite/{weight}"]
        np.testing.assert_array_equal(found["nonfinite"][weight], lost)


@pytest.mark.parametrize(
    "override",
    [
        "+optimizer.keras.weight_decay=0.01",
        "+optimizer.keras.clipnorm=1.0",
        "+optimizer.keras.use_ema=true",
    ],
)
def test_an_optimizer_that_the_probe_has_not_is_one_sentence(composed, tmp_path, override):
    with pytest.raises(ExperimentError, match="plain Adam and SGD at one learning rate, not by"):
        export.save(prepare(composed(override, *SMALL)), 5, tmp_path / "start.npz")
    assert not (tmp_path / "start.npz").exists()


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["nowhere/start.npz"], "There is no folder "),
        (["start.npz", "similarity=unguarded", "similarity.epsilon=1e-3"], "similarity=unguarded"),
        (["start.npz", "optimizer=lazzy"], "optimizer=lazzy is unknown: use one of adam,"),
        (["start.npz", "examples=99999"], "examples=99999 is more than the "),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(home, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.main, ["export", *arguments, f"home={home}"])
    assert done.exit_code == 1 and done.stderr.startswith(f"Error: {sentence}")
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


def test_export_says_what_it_wrote(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["export", "start.npz", f"home={home}", "--steps", "3", *SMALL]
    done = CliRunner().invoke(cli.main, arguments)
    said = "written: start.npz, 3 steps of trainable pretrained clamp_product kernels\n"
    assert (done.exit_code, done.stdout) == (0, said)
    with np.load("start.npz") as read:  # without pickle
        assert list(read["sizes"]) == [10, 10, 10] and len(read["text"]) == 30
        assert json.loads(str(read["about"]))["epsilons"] == export.placements()


@pytest.mark.slow  # each loads a TensorFlow
@pytest.mark.parametrize(
    "arguments, said",
    [
        (["nowhere.npz"], "there is no file nowhere.npz"),
        (["text.npz"], "text.npz is no file that zeronorm export wrote"),
        (["other.npz"], "other.npz is no file that zeronorm export wrote"),
        (["pickled.npz"], "pickled.npz is no file that zeronorm export wrote"),
        (["text.npz", "--steps", "-1"], "--steps -1 must be at least 1"),
    ],
)
def test_what_the_probe_cannot_take_is_one_sentence(tmp_path, arguments, said):
    (tmp_path / "text.npz").write_text("no arrays")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", about=np.array([{}], object))
    command = [sys.executable, FOLDER / "probe.py", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.splitlines()[-1] == f"probe.py: error: {said}"


NEW = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.Nonlocal, ast.AsyncFunctionDef)


@pytest.mark.parametrize("script", ["probe.py", "question.py"])
def test_a_script_for_python_2_7_has_nothing_newer(script):
    for node in ast.walk(ast.parse((FOLDER / script).read_text())):
        assert not isinstance(node, NEW), ast.unparse(node)
        if isinstance(node, ast.arguments):
            assert not (node.kwonlyargs or node.posonlyargs)
            assert not any(one.annotation for one in node.args)
        if isinstance(node, ast.Call):
            assert sum(isinstance(one, ast.Starred) for one in node.args) <= 1
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            assert not any(isinstance(one, ast.Starred) for one in node.elts)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of experiments/releases that may be changed."""
    (tmp_path / "releases").mkdir()
    for file in FOLDER.glob("*.[cj]s*"):
        (tmp_path / "releases" / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(committed, "experiments_dir", lambda: tmp_path)
    return tmp_path / "releases"


def changed(file, change) -> None:
    found = json.loads(file.read_text())
    change(found)
    file.write_text(json.dumps(found))


def test_every_minor_release_is_there_or_named_as_missing():
    ran = {row["release"] for row in releases.data("releases")["rows"]}
    wheels = releases.wheels("releases")
    assert [of["minor"] for of in wheels if of["release"] not in ran] == ["2.2", "2.3", "2.4"]
    assert len(ran) == len(wheels) - 3 == 35
    for row in releases.data("releases")["rows"]:
        assert row["outcome"] in ("NaN", "finite") or row["why"]


def test_the_releases_before_1_14_die_and_those_since_do_not():
    for row in releases.data("releases")["rows"]:
        if row["similarity"] in releases.DIED and row["outcome"] != "not run":
            old = tuple(map(int, row["release"].split(".")[:2])) < (1, 14)
            dies = old or row["compiler"] == "xla"
            assert (row["outcome"] == "NaN") == dies, row
            assert not dies or (row["titles"], row["encoder"]) == (0, 1)


def test_a_changed_cell_changes_the_page(folder):
    before = releases.table("releases"), releases.verdict("releases")
    changed(folder / "releases.json", lambda found: found["rows"][-1].update(outcome="finite"))
    for row in releases.data("releases")["rows"][-1:]:
        assert row["outcome"] == "finite"
    changed(
        folder / "releases.json",
        lambda found: [
            row.update(outcome="NaN", titles=3, encoder=4)
            for row in found["rows"]
            if (row["release"], row["similarity"]) == ("1.15.0", "clamp_product")
        ],
    )
    assert releases.table("releases") != before[0]
    with pytest.raises(AssertionError, match="the two formulas differ"):
        releases.verdict("releases")


def test_the_emulation_agrees_in_every_condition():
    rows = releases.data("releases")["emulation"]
    assert len(rows) >= 13 and {row["release"] for row in rows} == {"1.3.0"}
    for row in rows:
        for part in ("titles", "encoder"):
            assert row[part] == row[f"{part}_emulated"], row["condition"]


def test_every_safe_form_is_measured_and_safe():
    rows = json.loads((FOLDER / "libraries.json").read_text())["rows"]
    known = {(row["library"], row["function"]): row for row in rows}
    for row in rows:
        if not releases.is_safe(row):
            safe = known.get((row["library"], row["safe"]))
            assert safe is not None and releases.is_safe(safe), row


CLAIMS_THERE = {1, 4, 5, 6, 7, 8, 9, 10}


def test_the_claims_on_the_tensorflow_that_was_asked_of():
    said = asked.sentences("releases")
    assert set(said) == {*CLAIMS_THERE, 2, 3, 12}
    for number, sentence in said.items():
        assert sentence.startswith("On TensorFlow 1.3.0 with Keras 2.0.8: ")
        assert (": confirmed (" in sentence) == (number in CLAIMS_THERE)


def test_another_fit_is_another_verdict(folder):
    def live(found):
        fit = found["conditions"]["20 examples"]
        fit["norms"] = {layer: [1.0] * len(norms) for layer, norms in fit["norms"].items()}
        found["conditions"]["500 examples"]["loss"][-1] = "nan"

    changed(folder / "question.json", live)
    said = asked.sentences("releases")
    assert ": refuted (20 examples; every weight finite)" in said[1]
    assert ": refuted (" in said[4] and "NaN" in said[4]
