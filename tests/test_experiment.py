"""One run's story, in this process, on a small budget."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from zeronorm import checks, experiment, preparation, ranking
from zeronorm.preparation import prepare
from zeronorm.result import Result

pytestmark = pytest.mark.slow  # whole runs

SMALL = ("training=smoke", "examples=40", "model.filters=16")


def run(config, folder):
    folder.mkdir(exist_ok=True)
    result = Result(folder)
    seen = []
    experiment.run(prepare(config), result, seen.append)
    assert seen[0].done == 0 and seen[-1].done == seen[-1].steps == result.steps
    return result


@pytest.fixture(scope="module")
def died(composed, tmp_path_factory):
    store = "tracking.uri=postgresql://user:s3cret@127.0.0.1/runs"  # which a run does not open
    return run(composed("numerics=xla", store, *SMALL), tmp_path_factory.mktemp("died"))


def test_a_nan_is_an_outcome(died):
    assert died.outcome == "nan" and died.steps == died.recording.steps == 8
    assert died.tags["nan.first_step"] == died.tags["nan.predicted_step"] == "0"
    assert died.tags["nan.first_tensor"] == "titles"
    assert died.tags["nan.encoder_step"] == died.tags["nan.predicted_encoder_step"] == "1"
    assert died.tags["xla.steps"] == "8 of 8"
    assert died.metrics["eval/hits_at_10"] == 0 and died.metrics["eval/mean_rank"] == 106


def test_the_ranks_of_a_dead_run_are_none(died):
    ranks = pd.read_csv(died.folder / "ranks.csv.gz")
    assert list(ranks.columns) == ["title", "zero", "rank"] and (ranks["rank"] == 0).all()
    audit = json.loads((died.folder / "audit.json").read_text())
    assert set(ranks["title"][ranks["zero"] == 1]) <= set(audit["zero_titles"])


def test_the_metrics_of_a_run_follow_from_its_ranks(composed, tmp_path):
    result = run(composed("training.evaluate_on=validation", *SMALL), tmp_path)
    table = pd.read_csv(tmp_path / "ranks.csv.gz")
    for group, rank in (("eval", table["rank"]), ("eval_zero_rows", table["rank"][table.zero > 0])):
        for name, value in ranking.metrics(rank.to_numpy(), 106).items():
            assert result.metrics[f"{group}/{name}"] == value


def test_a_start_that_is_rounded_otherwise_moves_what_is_trained_and_no_step(composed, tmp_path):
    start, *repeats = (
        run(composed("numerics=xla", "init=uniform", *more, *SMALL), tmp_path / str(number))
        for number, more in enumerate(((), ("rounding=1",), ("rounding=1",), ("rounding=2",)))
    )
    once, again, other = (repeat.curves["norm/dense/kernel"] for repeat in repeats)
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)
    assert not np.array_equal(once, start.curves["norm/dense/kernel"])
    np.testing.assert_allclose(once, start.curves["norm/dense/kernel"], rtol=1e-4)
    dead = run(composed("numerics=xla", "rounding=1", *SMALL), tmp_path / "dead")
    assert dead.tags["nan.first_step"] == "0" and dead.tags["nan.encoder_step"] == "1"


def test_no_password_is_in_a_runs_files(died):
    assert "postgresql://user:***@127.0.0.1/runs" in (died.folder / "config.yaml").read_text()
    for file in died.folder.iterdir():
        assert b"s3cret" not in file.read_bytes(), file.name


def test_the_story_says_what_happened(died):
    assert "57 of 106 title rows start at zero" in died.story
    assert "became non-finite in step 0 (step 0 was predicted)" in died.story
    assert "the encoder's kernels in step 1 (step 1 was predicted)" in died.story
    assert died.story.count(". ") == 2  # three sentences
    assert "XLA computed 8 of 8 steps" in died.story
    assert died.recording.names["words"][0] == "(padding)"


def test_files_of_a_run(died):
    events = json.loads((died.folder / "nan_events.json").read_text())
    assert (
        events["touch"]["first"] == 0
        and events["predicted"]["titles"] == 0
        and events["predicted"]["encoder"] == 1
    )
    first = events["events"][0]
    assert first["phase"] == "gradient" and first["tensor"] == "titles" and "A" in first["names"]
    assert events["events"] == sorted(events["events"], key=lambda event: event["step"])
    text = (died.folder / "nan_events.json").read_text().splitlines()
    assert text[1] == '"events": [' and '"step": 0' in text[2]  # not a list of rows, one a line
    deaths = pd.read_csv(died.folder / "row_deaths.csv")
    assert deaths["step"].is_monotonic_increasing and deaths["tensor"][0] == "titles"
    titles = deaths[deaths["tensor"] == "titles"]
    audit = json.loads((died.folder / "audit.json").read_text())
    assert set(titles[titles["step"] == 0]["name"]) <= set(audit["zero_titles"])
    assert audit["titles"]["zero_rows"] == len(audit["zero_titles"]) == 57
    assert audit["sha256"] == {name: died.facts[f"matrix.{name}"] for name in ("words", "titles")}
    curves = pd.read_csv(died.folder / "curves.csv.gz")
    assert np.isfinite(curves["value"]).all()
    assert (died.folder / "norms.png").stat().st_size > 10_000
    assert "${" not in (died.folder / "config.yaml").read_text()


def test_the_same_run_again_is_identical(died, composed, tmp_path):
    again = run(composed("numerics=xla", *SMALL), tmp_path)
    for name, curve in died.curves.items():
        np.testing.assert_array_equal(curve, again.curves[name])


def test_frozen_and_uniform_stay_finite_and_know_it(composed, tmp_path):
    for number, overrides in enumerate((("trainable=false",), ("init=uniform",))):
        result = run(composed("numerics=xla", *overrides, *SMALL), tmp_path / str(number))
        assert result.outcome == "finite" and result.predicted.first is None
        assert "All weights stayed finite over 8 steps (none was predicted)" in result.story


def test_what_is_evaluated_is_the_average_that_the_optimizer_keeps(composed, tmp_path):
    result = run(composed("init=uniform", "+optimizer.keras.use_ema=true", *SMALL), tmp_path)
    assert abs(result.norms["titles"][1] / result.curves["norm/titles"][-1] - 1) > 1e-4


def test_trainable_apart(composed, tmp_path):
    words = run(composed("numerics=xla", "trainable=words", *SMALL), tmp_path / "words")
    titles = run(composed("numerics=xla", "trainable=titles", *SMALL), tmp_path / "titles")
    assert words.outcome == "finite" and "titles" not in words.recording.trained
    assert (
        titles.outcome == "nan"
        and titles.predicted.first == titles.recording.first_nan("titles").step == 0
    )
    np.testing.assert_array_equal(titles.curves["norm/words"], titles.curves["norm/words"][0])


def test_stop_and_every_epoch_and_validation(composed, tmp_path):
    stopped = run_stopped = Result(tmp_path)
    experiment.run(prepare(composed("numerics=xla", "training.on_nan=stop", *SMALL)), run_stopped)
    assert stopped.recording.steps == 1 and stopped.outcome == "nan"
    result = run(
        composed("training.evaluate_every_epoch=true", "training.evaluate_on=validation", *SMALL),
        tmp_path / "epochs",
    )
    assert list(result.epochs) == [3, 7] and "eval/mrr" in result.epochs[3]
    assert result.epochs[7]["eval/mrr"] == result.metrics["eval/mrr"]
    assert "on validation" in result.story


@pytest.mark.parametrize(
    "overrides",
    [
        ("init=repaired",),
        ("init=repaired", "init.repair=mean"),
        ("init=repaired", "init.repair=title_words"),
        ("vectors.zero_share=0",),
    ],
)
def test_without_zero_rows_xla_stays_finite(composed, tmp_path, overrides):
    result = run(composed("numerics=xla", *overrides, *SMALL), tmp_path)
    assert result.audit["titles"]["zero_rows"] == 0 and result.outcome == "finite"


def test_to_mask_zero_titles_is_no_cure_and_to_leave_them_out_is_one(composed, tmp_path):
    """A masked hinge sends 0 into the root: 0 * inf. A title that is never looked up has no
    gradient at all."""
    masked = run(
        composed("numerics=xla", "training.zero_titles=masked", *SMALL), tmp_path / "masked"
    )
    assert (
        masked.outcome == "nan" and masked.recording.first_nan().step == masked.predicted.first == 0
    )
    left_out = run(
        composed("numerics=xla", "training.zero_titles=left_out", *SMALL), tmp_path / "left_out"
    )
    assert (
        left_out.outcome == "finite" and left_out.touch.first is None and left_out.chance.ever == 0
    )
    kernels = run(composed("training.zero_titles=masked", *SMALL), tmp_path / "kernels")
    assert kernels.outcome == "finite"


def test_texts_of_zero_words_kill_the_encoder_at_once(composed, tmp_path):
    """C11: z = 0 exactly, so the encoder itself stands at the singular point in step 0, with no
    zero title about."""
    overrides = ("init=repaired", "vectors.zero_word_share=1", *SMALL)
    result = run(composed("numerics=xla", *overrides), tmp_path / "xla")
    assert (
        result.predicted.encoder
        == result.recording.first_nan("convolution/kernel", "dense/kernel").step
        == 0
    )
    assert result.facts["zero_texts"] == "40"
    # by the texts of the next batch
    assert result.predicted.titles == result.recording.first_nan("titles").step == 1
    assert run(composed(*overrides), tmp_path / "kernels").outcome == "finite"


def test_a_run_stops_when_its_encoder_is_lost(composed, tmp_path):
    overrides = ("vectors.zero_share=0.01", "training.batch=1", "numerics=xla", *SMALL)
    whole = run(composed(*overrides), tmp_path / "whole")
    (tmp_path / "stopped").mkdir()
    stopped = Result(tmp_path / "stopped")
    experiment.run(prepare(composed("training.on_nan=stop_when_lost", *overrides)), stopped)
    assert whole.predicted.titles < whole.predicted.encoder < whole.recording.steps - 1
    assert stopped.recording.steps == whole.predicted.encoder + 1
    assert stopped.recording.first_nan("convolution/kernel").step == whole.predicted.encoder
    assert float(whole.facts["touch.expected"]) > 1 and whole.tags["numerics"] == "xla"


def test_normalising_and_float64_do_not_help(composed, tmp_path):
    """C6 and C7 of the question."""
    for number, overrides in enumerate((("vectors.normalise=true",), ("vectors.dtype=float64",))):
        result = run(composed("numerics=xla", *overrides, *SMALL), tmp_path / str(number))
        assert (
            result.outcome == "nan"
            and result.recording.first_nan().step == result.predicted.first == 0
        )


def test_norm_rescales_both_matrices(composed):
    config = composed("init.norm=0.29")
    for rows in preparation.initial_matrices(config, preparation.load(config)):
        norms = np.linalg.norm(rows, axis=1)
        np.testing.assert_allclose(norms[norms > 0].mean(), 0.29, rtol=1e-4)


def test_runs_of_one_graph_share_the_compiled_step(composed):
    sizes = (100, 10, 8)
    base = preparation.compiled(composed(), *sizes)
    assert preparation.compiled(composed("seed=3", "init=uniform", "examples=20"), *sizes) is base
    for override in (
        "numerics=tf1",
        "similarity.epsilon=1e-6",
        "trainable=false",
        "optimizer=sgd",
        "model.filters=9",
    ):
        assert preparation.compiled(composed(override), *sizes) is not base


def test_vectors_with_nan_are_refused_by_name(composed, tmp_path):
    from gensim.models import KeyedVectors

    vectors = KeyedVectors(vector_size=4)
    values = np.ones((2, 4), dtype=np.float32)
    values[1, 2] = np.nan
    vectors.add_vectors(["anarchism", "alien"], values)
    vectors.save(str(tmp_path / "vectors"))
    source = (f"vectors.source.path={tmp_path / 'vectors'}", "vectors.source.format=gensim")
    config = composed("vectors=keyed_vectors", *source)
    with pytest.raises(
        preparation.ExperimentError,
        match=r"not finite as they are read .* in 1 word row, the first that of 'alien'",
    ):
        checks.check(config)


def test_more_examples_than_there_are(composed):
    with pytest.raises(
        preparation.ExperimentError, match="examples=5000 is more than the 3677 examples"
    ):
        checks.check(composed("examples=5000"))


def test_a_placement_that_cannot_be_imported(composed):
    with pytest.raises(
        preparation.ExperimentError, match=r"zeronorm\.similarity\.nothing cannot be imported"
    ):
        checks.check(composed("similarity.function=zeronorm.similarity.nothing"))
    with pytest.raises(preparation.ExperimentError, match="optimizer=adam cannot be made"):
        checks.check(composed("optimizer.keras.learning_rate=fast"))


def test_a_full_disk(composed, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(
        preparation.ExperimentError, match="has 0 MB left and a run may need 200: free some"
    ):
        checks.check(composed())


def test_full_model_under_each_numerics(composed, tmp_path):
    """The headline at the question's size: 1000 filters, all words, 30 steps."""
    outcomes = {}
    for name in ("kernels", "xla", "tf1"):
        result = run(
            composed(f"numerics={name}", "training=quick", "examples=300"), tmp_path / name
        )
        outcomes[name] = (
            result.outcome,
            result.tags.get("nan.first_step"),
            result.tags.get("nan.encoder_step"),
        )
    assert outcomes == {
        "kernels": ("finite", None, None),
        "xla": ("nan", "0", "1"),
        "tf1": ("nan", "0", "1"),
    }
