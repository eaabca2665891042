"""One run's story: audit the vectors, predict, train, evaluate, and say what happened. No MLflow
here."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
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
    with result.clock("prediction"):
        foretold = _foretell(prepared, result)
    with result.clock("steps"):
        norms, xla_steps, seconds = _train(prepared, result, foretold.singular, tell)
    with result.clock("files"):
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
    only_zero = vectors.zero_rows(prepared.read_by_texts)[prepared.drawn.text].all(axis=1)
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
        looks.append((last.step + 1, time.perf_counter()))
        tell(Progress(last.step + 1, result.steps))
        last_of_epoch = (last.batch + 1) * config.training.batch >= examples_drawn
        if config.training.evaluate_every_epoch and last_of_epoch:
            program.flush()
            with result.clock("evaluation"):
                result.epochs[last.step] = _ranked(prepared, singular).metrics()

    clock = time.perf_counter()
    looks = [(0, clock)]  # how many steps are done, and when
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
        result.clock.move(_compiling(looks), "steps", to="compilation")
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


def _compiling(looks: list[tuple[int, float]]) -> float:
    """Seconds by which the first steps, which are traced and compiled first, took longer than the
    fastest later ones.

    looks: (steps done, when), the first before any.
    """
    pairs = list(pairwise(looks))
    paces = [(then - now) / (after - before) for (before, now), (after, then) in pairs]
    (_, begun), (steps, done) = pairs[0]
    return max(0.0, done - begun - steps * min(paces))


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
    with result.clock("evaluation"):
        ranked = _ranked(prepared, foretold.singular)
    result.metrics = ranked.metrics()
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
    ranked.table().to_csv(result.folder / "ranks.csv.gz", index=False)
    write(result.folder / "metrics.json", result.metrics)
    write(result.folder / "facts.json", result.facts)


@dataclass(frozen=True)
class Ranked:
    """Where the right title of each evaluated text stands, n texts in the corpus's order.

    titles: of all titles, [titles].
    target: int [n], the right one of each text.
    rank: int [n], as `ranking.ranks` returns it.
    apart: bool [n], whether its title started as a zero or a deadly row.
    """

    titles: list[str]
    target: np.ndarray
    rank: np.ndarray
    apart: np.ndarray

    def metrics(self) -> dict[str, float]:
        """eval/* over all texts, and eval_zero_rows/* over those set apart; none of no text."""
        groups = {"eval": self.rank, "eval_zero_rows": self.rank[self.apart]}
        return {
            f"{group}/{name}": value
            for group, rank in groups.items()
            for name, value in ranking.metrics(rank, len(self.titles)).items()
        }

    def table(self) -> pd.DataFrame:
        """One row a text: title, zero (0 or 1: as `apart`), rank (0: its score is not finite)."""
        names = [self.titles[title] for title in self.target]
        return pd.DataFrame({"title": names, "zero": self.apart.astype(int), "rank": self.rank})


def _ranked(prepared: Prepared, singular: np.ndarray) -> Ranked:
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
) -> Ranked:
    """The examples at `positions`, int [n], ranked among all titles.

    singular: bool [titles], which of them started as a zero or a deadly row.
    """
    target = corpus.title[positions]
    scores = np.empty((0, len(corpus.titles)))
    if len(positions):
        scores = training.scores(ranker, training.encode(ranker, corpus.text[positions]))
    return Ranked(corpus.titles, target, ranking.ranks(scores, target), singular[target])


def _norm(variable) -> float:
    return float(np.linalg.norm(np.asarray(variable, dtype=np.float64)))
