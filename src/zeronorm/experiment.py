"""One run's story: audit the vectors, predict, train, evaluate, and say what happened. No MLflow
here."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from omegaconf import OmegaConf

from zeronorm import config as schema
from zeronorm import corpus as corpora
from zeronorm import (
    examples,
    figures,
    model,
    prediction,
    provenance,
    ranking,
    recorder,
    singularity,
    training,
    vectors,
)
from zeronorm.autopsy.graph import quiet
from zeronorm.checks import require_space
from zeronorm.preparation import Foretold, Prepared
from zeronorm.result import (
    Result,
    facts_of,
    kernels,
    nan_steps,
    story,
    tags_of,
    verdict,
    write,
    write_recording,
)


@dataclass(frozen=True)
class Progress:
    """Told to the caller before the first step and after each: how many of `steps` are done."""

    done: int
    steps: int


def run(
    prepared: Prepared, result: Result, tell: Callable[[Progress], None] = lambda progress: None
) -> None:
    """Runs what was prepared to its end and fills `result`; its files lie in result.folder.

    Raises ExperimentError if the disk is full. A NaN raises nothing.
    """
    text = provenance.without_passwords(OmegaConf.to_yaml(prepared.config, resolve=True))
    (result.folder / "config.yaml").write_text(text, encoding="utf-8")
    require_space(result.folder)
    # The audit and the prediction come first: they need the matrices and the batch order, not the
    # training.
    foretold = _foretell(prepared, result)
    norms, xla_steps, seconds = _train(prepared, result, foretold.singular, tell)
    _conclude(prepared, result, foretold, norms, xla_steps, seconds)


def _foretell(prepared: Prepared, result: Result) -> Foretold:
    """Fills in what is known before the first step."""
    config, titles = prepared.config, prepared.titles
    foretold = prepared.foretell()
    zero_titles = vectors.zero_rows(titles)
    result.audit = _audit(prepared, foretold)
    write(result.folder / "audit.json", result.audit)
    result.touch, result.predicted = foretold.touch, foretold.predicted
    drawable = config.training.zero_titles != schema.ZeroTitles.left_out
    result.chance = prediction.chance(
        prepared.drawn, foretold.singular & (drawable | ~zero_titles), config.training.batch
    )
    with quiet():
        program = prepared.program
        result.zero_row = singularity.measure(program.ranker.similarity, program.numerics)
    return foretold


def _audit(prepared: Prepared, foretold: Foretold) -> dict:
    """What the matrices and the texts hold."""
    data, words, titles = prepared.data, prepared.words, prepared.titles
    names, classes = data.corpus.titles, vectors.classes(titles)
    only_zero = vectors.zero_rows(words)[prepared.drawn.text].all(axis=1)
    return {
        "corpus": corpora.summary(data.corpus),
        "words": vectors.audit(words, str(data.words.dtype)),
        "titles": vectors.audit(titles, str(data.titles.dtype)),
        "zero_titles": [names[row] for row in np.flatnonzero(vectors.zero_rows(titles))],
        "deadly_titles": {
            name: [names[row] for row in np.flatnonzero(foretold.deadly & (classes == name))]
            for name in vectors.CLASSES
        },
        "texts_of_zero_rows_only": int(only_zero.sum()),
        "sha256": {"words": vectors.digest(words), "titles": vectors.digest(titles)},
    }


def _train(
    prepared: Prepared, result: Result, singular: np.ndarray, tell: Callable[[Progress], None]
) -> tuple[dict[str, float], int, float]:
    """({weight: its norm at the start}, the steps that XLA computed, seconds) of the training.

    singular: bool [titles], as `evaluate` takes it.
    """
    config, program, examples_drawn = prepared.config, prepared.program, len(prepared.drawn)
    recording = result.recording = prepared.start()
    result.steps = config.training.epochs * examples.steps_per_epoch(
        examples_drawn, config.training.batch
    )
    tell(Progress(0, result.steps))
    start = {name: _norm(variable) for name, variable in program.ranker.weights.items()}

    def after_chunk(last: examples.Batch) -> None:
        tell(Progress(last.step + 1, result.steps))
        last_of_epoch = (last.batch + 1) * config.training.batch >= examples_drawn
        if config.training.evaluate_every_epoch and last_of_epoch:
            program.flush()
            result.epochs[last.step] = _evaluated(prepared, singular)

    clock = time.perf_counter()
    try:
        xla_steps = training.train(
            program,
            prepared.order(),
            recording,
            stops(config.training.on_nan, recording),
            after_chunk,
        )
        seconds = time.perf_counter() - clock
        program.finish()
    finally:  # also at an interruption: what was measured until then is kept
        result.curves = recording.curves
        for name, norm in start.items():
            if name not in recording.trained:
                result.curves[f"norm/{name}"] = np.full(recording.steps, norm)
        result.norms = {
            name: (start[name], _norm(variable))
            for name, variable in program.ranker.weights.items()
        }
        write_recording(result)
    return start, xla_steps, seconds


def _conclude(
    prepared: Prepared,
    result: Result,
    foretold: Foretold,
    start: dict[str, float],
    xla_steps: int,
    seconds: float,
) -> None:
    """Evaluates, and says what happened, as numbers, in words and as a figure."""
    config, recording = prepared.config, result.recording
    assert recording is not None  # it was trained
    result.metrics = _evaluated(prepared, foretold.singular)
    without = prepared.data.baseline.get(config.training.evaluate_on.value, {})
    result.metrics |= {f"eval_tfidf/{name}": value for name, value in without.items()}
    result.metrics["z/steps_per_second"] = recording.steps / seconds
    result.metrics["zero_rows/titles"] = int(vectors.zero_rows(prepared.titles).sum())
    result.metrics["deadly_rows/titles"] = int(foretold.deadly.sum())
    result.outcome = "nan" if recording.first_nan() else "finite"
    result.tags = tags_of(result, prepared.program.numerics, xla_steps)
    result.facts = facts_of(result)
    result.metrics |= nan_steps(result)
    result.verdict = verdict(result)
    result.story = story(config, result)
    logging.getLogger(__name__).info(result.story)
    deaths = {e.tensor: e.step for e in reversed(recording.events) if e.phase == "weight"}
    figures.norms(
        result.curves, start, deaths, schema.condition(config), result.folder / "norms.png"
    )
    write(result.folder / "metrics.json", result.metrics)
    write(result.folder / "facts.json", result.facts)


def _evaluated(prepared: Prepared, singular: np.ndarray) -> dict[str, float]:
    """`evaluate` on the split that the config names."""
    corpus = prepared.data.corpus
    on_test = prepared.config.training.evaluate_on == schema.Split.test
    positions = corpus.test if on_test else corpus.validation
    return evaluate(prepared.program.ranker, corpus, positions, singular)


def stops(on_nan: schema.OnNan, recording: recorder.Recording) -> list[tuple[str, str]]:
    """The tensors whose first non-finite value ends the run."""
    # the first of the encoder; of one that has lost a kernel every weight is lost, or will be
    lost = ("weight", kernels(recording.trained)[0])
    return {
        schema.OnNan.go_on: [],
        schema.OnNan.stop: recording.tensors,
        schema.OnNan.stop_when_lost: [lost],
    }[on_nan]


def evaluate(
    ranker: model.Ranker, corpus: corpora.Corpus, positions: np.ndarray, singular: np.ndarray
) -> dict[str, float]:
    """eval/* over the examples at `positions`, ranked among all titles, and eval_zero_rows/* over
    those of them whose title started as a zero or a deadly row, bool [titles]."""
    if not len(positions):
        return {}
    target = corpus.title[positions]
    scores = training.scores(ranker, training.encode(ranker, corpus.text[positions]))
    rank, scored = ranking.ranks(scores, target), ranking.scored(scores, target)
    apart = singular[target]
    found = {f"eval/{name}": value for name, value in ranking.metrics(rank, scored).items()}
    zero = ranking.metrics(rank[apart], scored[apart])
    return found | {f"eval_zero_rows/{name}": value for name, value in zero.items()}


def _norm(variable) -> float:
    return float(np.linalg.norm(np.asarray(variable, dtype=np.float64)))
