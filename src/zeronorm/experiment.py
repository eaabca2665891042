"""One run's story: audit the vectors, predict, train, evaluate, and say in words what happened. No MLflow here."""

import inspect
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path

import hydra
import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from zeronorm import (
    baseline,
    cache,
    callables,
    contents,
    examples,
    figures,
    model,
    numerics,
    optimizers,
    prediction,
    ranking,
    recorder,
    singularity,
    training,
    vectorfiles,
    vectors,
)
from zeronorm import config as schema
from zeronorm import corpus as corpora

FREE_SPACE = 200e6  # bytes a run may need for its outputs
TEXTS = 4  # of the first batch, with which rows of unusual norm are tried
WILD = 1e15  # norm of a word row above which the convolution may overflow


class ExperimentError(Exception):
    """Input that a run cannot start from: one sentence that says what is wrong and what to do."""


@dataclass
class Data:
    """What every run of one corpus and vectors shares. words: [n_words, d], titles: [n_titles, d], as built. baseline:
    {split: metrics of a TF-IDF centroid}."""

    corpus: corpora.Corpus
    words: np.ndarray
    titles: np.ndarray
    baseline: dict[str, dict[str, float]]


@dataclass
class Result:
    """What a run found; complete when `outcome` is set. Written piece by piece, so that an interrupted run keeps what
    it has.

    outcome: finite or nan. audit: what the matrices hold. touch, predicted, chance: see `prediction`. zero_row: what
    the placement does at a zero row. metrics: {path: value} at the end. curves: {path: float64 [steps]}. epochs: {last
    step of an epoch: metrics} where asked for. norms: {weight: (start, end)}. autopsy: the beginning of its text.
    """

    folder: Path
    steps: int = 0
    outcome: str | None = None
    audit: dict = field(default_factory=dict)
    touch: prediction.Touch | None = None
    predicted: prediction.Prediction | None = None
    chance: prediction.Chance | None = None
    zero_row: singularity.Singularity | None = None
    recording: recorder.Recording | None = None
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)
    norms: dict[str, tuple[float, float]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    story: str = ""
    autopsy: str = ""


@dataclass(frozen=True)
class Progress:
    """Told to the caller before the first step and after each: how many of `steps` are done."""

    done: int
    steps: int


def run(config: DictConfig, result: Result, tell: Callable[[Progress], None] = lambda progress: None) -> None:
    """Runs `config` to its end and fills `result`; its files lie in result.folder.

    Raises ExperimentError, CorpusError or VectorsError before training if the input cannot be used. A NaN raises
    nothing.
    """
    OmegaConf.save(config, result.folder / "config.yaml", resolve=True)
    require_space(result.folder)
    prepared = prepare(config)
    data, words, titles, drawn = prepared.data, prepared.words, prepared.titles, prepared.drawn
    program, order = prepared.program, prepared.order
    evaluated = data.corpus.test if config.training.evaluate_on == schema.Split.test else data.corpus.validation

    # The audit and the prediction come first: they need the matrices and the batch order, not the training.
    foretold = prepared.foretell()
    zero_titles, singular = vectors.zero_rows(titles), foretold.singular
    classes = vectors.classes(titles)
    result.audit = {
        "corpus": corpora.summary(data.corpus),
        "words": vectors.audit(words, str(data.words.dtype)),
        "titles": vectors.audit(titles, str(data.titles.dtype)),
        "zero_titles": [data.corpus.titles[row] for row in np.flatnonzero(zero_titles)],
        "deadly_titles": {
            name: [data.corpus.titles[row] for row in np.flatnonzero(foretold.deadly & (classes == name))]
            for name in vectors.CLASSES
        },
        "texts_of_zero_rows_only": int(vectors.zero_rows(words)[drawn.text].all(axis=1).sum()),
        "sha256": {"words": vectors.digest(words), "titles": vectors.digest(titles)},
    }
    _write(result.folder / "audit.json", result.audit)
    result.touch, result.predicted = foretold.touch, foretold.predicted
    drawable = config.training.zero_titles != schema.ZeroTitles.left_out
    result.chance = prediction.chance(drawn, singular & (drawable | ~zero_titles), config.training.batch)
    result.zero_row = singularity.measure(program.ranker.similarity, program.numerics)

    recording = result.recording = prepared.start()
    result.steps = config.training.epochs * examples.steps_per_epoch(len(drawn), config.training.batch)
    tell(Progress(0, result.steps))
    start = {name: _norm(variable) for name, variable in program.ranker.weights.items()}

    def after_chunk(last: examples.Batch) -> None:
        tell(Progress(last.step + 1, result.steps))
        last_of_epoch = (last.batch + 1) * config.training.batch >= len(drawn)
        if config.training.evaluate_every_epoch and last_of_epoch:
            result.epochs[last.step] = evaluate(program.ranker, data.corpus, evaluated, singular)

    clock = time.perf_counter()
    try:
        xla_steps = training.train(program, order(), recording, stops(config.training.on_nan, recording), after_chunk)
        seconds = time.perf_counter() - clock
        program.finish()
    finally:  # also at an interruption: what was measured until then is kept
        result.curves = recording.curves
        for name, norm in start.items():
            if name not in recording.trained:
                result.curves[f"norm/{name}"] = np.full(recording.steps, norm)
        result.norms = {name: (start[name], _norm(variable)) for name, variable in program.ranker.weights.items()}
        _write_recording(result)

    result.metrics = evaluate(program.ranker, data.corpus, evaluated, singular)
    without = data.baseline.get(config.training.evaluate_on.value, {})
    result.metrics |= {f"eval_tfidf/{name}": value for name, value in without.items()}
    result.metrics["z/steps_per_second"] = recording.steps / seconds
    result.metrics["zero_rows/titles"] = int(zero_titles.sum())
    result.metrics["deadly_rows/titles"] = int(foretold.deadly.sum())
    first = recording.first_nan()
    result.outcome = "nan" if first else "finite"
    result.tags = _tags(result, program.numerics, xla_steps)
    result.story = story(config, result)
    logging.getLogger(__name__).info(result.story)
    deaths = {e.tensor: e.step for e in reversed(recording.events) if e.phase == "weight"}
    figures.norms(result.curves, start, deaths, schema.condition(config), result.folder / "norms.png")
    _write(result.folder / "metrics.json", result.metrics)


@dataclass(frozen=True)
class Prepared:
    """What a run trains, and on what. words, titles: the matrices it starts from. drawn: its examples."""

    config: DictConfig
    data: Data
    words: np.ndarray
    titles: np.ndarray
    drawn: examples.Examples
    program: training.Program

    def order(self) -> Iterator[examples.Batch]:
        """Its batches, from the first."""
        budget = self.config.training
        return examples.batches(self.drawn, budget.epochs, budget.batch, budget.shuffle, self.config.seed)

    @property
    def masked(self) -> np.ndarray | None:
        """bool [titles]: those whose hinges are multiplied by 0; None where none is."""
        masks = self.config.training.zero_titles == schema.ZeroTitles.masked
        return vectors.zero_rows(self.titles) if masks else None

    def start(self) -> recorder.Recording:
        """Puts the program into the state before the first step. Returns an empty recording."""
        self.program.reset(self.words, self.titles, self.config.seed, self.masked)
        return self.program.recording({"words": self.data.corpus.vocabulary, "titles": self.data.corpus.titles})

    def foretell(self) -> "Foretold":
        """What is known before the first step. Leaves the program in a state of no meaning: `start` comes next."""
        self.start()
        budget, program, first = self.config.training, self.program, next(self.order())
        similarity, used = program.ranker.similarity, program.numerics
        scale = float(program.optimizer.scale_loss(1.0))
        # of step 0 the dropout is known too, since nothing has drawn from its seed
        opening = np.array(program.ranker.encoder(first.text, training=True))
        norms = np.linalg.norm(opening.astype(np.float64), axis=1)
        usual = opening[(norms >= singularity.USUAL[0]) & (norms <= singularity.USUAL[1])][:TEXTS]
        width = opening.shape[1]
        texts = usual if len(usual) else np.full((1, width), width**-0.5, np.float32)
        fates = singularity.fates(
            similarity, used, self.titles, texts, scale / len(first.text), scale * budget.negatives
        )
        wild = ~(np.linalg.norm(self.words.astype(np.float64), axis=1) < WILD)
        is_finite = training.encoder_is_finite(program)

        def look(batch: examples.Batch) -> prediction.Look:
            z = opening if batch.step == 0 else training.encode(program.ranker, batch.text)
            ids = np.concatenate([batch.positive, batch.negatives], axis=1)
            idle = None if self.masked is None else prediction.masked_pairs(batch, self.masked)
            upstream = scale / len(ids)
            seen = prediction.look(similarity, used, z, self.titles, ids, budget.margin, upstream, idle)
            if wild[batch.text].any() and not is_finite(batch.text):
                seen.text[:] = singularity.Kind.nan
            return seen

        lost, lost_words = (~np.isfinite(rows).all(axis=1) for rows in (self.titles, self.words))
        rows = prediction.Rows(lost, wild, self.masked, bool(lost_words.any()), used.jit_compile)
        reaches = _reaches(_optimizer_json(self.config), used.jit_compile, _optimizer_sources(self.config))
        predicted = prediction.predict(self.order(), fates, look, reaches, rows, program.trained, budget.margin)
        deadly = fates.deadly | lost
        singular = deadly | vectors.zero_rows(self.titles)
        touch = prediction.touches(self.order(), singular, vectors.zero_rows(self.words))
        return Foretold(deadly, singular, touch, predicted)


@dataclass(frozen=True)
class Foretold:
    """What is known of a run before its first step. deadly: bool [titles], rows at which the gradient that is computed
    is not finite; singular: those and the zero rows. touch, predicted: see `prediction`."""

    deadly: np.ndarray
    singular: np.ndarray
    touch: prediction.Touch
    predicted: prediction.Prediction


@lru_cache(maxsize=64)
def _reaches(optimizer: str, jit_compile: bool, sources: tuple) -> optimizers.Reaches:
    """Of the optimizer that a config node, as JSON, makes. Raises ExperimentError if it cannot update an embedding.

    sources: as `_compiled` takes them.
    """
    made = _made(optimizer)
    try:
        return optimizers.reaches(made, jit_compile)
    except Exception as error:  # the optimizer's own, of any kind
        raise ExperimentError(
            f"The optimizer {type(made).__name__} cannot update an embedding ({_first_line(error)}): choose another, "
            "or other options."
        ) from error


def _made(optimizer: str):
    """The Keras optimizer that a config node, as JSON, makes."""
    contents.refresh(json.loads(optimizer))
    try:
        return hydra.utils.instantiate(json.loads(optimizer))
    except Exception as error:
        raise ExperimentError(f"The optimizer cannot be made: {' '.join(str(error).split())}") from error


def _optimizer_json(config: DictConfig) -> str:
    return json.dumps(OmegaConf.to_container(config.optimizer.keras, resolve=True))


def _optimizer_sources(config: DictConfig) -> tuple:
    """What the optimizer's code is known by, so that a changed one is made anew."""
    return tuple(contents.functions("optimizer", json.loads(_optimizer_json(config))).items())


def prepare(config: DictConfig) -> Prepared:
    """Raises ExperimentError, CorpusError or VectorsError if the input cannot be used."""
    data = load(config)
    words, titles = initial_matrices(config, data)
    drawn = draw(config, data, vectors.zero_rows(titles))
    return Prepared(config, data, words, titles, drawn, compiled(config, len(words), len(titles), words.shape[1]))


def stops(on_nan: schema.OnNan, recording: recorder.Recording) -> list[tuple[str, str]]:
    """The tensors whose first non-finite value ends the run."""
    lost = ("weight", "convolution/kernel")
    return {schema.OnNan.go_on: [], schema.OnNan.stop: recording.tensors, schema.OnNan.stop_when_lost: [lost]}[on_nan]


def check(config: DictConfig) -> None:
    """Raises what `run` would raise before its first step; what it builds on the way is kept for the run."""
    require_space(Path(config.home))
    try:
        callables.require_callable("corpus.reader", config.corpus.reader, ["bad_lines"])
        callables.require_callable("vectors.source", config.vectors.source, ["corpus"])
    except callables.CallError as error:
        raise ExperimentError(str(error)) from error
    data = load(config)
    draw(config, data, vectors.zero_rows(initial_matrices(config, data)[1]))
    if config.training.evaluate_on == schema.Split.validation and unscored(config):
        raise ExperimentError(unscored(config))
    _check_similarity(config.similarity)
    _check_optimizer(config)


def unscored(config: DictConfig) -> str:
    """Why a run of `config` will have no score, in one sentence; empty if it will have one."""
    corpus, split = load(config).corpus, config.training.evaluate_on.value
    windows, titles = len(corpus.title), len(corpus.titles)
    if len(getattr(corpus, split)):
        return ""
    return (
        f"There will be no score, because corpus.{split}_share={config.corpus[f'{split}_share']:g} "
        f"holds out none of the {windows} windows of {titles} titles: raise it, or give each title "
        "more text."
    )


def _check_optimizer(config: DictConfig) -> None:
    import keras

    optimizer = config.optimizer
    try:
        made = hydra.utils.instantiate(optimizer.keras)
    except Exception as error:
        raise ExperimentError(f"optimizer={optimizer.name} cannot be made: {callables.reason(error)}.") from error
    if not isinstance(made, keras.Optimizer):
        raise ExperimentError(
            f"optimizer={optimizer.name}: {optimizer.keras._target_} makes a {type(made).__name__}, no Keras optimizer."
        )
    used = numerics.named(config.numerics.name)
    _reaches(_optimizer_json(config), used.jit_compile, _optimizer_sources(config))


def _check_similarity(placement: DictConfig) -> None:
    """Tries the placement on two texts and three titles, as the model will call it."""
    try:
        function = contents.resolved(placement.function)
    except Exception as error:
        raise ExperimentError(
            f"similarity={placement.name}: {placement.function} cannot be imported; correct the path in its YAML file, "
            "or put its module's folder on PYTHONPATH."
        ) from error
    takes_epsilon = "epsilon" in inspect.signature(function).parameters
    if takes_epsilon != (placement.epsilon is not None):
        raise ExperimentError(
            f"similarity={placement.name}: its YAML file has {'no' if takes_epsilon else 'an'} epsilon, but "
            f"{placement.function} {'takes one' if takes_epsilon else 'takes none'}."
        )
    bound = partial(function, epsilon=placement.epsilon) if takes_epsilon else function
    try:
        shape = bound(np.ones((2, 1, 4), np.float32), np.ones((2, 3, 4), np.float32), numerics.KERNELS).shape
    except Exception as error:
        raise ExperimentError(f"similarity={placement.name} fails: {_first_line(error)}") from error
    if tuple(shape) != (2, 3):
        raise ExperimentError(
            f"similarity={placement.name} returns shape {tuple(shape)} for a [2, 1, 4] and b [2, 3, 4]; it must reduce "
            "the last axis only, to (2, 3)."
        )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def draw(config: DictConfig, data: Data, zero_titles: np.ndarray) -> examples.Examples:
    """The examples a run trains on. Raises ExperimentError if there are fewer than asked for."""
    left_out = zero_titles if config.training.zero_titles == schema.ZeroTitles.left_out else None
    try:
        return examples.draw(data.corpus, config.examples, config.training.negatives, config.seed, left_out)
    except ValueError as error:
        raise ExperimentError(str(error)) from error


def load(config: DictConfig) -> Data:
    """The corpus and the matrices of `config`: built once and cached under home, by the content of their sources."""
    plain = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    nodes = {"corpus.reader": plain["corpus"]["reader"], "vectors.source": plain["vectors"]["source"]}
    try:
        sources = json.dumps([_sources(at, node) for at, node in nodes.items()])
    except OSError as error:
        raise ExperimentError(f"{error.filename} cannot be read: {error.strerror}.") from error
    corpus, vector = plain["corpus"], plain["vectors"]
    as_read = [json.dumps(part) for part in (corpus, vector["source"], vector["dtype"])]
    read = _read(*as_read, sources, str(Path(config.home).resolve()))
    words, titles = read.words, read.titles
    if vector["normalise"]:
        words, titles = vectors.normalised(words), vectors.normalised(titles)
    if vector["zero_share"] is not None:
        share, norm = vector["zero_share"], vector["planted_norm"] or 0.0
        titles = vectors.with_zero_share(titles, share, np.random.default_rng(0), norm)
    if vector["zero_word_share"] is not None:
        words = vectors.with_zero_words(words, vector["zero_word_share"], np.random.default_rng(0))
    return replace(read, words=words, titles=titles)


@lru_cache(maxsize=2)
def _read(corpus_json: str, source_json: str, dtype_json: str, sources: str, home: str) -> Data:
    """The corpus, and the matrices as its vectors make them, which runs that plant or normalise rows share."""
    corpus_options, source, dtype = (json.loads(part) for part in (corpus_json, source_json, dtype_json))
    folder = Path(home) / "cache"
    del corpus_options["name"]
    of_corpus, of_vectors = json.loads(sources)
    read = [corpus_options, of_corpus]
    corpus = cache.kept(folder, "corpus", read, partial(_build_corpus, corpus_options))
    found = cache.kept(folder, "vectors", [*read, source, of_vectors], partial(_call, source, corpus=corpus))
    words = vectors.matrix(found, corpus.vocabulary, dtype)
    titles = vectors.matrix(found, corpus.titles, dtype)
    for rows, names, what in ((words, corpus.vocabulary, "word"), (titles, corpus.titles, "title")):
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise ExperimentError(
                f"The vectors hold non-finite values in {len(bad)} {what} rows, the first that of "
                f"'{names[bad[0]]}': remove or replace these vectors."
            )
    without = cache.kept(folder, "baseline", read, partial(_build_baseline, corpus))
    return Data(corpus, words, titles, without)


@lru_cache(maxsize=1)
def _libraries() -> dict[str, str]:
    return {library: version(library) for library in ("gensim", "numpy", "scikit-learn")}


def _sources(at: str, node: dict) -> dict[str, str]:
    """Digests of what a reader's or a source's node reads and calls, and of the code here that does it; so that what is
    cached under another is not taken for it."""
    modules = (cache, corpora, vectors, vectorfiles, baseline)
    own = {module.__name__: contents.digest(module.__file__) for module in modules}
    found = contents.files(at, node) | contents.functions(at, node) | own
    return found | _libraries()


def _build_corpus(options: dict) -> corpora.Corpus:
    bad_lines: list[corpora.BadLine] = []
    articles = _call(options["reader"], bad_lines=bad_lines)
    return corpora.build(articles, bad_lines, **{k: v for k, v in options.items() if k != "reader"})


def _build_baseline(corpus: corpora.Corpus) -> dict[str, dict[str, float]]:
    splits = {"test": corpus.test, "validation": corpus.validation}
    return {name: baseline.tfidf_centroid(corpus, positions) for name, positions in splits.items() if len(positions)}


def _call(node: dict, **more):
    """Calls a config node's _target_. hydra.utils.instantiate would copy the arguments that are lists."""
    return contents.resolved(node["_target_"])(**{k: v for k, v in node.items() if k != "_target_"}, **more)


def initial_matrices(config: DictConfig, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """The two embedding matrices a run starts from, float32 [n_words, d] and [n_titles, d]: the `init` factor."""
    words, titles = data.words, data.titles
    rng = np.random.default_rng([config.seed, 1])
    if config.init.start == schema.Start.uniform:
        words, titles = (vectors.uniform(rows.shape, config.init.scale, rng) for rows in (words, titles))
    elif config.init.repair is not None:
        titles = vectors.repaired(config.init.repair, titles, words, data.corpus, rng)
    if config.init.norm is not None:
        words, titles = vectors.rescaled(words, config.init.norm), vectors.rescaled(titles, config.init.norm)
    return vectors.float32(words), vectors.float32(titles)


def compiled(config: DictConfig, n_words: int, n_titles: int, dim: int) -> training.Program:
    """The compiled step of `config`'s graph. Runs that differ only in seed, init or data share it: one trace and one
    XLA compilation serves them all."""
    placement = config.similarity
    graph = {
        "n_words": n_words,
        "n_titles": n_titles,
        "dim": dim,
        "window": config.corpus.window,
        "negatives": config.training.negatives,
        "filters": config.model.filters,
        "width": config.model.width,
        "dropout": config.model.dropout,
        "margin": config.training.margin,
        "trainable_words": config.trainable in (True, "words"),
        "trainable_titles": config.trainable in (True, "titles"),
        "masks_titles": config.training.zero_titles == schema.ZeroTitles.masked,
    }
    optimizer = _optimizer_json(config)
    called = (placement.function, placement.epsilon, config.numerics.name, optimizer)
    sources = contents.functions("similarity", placement.function).items()
    return _compiled(tuple(graph.items()), *called, (*sources, *_optimizer_sources(config)))


@lru_cache(maxsize=16)  # the ablation's runs come back to a graph after 12 others
def _compiled(
    graph: tuple, function: str, epsilon: float | None, name: str, optimizer: str, sources: tuple
) -> training.Program:
    """sources: digests of what `function` and `optimizer` name, so that what has changed is compiled anew."""
    import keras

    keras.backend.clear_session()  # else the layers' names count up from run to run
    placement = contents.resolved(function)
    if epsilon is not None:
        placement = partial(placement, epsilon=epsilon)
    made = _made(optimizer)
    ranker = model.build(
        **dict(graph), similarity=placement, numerics=numerics.named(name), rows_only=optimizers.rows_only(made)
    )
    return training.program(ranker, made, numerics.named(name))


def evaluate(
    ranker: model.Ranker, corpus: corpora.Corpus, positions: np.ndarray, singular: np.ndarray
) -> dict[str, float]:
    """eval/* over the examples at `positions`, ranked among all titles, and eval_zero_rows/* over those of them whose
    title started as a zero or a deadly row, bool [titles]."""
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


def _tags(result: Result, used: numerics.Numerics, xla_steps: int) -> dict[str, str]:
    first = result.recording.first_nan()
    encoder = result.recording.first_nan("convolution/kernel", "dense/kernel")
    loss = result.curves["train/loss"]
    finite = loss[np.isfinite(loss)]
    tags = {
        "outcome": result.outcome,
        "numerics": used.name,  # what numerics=auto came out as
        "xla.steps": f"{xla_steps} of {result.recording.steps}",
        "loss.last_finite": f"{finite[-1]:.6g}" if len(finite) else None,
        "loss.nonfinite_steps": int((~np.isfinite(loss)).sum()),
        "titles": result.audit["titles"]["rows"],
        "deadly_titles": ", ".join(_deadly(result, vectors.CLASSES)),
        **{f"matrix.{name}": digest for name, digest in result.audit["sha256"].items()},
        "zero_texts": result.audit["texts_of_zero_rows_only"],
        "nan.first_step": first and first.step,
        "nan.first_tensor": first and first.tensor,
        "nan.first_rows": first and ", ".join(first.names[:10]),
        "nan.encoder_step": encoder and encoder.step,
        "nan.predicted_step": result.predicted.first,
        "nan.predicted_encoder_step": result.predicted.encoder,
        "nan.prediction_uncertain": result.predicted.uncertain,
        "touch.first": result.touch.first,
        "touch.again": result.touch.again,
        "touch.probability": f"{result.chance.batch:.6g}",
        "touch.expected": _number(result.chance.first),
        "zero_row.derivative": _number(result.zero_row.derivative),
        "zero_row.gradient": _number(result.zero_row.gradient),
        "zero_row.gradient_tiny": _number(result.zero_row.gradient_tiny),
        **{f"small_row.score_{size:g}": _number(score) for size, score in result.zero_row.scores.items()},
    }
    return {key: str(value) for key, value in tags.items() if value not in (None, "")}


def _number(value: float | None) -> str | None:
    """Six digits; inf and nan by name."""
    return None if value is None else f"{value:.6g}"


def _deadly(result: Result, classes: Sequence[str]) -> list[str]:
    """['5 small', '1 large']: how many deadly title rows there are of each class."""
    return [
        f"{len(names)} {kind}" for kind, names in result.audit["deadly_titles"].items() if names and kind in classes
    ]


def _rows(result: Result) -> str:
    """'57 of 106 title rows start at zero': and the deadly ones that do not, by their class."""
    titles, others = result.audit["titles"], _deadly(result, vectors.CLASSES[1:])
    more = f" and {', '.join(others)} ones are as deadly" if others else ""
    return f"{titles['zero_rows']} of {titles['rows']} title rows start at zero{more}"


def forecast(result: Result) -> str:
    """What the audit found and what is predicted, in two sentences, or three, before the first step."""
    steps = {"the title rows": result.predicted.titles, "the encoder's kernels": result.predicted.encoder}
    deaths = [f"{who} become NaN in step {step}" for who, step in steps.items() if step is not None]
    doubt = f" Not certain: {result.predicted.uncertain}." if result.predicted.uncertain else ""
    return f"{_rows(result)}. Predicted: {', '.join(deaths) or 'no NaN'}.{doubt}"


def story(config: DictConfig, result: Result) -> str:
    """What happened, in three sentences."""
    recording, predicted = result.recording, result.predicted
    rows = result.audit["titles"]["rows"]
    first = recording.first_nan()
    encoder = recording.first_nan("convolution/kernel", "dense/kernel")

    def expected(step: int | None) -> str:
        return "none was predicted" if step is None else f"step {step} was predicted"

    if first is None:
        event = f"All weights stayed finite over {recording.steps} steps ({expected(predicted.first)})"
    else:
        who = f" ({', '.join(first.names[:3])}{', ...' if len(first.names) > 3 else ''})" if first.names else ""
        event = f"{first.tensor}{who} became non-finite in step {first.step} ({expected(predicted.first)})"
        if encoder:
            event += f", the encoder's kernels in step {encoder.step} ({expected(predicted.encoder)})"
    ending = []
    if "eval/hits_at_10" in result.metrics:
        quality = f"hits@10 on {config.training.evaluate_on.value} is {result.metrics['eval/hits_at_10']:.3f}"
        ending.append(f"{quality}, chance {min(1, 10 / rows):.3f}")
    if config.numerics.name == "xla":
        ending.append(f"XLA computed {result.tags['xla.steps']} steps")
    sentences = [_rows(result), event, "; ".join(ending)]
    return " ".join(f"{sentence}." for sentence in sentences if sentence)


def require_space(folder: Path) -> None:
    """Raises ExperimentError if the disk under `folder` has too little room for a run's outputs."""
    free = shutil.disk_usage(folder).free
    if free < FREE_SPACE:
        raise ExperimentError(
            f"The disk under {os.path.abspath(folder)} has {free / 1e6:.0f} MB left and a run may need "
            f"{FREE_SPACE / 1e6:.0f}: free some, or set ZERONORM_HOME to another disk."
        )


def _write(path: Path, content) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_recording(result: Result) -> None:
    recording = result.recording
    forecast = {"touch": asdict(result.touch), "predicted": asdict(result.predicted)}
    events = [json.dumps(asdict(event), ensure_ascii=False) for event in recording.events]  # one a line
    text = json.dumps({**forecast, "events": []}, ensure_ascii=False, indent=1)
    text = text.replace('"events": []', '"events": [\n  ' + ",\n  ".join(events) + "\n ]") if events else text
    (result.folder / "nan_events.json").write_text(text + "\n", encoding="utf-8")
    deaths = [
        {"tensor": tensor, "row": row, "name": recording.names[tensor][row], "step": step}
        for tensor, rows in recording.deaths.items()
        for row, step in rows.items()
    ]
    if deaths:
        pd.DataFrame(deaths).to_csv(result.folder / "row_deaths.csv", index=False)
    long = [
        pd.DataFrame({"step": np.arange(len(curve)), "name": name, "value": curve})
        for name, curve in result.curves.items()
    ]
    if long:
        pd.concat(long).dropna().to_csv(result.folder / "curves.csv.gz", index=False)
