"""Tied embeddings (`model.tied`): a word that is also a title has that title's row."""

from dataclasses import replace
from functools import cache, partial

import hydra
import keras
import numpy as np
import pytest
import tensorflow as tf

from zeronorm import (
    config,
    deferred,
    encoders,
    examples,
    export,
    model,
    numerics,
    optimizers,
    prediction,
    preparation,
    result,
    similarity,
    training,
)
from zeronorm import corpus as corpora

PLACEMENT = partial(similarity.clamp_product, epsilon=1e-7)
SHAPE = {"window": 20, "negatives": 2, "filters": 16, "width": 3, "dropout": 0.2, "margin": 1.0}


def build(built, titles, used, trainable, optimizer, encoder=encoders.cnn):
    ranker = model.build(
        n_words=len(built.vocabulary),
        n_titles=len(titles),
        dim=titles.shape[1],
        **SHAPE,
        trainable_words=trainable in (True, "words"),
        trainable_titles=trainable in (True, "titles"),
        similarity=PLACEMENT,
        numerics=used,
        rows_only=deferred.course_of(optimizer) is not None,
        encoder=encoder,
        tied=True,
    )
    return training.program(ranker, optimizer, used)


def with_titles(drawn, n_words, titles, count, rng):
    """The examples, in whose texts `count` words are one of `titles`."""
    text = drawn.text.copy()
    places = rng.integers(0, text.shape[0], count), rng.integers(0, text.shape[1], count)
    text[places] = n_words + rng.choice(titles, count)
    return replace(drawn, text=text)


def test_a_word_that_is_a_title_gets_its_id():
    pieces = [("Kiwi", ["a", "kiwi", "b"]), ("New York", ["b", "new", "york"])]
    built = corpora.build([*pieces, ("kiwi", ["c"])], [], 4, 1, 0, 0, "per_title", seed=0)
    tied, first = corpora.tied(built), len(built.vocabulary)
    names = [*built.vocabulary, *built.titles]
    assert [[names[i] for i in row if i] for row in tied.text[:2].tolist()] == [
        ["a", "Kiwi", "b"],
        ["b", "new", "york"],
    ]
    assert tied.text.dtype == np.int32 and (tied.text == first).sum() == 1
    with pytest.raises(corpora.CorpusError, match="no title of this corpus is a word of its texts"):
        corpora.tied(corpora.build([pieces[1], ("Old York", ["d"])], [], 4, 1, 0, 0, "x", 0))


@pytest.mark.parametrize("used", [numerics.KERNELS, numerics.XLA], ids=lambda used: used.name)
@pytest.mark.parametrize(
    ("ours", "kerass"),
    [(optimizers.Adam, keras.optimizers.Adam), (keras.optimizers.SGD, keras.optimizers.SGD)],
    ids=["adam", "sgd"],
)
def test_equals_one_embedding_of_keras_that_text_and_titles_read(tiny, used, ours, kerass):
    """24 steps of stock layers, whose one matrix holds the words and after them the titles."""
    built, words, titles = tiny
    titles, first = np.abs(titles) + 0.1, len(built.vocabulary)
    drawn = examples.draw(built, None, 2, seed=0)
    drawn = with_titles(drawn, first, np.arange(12), 300, np.random.default_rng(1))
    order = list(examples.batches(drawn, epochs=9, batch=4, shuffle=True, seed=0))[:24]
    program = build(built, titles, used, True, ours())
    program.reset(words, titles, seed=7)
    start = {name: variable.numpy() for name, variable in program.ranker.weights.items()}
    recording = program.recording({"words": built.vocabulary, "titles": built.titles})
    training.train(program, order, recording)

    inputs = [keras.Input((n,), dtype="int32") for n in (20, 1, 2)]
    both = keras.layers.Embedding(first + 12, 8)
    convolution = keras.layers.Conv1D(16, 3, activation="tanh")
    dropout, dense = keras.layers.Dropout(0.2, seed=0), keras.layers.Dense(8)
    h = keras.layers.GlobalMaxPooling1D()(convolution(both(inputs[0])))
    z = dense(dropout(keras.layers.Activation("tanh")(h)))
    scores = model.Similarity(lambda a, b: PLACEMENT(a, b, used))(
        z, *(both(ids + first) for ids in inputs[1:])
    )
    stock = keras.Model(inputs, model.MaxMargin(1.0, used.maximum)(scores))
    both.embeddings.assign(np.concatenate([start["words"], start["titles"]]))
    convolution.kernel.assign(start["convolution/kernel"])
    dense.kernel.assign(start["dense/kernel"])
    dropout.seed_generator.state.assign([7, 0])
    stock.compile(kerass(), loss=lambda _, y: tf.reduce_mean(y), jit_compile=used.jit_compile)
    for batch in order:
        read = [batch.text, batch.positive, batch.negatives]
        stock.train_on_batch(read, np.zeros(len(batch.text)))
    rows = both.embeddings.numpy()
    expected = {
        "words": rows[:first],
        "titles": rows[first:],
        "convolution/kernel": convolution.kernel.numpy(),
        "convolution/bias": convolution.bias.numpy(),
        "dense/kernel": dense.kernel.numpy(),
        "dense/bias": dense.bias.numpy(),
    }
    for name, variable in program.ranker.weights.items():
        np.testing.assert_allclose(variable.numpy(), expected[name], rtol=1e-4, atol=2e-6)
        assert not np.array_equal(variable.numpy(), start[name])


@pytest.fixture(scope="module")
def foretold(tiny, composed):
    """foretold(rows, drawn, used, ...) -> (what is predicted, the steps that are seen) of a small
    tied model, whose titles start from `rows`."""
    built, words, _ = tiny

    @cache
    def program(used, trainable, encoder, optimizer):
        node = {"_target_": "zeronorm.optimizers.Adam", **dict(optimizer)}
        return build(built, words[:12], used, trainable, hydra.utils.instantiate(node), encoder)

    def foretell(rows, drawn, used, trainable=True, encoder=encoders.cnn, batch=1, **optimizer):
        of = composed(
            "seed=4",
            "training.epochs=2",
            "training.negatives=2",
            f"training.batch={batch}",
            *(f"+optimizer.keras.{key}={value}" for key, value in optimizer.items()),
        )
        made = program(used, trainable, encoder, tuple(optimizer.items()))
        data = preparation.Data(built, words, rows, {})
        run = preparation.Prepared(of, data, words, rows, drawn, made)
        said, recording = run.foretell().predicted, run.start()
        training.train(run.program, run.order(), recording)
        seen = (
            recording.first_nan("titles"),
            recording.first_nan(*result.kernels(recording.trained)),
        )
        return said, tuple(event and event.step for event in seen)

    return foretell


OPTIONS = {
    "adam": {},
    "words frozen": {"trainable": "titles"},
    "relu": {"encoder": encoders.relu},
    "mean pooling": {"encoder": encoders.mean_pooling},
    "clipping": {"global_clipnorm": 1.0},
    "accumulation": {"gradient_accumulation_steps": 3},
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("more", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("used", numerics.BY_NAME.values(), ids=numerics.BY_NAME)
def test_predicted_is_observed(tiny, foretold, used, more, batch):
    """One to three titles that start at 0, near it, or not finite, some of them words of a few
    texts or of a whole one."""
    built, _, titles = tiny
    first, rng = len(built.vocabulary), np.random.default_rng(3)
    for seed in range(6):
        rows, zero = np.abs(titles) + 0.1, rng.choice(12, rng.integers(1, 4), replace=False)
        rows[zero] = (0, 0, 1e-20, 0, 1e-8, np.nan)[seed]
        drawn = examples.draw(built, 30, 2, seed)
        drawn = with_titles(drawn, first, np.append(zero, rng.integers(12)), 8, rng)
        if seed == 3:
            drawn.text[rng.integers(30)] = first + zero[0]
        said, seen = foretold(rows, drawn, used, batch=batch, **more)
        assert seen == (said.titles, said.encoder), (seed, said)


def test_a_text_before_saves_a_row_and_a_text_after_kills_by_it(tiny, foretold):
    """A zero title: with no text that holds it; with one in the step before it is first met; with
    one in the step after, before it is met again."""
    built, _, titles = tiny
    first = len(built.vocabulary)
    drawn = examples.draw(built, 30, 2, seed=4)
    order = list(examples.batches(drawn, epochs=1, batch=1, shuffle=True, seed=4))
    met = {t: [b.step for b in order if t in (*b.positive[0], *b.negatives[0])] for t in range(12)}
    row = next(t for t, (at, again, *_) in met.items() if at > 0 and again > at + 1)
    at, again, *_ = met[row]
    rows = np.abs(titles) + 0.1
    rows[row] = 0

    def outcome(step):
        text = drawn.text.copy()
        if step is not None:
            text[(drawn.text == order[step].text[0]).all(axis=1), 10] = first + row
        return foretold(rows, replace(drawn, text=text), numerics.TF1)

    said, seen = outcome(None)
    assert seen == (said.titles, said.encoder) == (at, again) and not said.uncertain
    said, seen = outcome(at - 1)
    assert seen == (said.titles, said.encoder) == (None, None)
    assert said.uncertain == prediction.SHARED.format(at)
    said, seen = outcome(at + 1)
    assert seen == (said.titles, said.encoder) == (at, at + 1) and not said.uncertain


def test_the_probe_of_other_releases_refuses_it(tmp_path, composed):
    of = composed(
        "model.tied=true", "corpus=wikipedia_single_words", "examples=20", "model.filters=8"
    )
    config.validate(of)
    with pytest.raises(preparation.ExperimentError, match=r"use model\.tied=false"):
        export.save(preparation.prepare(of), 1, tmp_path / "start.npz")
