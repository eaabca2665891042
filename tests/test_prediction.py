"""The predicted steps, against batches made by hand and against real trainings."""

from dataclasses import replace
from functools import cache, partial

import hydra
import numpy as np
import pytest
from omegaconf import OmegaConf

from zeronorm import (
    deferred,
    encoders,
    examples,
    losses,
    model,
    numerics,
    optimizers,
    prediction,
    preparation,
    result,
    similarity,
    training,
)
from zeronorm.examples import Batch
from zeronorm.prediction import Look, Prediction, Rows, Touch
from zeronorm.singularity import Fates, Kind

ZERO_TITLES = np.array([False, False, True, True, False, False])
ZERO_WORDS = np.array([True, False, True])


def batch(step, positive, negatives, text=(1,)):
    return Batch(
        step, 0, step, *(np.array([row], dtype=np.int32) for row in (text, positive, negatives))
    )


def test_touches_by_hand():
    order = [
        batch(0, [0], [1, 4]),
        batch(1, [1], [2, 0]),  # title 2, a zero row, as a negative
        batch(2, [3], [0, 1]),  # title 3, a zero row too, but not touched before
        batch(3, [0], [4, 5]),
        batch(4, [2], [5, 4]),  # title 2 again, as a positive
        batch(5, [3], [2, 4]),
    ]
    assert prediction.touches(order, ZERO_TITLES, ZERO_WORDS) == Touch(
        first=1, again=4, zero_text=None, titles=(2,)
    )
    assert prediction.touches(order[:4], ZERO_TITLES, ZERO_WORDS) == Touch(1, None, None, (2,))
    assert prediction.touches(order[:1], ZERO_TITLES, ZERO_WORDS) == Touch(None, None, None, ())


def test_a_text_of_zero_rows_counts_in_step_0_only():
    order = [batch(0, [0], [1, 4], text=(0, 2)), batch(1, [0], [1, 4], text=(0, 0))]
    assert prediction.touches(order, ZERO_TITLES, ZERO_WORDS).zero_text == 0
    assert prediction.touches([order[1]], ZERO_TITLES, ZERO_WORDS).zero_text is None


FINITE, INF, NAN = Kind.finite, Kind.inf, Kind.nan
EVERY = ("words", "titles", "convolution/kernel")
ROW = optimizers.Reach(True, False, False, False)
NOTHING = optimizers.Reach(False, False, False, False)


def fates(title=FINITE, text=FINITE, idle=None, edge=False, norm=0.0):
    """Of six titles, of which ZERO_TITLES have these kinds; `idle`: of both gradients where nothing
    comes in."""
    rest = (title, text) if idle is None else (idle, idle)
    kinds = (np.where(ZERO_TITLES, kind, FINITE) for kind in (title, text, *rest))
    return Fates(*kinds, edge=ZERO_TITLES & edge, norm=np.where(ZERO_TITLES, norm, 1))


def looked(of, first_text=FINITE):
    """As a look at a batch finds it, where the rows alone decide; `first_text`: of a text in step
    0."""

    def look(batch):
        ids = np.concatenate([batch.positive, batch.negatives], axis=1)
        text = of.text[ids] if batch.step else np.maximum(of.text[ids], first_text)
        return Look(of.title[ids], text)

    return look


ORDER = [  # title 2 is zero: touched in step 1, again in step 3
    batch(0, [0], [1, 4]),
    batch(1, [1], [2, 0]),
    batch(2, [0], [1, 4]),
    batch(3, [2], [5, 4]),
    batch(4, [5], [1, 0]),
]
ROWS = Rows(np.zeros(6, bool), np.zeros(3, bool))


def predicted(of, reaches=None, trained=EVERY, always=True, rows=ROWS, **more):
    reaches = reaches or optimizers.Reaches.elementwise()
    return prediction.predict(ORDER, of, looked(of, **more), reaches, rows, trained, always)


def test_predict_by_hand():
    frozen = ("convolution/kernel",)
    assert predicted(fates()) == Prediction(None, None)
    assert predicted(fates(NAN)) == Prediction(1, 3, 3)
    # frozen rows never become NaN
    assert predicted(fates(NAN), trained=frozen) == Prediction(None, None)
    assert predicted(fates(NAN, NAN)) == Prediction(1, 1, 1)  # a large row, or a quotient of 0/0
    # the titles of the next batch, by their text
    assert predicted(fates(FINITE, NAN)) == Prediction(2, 1, 1)
    assert predicted(fates(NAN, NAN), trained=frozen) == Prediction(None, 1)
    assert predicted(fates(), first_text=NAN) == Prediction(1, 0, 0)  # a text of zero rows
    lost = Rows(ZERO_TITLES, np.zeros(3, bool), lost_words=True)
    assert predicted(fates(NAN, NAN), rows=lost) == Prediction(0, 1, 0)


def test_what_an_optimizer_makes_of_it_by_hand():
    every, touched = (
        optimizers.Reach(True, True, True, True),
        optimizers.Reach(True, True, False, False),
    )
    encoder = optimizers.Reach(True, False, False, True)
    clipped = optimizers.Reaches(1, touched, ROW, NOTHING, encoder)
    # step 2 holds two titles of step 1
    assert predicted(fates(NAN), clipped) == Prediction(1, 2, 2)
    assert predicted(fates(NAN), optimizers.Reaches(1, every, every, every, every)) == Prediction(
        1, 1, 1
    )
    accumulated = optimizers.Reaches(2, ROW, ROW, NOTHING, encoder)
    assert predicted(fates(NAN), accumulated) == Prediction(1, 3, 3)
    assert predicted(fates(NAN), optimizers.Reaches(4, ROW, ROW, NOTHING, encoder)) == Prediction(
        3, None
    )
    skipping = optimizers.Reaches(1, NOTHING, NOTHING, NOTHING, NOTHING)
    assert predicted(fates(NAN, NAN), skipping) == Prediction(None, None)
    held = optimizers.Reaches(1, ROW, NOTHING, NOTHING, encoder)
    assert "infinite gradient in step 1" in predicted(fates(INF), held).uncertain
    squares = optimizers.Reaches(1, ROW, ROW, every, encoder)
    assert "square may overflow" in predicted(fates(Kind.large), squares).uncertain
    assert predicted(fates(Kind.large)) == Prediction(None, None)


def test_what_cannot_be_known_is_said():
    assert "at an edge" in predicted(fates(NAN, edge=True)).uncertain
    only_active = fates(INF, idle=FINITE)
    assert predicted(only_active).uncertain == ""
    assert "only if the loss sends" in predicted(only_active, always=False).uncertain
    masked = Rows(np.zeros(6, bool), np.zeros(3, bool), ZERO_TITLES)
    assert predicted(only_active, always=False, rows=masked) == Prediction(None, None)
    assert predicted(fates(NAN), rows=masked) == Prediction(1, 3, 3)  # 0 times infinity
    # a small row that a step moved is at its edge no more
    first = [batch(0, [1], [2, 0]), *(replace(b, step=b.step + 1) for b in ORDER)]
    small, large = (fates(FINITE, edge=True, norm=norm) for norm in (1e-20, 1e20))
    reaches = optimizers.Reaches.elementwise()
    assert (
        prediction.predict(first, small, looked(small), reaches, ROWS, EVERY, True).uncertain == ""
    )
    assert prediction.predict(first, large, looked(large), reaches, ROWS, EVERY, True).uncertain


def test_chance_against_drawing():
    """The expected first touch, from shares alone, against 4,000 drawn orders and negatives."""
    titles, zero = 20, np.zeros(20, bool)
    zero[[3, 7]] = True
    rng = np.random.default_rng(0)
    positive = rng.integers(0, titles, 50)[:, None].astype(np.int32)
    made = examples.Examples(np.zeros((50, 1), np.int32), positive, np.zeros((50, 4), np.int32))
    for size in (1, 3):
        found = prediction.chance(made, zero, size)
        firsts = []
        for _ in range(4000):
            others = rng.integers(0, titles - 1, (50, 4))
            order = rng.permutation(50)
            touched = zero[positive[:, 0]] | zero[others + (others >= positive)].any(axis=1)
            firsts.append(np.flatnonzero(touched[order])[0] // size)
        assert found.batch == pytest.approx(np.mean(np.array(firsts) == 0), abs=0.02)
        assert found.first == pytest.approx(np.mean(firsts), rel=0.06)
        assert found.ever == pytest.approx(1)


def test_chance_where_nothing_is_or_everything_is_zero():
    made = examples.Examples(
        np.zeros((6, 1), np.int32),
        np.arange(6, dtype=np.int32)[:, None],
        np.zeros((6, 2), np.int32),
    )
    assert prediction.chance(made, np.zeros(6, bool), 2) == prediction.Chance(0, 0, None)
    assert prediction.chance(made, np.ones(6, bool), 2) == prediction.Chance(1, 1, 0)


PLACEMENTS = {
    "clamp_product": partial(similarity.clamp_product, epsilon=1e-7),
    "add_to_product": partial(similarity.add_to_product, epsilon=1e-7),
    "add_to_squares": partial(similarity.add_to_squares, epsilon=1e-7),
    "unguarded": similarity.unguarded,
    "single_where": similarity.single_where,
    "double_where": similarity.double_where,
}


@pytest.fixture(scope="module")
def made(tiny, composed):
    """made(words, titles, drawn, ...) -> a run of a small model, ready to be foretold and taken.
    Runs of one graph share its program, as those of a sweep do."""
    built, _, _ = tiny

    @cache
    def program(name, used, trainable, optimizer, margin, in_batch, encoder, loss):
        keras_optimizer = hydra.utils.instantiate(config(optimizer).optimizer.keras)
        ranker = model.build(
            n_words=len(built.vocabulary),
            n_titles=12,
            dim=8,
            window=20,
            negatives=None if in_batch else 2,
            filters=16,
            width=3,
            dropout=0.2,
            margin=margin,
            trainable_words=trainable in (True, "words"),
            trainable_titles=trainable in (True, "titles"),
            similarity=PLACEMENTS[name],
            numerics=used,
            rows_only=deferred.course_of(keras_optimizer) is not None,
            encoder=encoder,
            loss=loss,
        )
        return training.program(ranker, keras_optimizer, used)

    def config(optimizer, *overrides):
        composed_config = composed(
            "seed=4", "training.epochs=2", "training.negatives=2", *overrides
        )
        if optimizer:  # an override of a dict only adds to it, and refuses a new key
            OmegaConf.update(
                composed_config, "optimizer.keras", OmegaConf.create(optimizer), merge=False
            )
        return composed_config

    def make(
        words,
        titles,
        drawn,
        name,
        used,
        trainable=True,
        optimizer=None,
        margin=1.0,
        batch=3,
        encoder=encoders.cnn,
        loss=None,
    ):
        of = config(optimizer, f"training.batch={batch}", f"training.margin={margin}")
        data = preparation.Data(built, words, titles, {})
        in_batch = not drawn.negatives.shape[1]
        made = program(name, used, trainable, optimizer, margin, in_batch, encoder, loss)
        return preparation.Prepared(of, data, words, titles, drawn, made)

    return make


def steps_of(recording):
    seen = (
        recording.first_nan("titles"),
        recording.first_nan(*result.kernels(recording.trained)),
    )
    return tuple(event and event.step for event in seen)


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("name", PLACEMENTS)
@pytest.mark.parametrize("used", numerics.BY_NAME.values(), ids=numerics.BY_NAME)
@pytest.mark.parametrize("zero", ["many titles", "one title", "a text"])
def test_predicted_is_observed(tiny, made, used, name, trainable, zero):
    """On a small model, with many zero titles, with one that is rare, and with a text of zero
    rows."""
    built, words, titles = tiny
    words, titles = words.copy(), np.abs(titles) + 0.1
    drawn = examples.draw(built, 30, negatives=2, seed=4)
    # as `made` has it
    order = list(examples.batches(drawn, epochs=2, batch=3, shuffle=True, seed=4))
    if zero == "many titles":
        titles[::3] = 0
    elif zero == "one title":
        titles[
            np.setdiff1d(np.arange(12), np.concatenate([b.negatives.ravel() for b in order[:2]]))[0]
        ] = 0
    else:
        words[order[0].text[1]] = 0
    run = made(words, titles, drawn, name, used, trainable)
    order = list(run.order())
    foretold, recording = run.foretell(), run.start()
    training.train(run.program, order, recording)
    expected, touch = foretold.predicted, foretold.touch

    assert steps_of(recording) == (expected.titles, expected.encoder) and not expected.uncertain
    if expected.titles is not None and (
        expected.encoder is None or expected.titles < expected.encoder
    ):
        assert tuple(recording.first_nan("titles").rows) == touch.titles
    assert (expected.first is None) == (recording.first_nan() is None)


SOFTMAX = partial(losses.softmax, temperature=0.1)
MODELS = {  # encoder, loss, negatives: 0, those of the batch
    "relu": (encoders.relu, None, 2),
    "mean_pooling": (encoders.mean_pooling, None, 2),
    "softmax": (encoders.cnn, SOFTMAX, 2),
    "in_batch_softmax": (encoders.cnn, SOFTMAX, 0),
    "in_batch_hinge": (encoders.mean_pooling, None, 0),
}


@pytest.mark.parametrize("of", MODELS)
@pytest.mark.parametrize("used", numerics.BY_NAME.values(), ids=numerics.BY_NAME)
def test_predicted_is_observed_with_every_encoder_and_loss(tiny, made, used, of):
    """One zero title in several orders, a text of zero rows in step 0, and one in a later step that
    no other text shares a word with."""
    built, words, titles = tiny
    encoder, loss, negatives = MODELS[of]
    titles = np.abs(titles) + 0.1
    dead = []
    for seed in range(4):
        drawn = examples.draw(built, 30, negatives, seed)
        order = list(examples.batches(drawn, 2, 3, True, 4))
        rows, some = titles.copy(), words.copy()
        if seed < 2:
            rows[drawn.positive[7 + seed, 0]] = 0
        else:
            some[order[0 if seed == 2 else 5].text[1]] = 0
        if seed == 3:  # else its words are in the texts before
            drawn = replace(drawn, text=np.where(some[drawn.text].any(axis=2), drawn.text, 0))
            some[0] = 0
        trainable = "titles" if seed == 3 else True
        run = made(some, rows, drawn, "clamp_product", used, trainable, encoder=encoder, loss=loss)
        said, recording = run.foretell().predicted, run.start()
        training.train(run.program, run.order(), recording)
        seen = steps_of(recording)
        assert (seen, said.uncertain) == ((said.titles, said.encoder), ""), seed
        dead.append(seen)
    if used is not numerics.KERNELS:
        assert dead[0] != (None, None) and dead[2][1] == 0
        # without a bias z is 0 in every step
        assert (dead[3][1] or 0) > 0 or encoder is not encoders.mean_pooling


ADAM, SGD = "zeronorm.optimizers.Adam", "keras.optimizers.SGD"
OPTIMIZERS = {
    "adam": f"{{_target_: {ADAM}}}",
    "momentum": f"{{_target_: {SGD}, learning_rate: 0.01, momentum: 0.9, nesterov: true}}",
    "clipnorm": f"{{_target_: {ADAM}, clipnorm: 1.0}}",
    "global_clipnorm": f"{{_target_: {ADAM}, global_clipnorm: 1.0}}",
    "clipvalue": f"{{_target_: {ADAM}, clipvalue: 0.5}}",
    "sgd, clipnorm": f"{{_target_: {SGD}, learning_rate: 0.01, clipnorm: 1.0}}",
    "accumulation": f"{{_target_: {ADAM}, gradient_accumulation_steps: 4}}",
    "accumulation, clipnorm": (
        f"{{_target_: {SGD}, learning_rate: 0.1, gradient_accumulation_steps: 3, clipnorm: 1.0}}"
    ),
    "moving average": f"{{_target_: {ADAM}, use_ema: true, ema_overwrite_frequency: 2}}",
    "weight decay": f"{{_target_: {ADAM}, weight_decay: 0.01}}",
    "loss scale": (
        f"{{_target_: keras.optimizers.LossScaleOptimizer, inner_optimizer: {{_target_: {ADAM}}}}}"
    ),
    "loss scale, accumulation": (
        "{_target_: keras.optimizers.LossScaleOptimizer, inner_optimizer: "
        f"{{_target_: {ADAM}, gradient_accumulation_steps: 2}}}}"
    ),
    "lion": "{_target_: keras.optimizers.Lion, learning_rate: 0.001}",
    "ftrl": "{_target_: keras.optimizers.Ftrl}",
    "muon": "{_target_: keras.optimizers.Muon, learning_rate: 0.001}",
}


MIXING = ("clipnorm", "global_clipnorm", "clipvalue", "accumulation", "loss scale")  # under XLA too


@pytest.mark.parametrize(
    "used, name",
    [*((numerics.TF1, name) for name in OPTIMIZERS), *((numerics.XLA, name) for name in MIXING)],
    ids=lambda part: getattr(part, "name", part),
)
def test_predicted_is_observed_with_every_option_of_an_optimizer(tiny, made, used, name):
    """One zero title, in several orders: how far its NaN gets is the optimizer's."""
    built, words, titles = tiny
    titles = np.abs(titles) + 0.1
    for seed in range(4):
        drawn = examples.draw(built, 30, negatives=2, seed=seed)
        first = next(examples.batches(drawn, epochs=1, batch=1, shuffle=True, seed=4))
        rows = titles.copy()
        rows[
            np.setdiff1d(np.arange(12), np.r_[first.positive.ravel(), first.negatives.ravel()])[
                seed
            ]
        ] = 0
        run = made(words, rows, drawn, "clamp_product", used, optimizer=OPTIMIZERS[name], batch=1)
        said, recording = run.foretell().predicted, run.start()
        training.train(run.program, run.order(), recording)
        # the row of a title that no batch has named yet is zero after the first step
        if name == "ftrl":
            assert said.uncertain == prediction.ZEROED and steps_of(recording)[0] <= said.titles
        else:
            assert (steps_of(recording), said.uncertain) == ((said.titles, said.encoder), "")


def test_a_row_that_dies_only_of_an_active_hinge_under_a_small_margin_is_no_certain_death(
    tiny, made
):
    built, words, titles = tiny
    rows = np.abs(titles) + 0.1
    rows[5] = 1e-20
    drawn = examples.draw(built, 30, negatives=2, seed=4)
    uncertain = [
        made(words, rows, drawn, "add_to_product", numerics.KERNELS, margin=margin, batch=1)
        .foretell()
        .predicted.uncertain
        for margin in (1.0, 0.1)
    ]
    assert uncertain[0] == "" and "only if the loss sends" in uncertain[1]


def test_a_word_row_from_which_the_convolution_overflows_kills_in_its_step(tiny, made):
    """And of float64 vectors what float32 cannot hold is infinite from the start."""
    built, words, titles = tiny
    titles = np.abs(titles) + 0.1
    drawn = examples.draw(built, 30, negatives=2, seed=4)
    order = list(examples.batches(drawn, epochs=2, batch=1, shuffle=True, seed=4))
    later = next(
        word for b in order for word in b.text[0] if not np.isin(word, [x.text for x in order[:2]])
    )
    for size in (1e10, 1e20, 3e38, np.inf):
        changed = words.copy()
        changed[later] = size
        for used in numerics.BY_NAME.values():
            run = made(changed, titles, drawn, "clamp_product", used, batch=1)
            said, recording = run.foretell().predicted, run.start()
            training.train(run.program, run.order(), recording)
            titles_seen, encoder_seen = steps_of(recording)
            assert encoder_seen == said.encoder, (size, used.name)
            # XLA may drop a NaN in the maximum over time and the ReLU, and then the titles live on
            expected = (
                prediction.DROPPED.format(encoder_seen)
                if used is numerics.XLA and encoder_seen
                else ""
            )
            assert said.uncertain == expected, (size, used.name)
            assert expected or titles_seen == said.titles, (size, used.name)
            first = recording.first_nan()
            assert (first and first.step) == said.first, (size, used.name)
