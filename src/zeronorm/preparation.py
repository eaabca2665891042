"""From a config to what a run trains on: corpus, matrices, examples, compiled program; made once
and handed on."""

import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path

import hydra
import numpy as np
from omegaconf import DictConfig, OmegaConf

from zeronorm import (
    baseline,
    cache,
    contents,
    deferred,
    encoders,
    examples,
    model,
    numerics,
    optimizers,
    prediction,
    recorder,
    singularity,
    training,
    vectorfiles,
    vectors,
)
from zeronorm import config as schema
from zeronorm import corpus as corpora
from zeronorm.autopsy.graph import quiet

TEXTS = 4  # of the first batch, with which rows of unusual norm are tried
WILD = 1e15  # norm of a word row above which the convolution may overflow


class ExperimentError(Exception):
    """Input that a run cannot start from: one sentence that says what is wrong and what to do."""


@dataclass
class Data:
    """What every run of one corpus and vectors shares.

    words: [n_words, d], titles: [n_titles, d], as built.
    baseline: {split: metrics of a TF-IDF centroid}.
    """

    corpus: corpora.Corpus
    words: np.ndarray
    titles: np.ndarray
    baseline: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Prepared:
    """What a run trains, and on what.

    words, titles: the matrices it starts from.
    drawn: its examples.
    """

    config: DictConfig
    data: Data
    words: np.ndarray
    titles: np.ndarray
    drawn: examples.Examples
    program: training.Program

    def order(self) -> Iterator[examples.Batch]:
        """Its batches, from the first."""
        budget = self.config.training
        return examples.batches(
            self.drawn, budget.epochs, budget.batch, budget.shuffle, self.config.seed
        )

    @property
    def read_by_texts(self) -> np.ndarray:
        """[rows, d]: the row of each id of a text; of a tied model the words' and then the
        titles'."""
        tied = self.program.ranker.tied
        return np.concatenate([self.words, self.titles]) if tied else self.words

    @property
    def masked(self) -> np.ndarray | None:
        """bool [titles]: those whose hinges are multiplied by 0; None where none is."""
        masks = self.config.training.zero_titles == schema.ZeroTitles.masked
        return vectors.zero_rows(self.titles) if masks else None

    def start(self) -> recorder.Recording:
        """Puts the program into the state before the first step. Returns an empty recording."""
        self.program.reset(self.words, self.titles, self.config.seed, self.masked)
        if self.config.rounding is not None:
            model.round_otherwise(self.program.ranker, self.config.rounding)
        return self.program.recording(
            {"words": self.data.corpus.word_names, "titles": self.data.corpus.titles}
        )

    @quiet()  # each graph has gradients of its own, at one place in the code
    def foretell(self) -> "Foretold":
        """What is known before the first step. Leaves the program in a state of no meaning: `start`
        comes next."""
        read, shared = self.read_by_texts, len(self.words) if self.program.ranker.tied else None
        zero_words = vectors.zero_rows(read)
        blank = zero_words if zero_words.any() and passes_zero(self.program) else None
        self.start()
        program, first = self.program, next(self.order())
        similarity, used = program.ranker.similarity, program.numerics
        loss = program.ranker.loss
        scale = float(program.optimizer.scale_loss(1.0))
        # of step 0 the dropout is known too, since nothing has drawn from its seed
        opening = np.array(program.ranker.encoder(first.text, training=True))
        norms = np.linalg.norm(opening.astype(np.float64), axis=1)
        usual = opening[(norms >= singularity.USUAL[0]) & (norms <= singularity.USUAL[1])][:TEXTS]
        width = opening.shape[1]
        texts = usual if len(usual) else np.full((1, width), width**-0.5, np.float32)
        sends = prediction.Sends.of(loss, 1 + first.negatives.shape[1])
        least, most = scale * sends.least / len(first.text), scale * sends.most
        fates = singularity.fates(similarity, used, self.titles, texts, least, most)
        wild = ~(np.linalg.norm(read.astype(np.float64), axis=1) < WILD)
        is_finite = training.encoder_is_finite(program)

        def look(batch: examples.Batch) -> prediction.Look:
            z = opening if batch.step == 0 else training.encode(program.ranker, batch.text)
            ids = np.concatenate([batch.positive, batch.negatives], axis=1)
            idle = None if self.masked is None else prediction.masked_pairs(batch, self.masked)
            seen = prediction.look(
                similarity, used, z, self.titles, ids, loss, scale / len(ids), idle
            )
            if wild[batch.text].any() and not is_finite(batch.text):
                seen.text[:] = singularity.Kind.nan
            return seen

        lost, lost_words = (~np.isfinite(rows).all(axis=1) for rows in (self.titles, self.words))
        rows = prediction.Rows(
            lost, wild, self.masked, bool(lost_words.any()), used.jit_compile, blank, shared
        )
        reach = reaches(
            optimizer_json(self.config), used.jit_compile, optimizer_sources(self.config)
        )
        predicted = prediction.predict(
            self.order(), fates, look, reach, rows, program.trained, sends.always
        )
        deadly = fates.deadly | lost
        singular = deadly | vectors.zero_rows(self.titles)
        touch = prediction.touches(self.order(), singular, zero_words, shared)
        return Foretold(deadly, singular, touch, predicted)


@dataclass(frozen=True)
class Foretold:
    """What is known of a run before its first step.

    deadly: bool [titles], rows at which the gradient that is computed is not finite;
    singular: those and the zero rows.
    touch, predicted: see `prediction`.
    """

    deadly: np.ndarray
    singular: np.ndarray
    touch: prediction.Touch
    predicted: prediction.Prediction


@lru_cache(maxsize=16)  # as many as there are programs
def passes_zero(program: training.Program) -> bool:
    """`model.passes_zero` of a program's ranker, whose state then has no meaning."""
    window = program.ranker.encoder.input_shape[1]
    return model.passes_zero(program.ranker, window)


@lru_cache(maxsize=64)
def reaches(optimizer: str, jit_compile: bool, sources: tuple) -> optimizers.Reaches:
    """Of the optimizer that a config node, as JSON, makes. Raises ExperimentError if it cannot
    update an embedding.

    sources: as `_compiled` takes them.
    """
    made = _made(optimizer)
    try:
        return optimizers.reaches(made, jit_compile)
    except Exception as error:  # the optimizer's own, of any kind
        raise ExperimentError(
            f"The optimizer {type(made).__name__} cannot update an embedding ({first_line(error)}):"
            " choose another, or other options."
        ) from error


def _made(optimizer: str):
    """The Keras optimizer that a config node, as JSON, makes."""
    contents.refresh(json.loads(optimizer))
    try:
        return hydra.utils.instantiate(json.loads(optimizer))
    except Exception as error:
        raise ExperimentError(
            f"The optimizer cannot be made: {' '.join(str(error).split())}"
        ) from error


def optimizer_json(config: DictConfig) -> str:
    return json.dumps(OmegaConf.to_container(config.optimizer.keras, resolve=True))


def optimizer_sources(config: DictConfig) -> tuple:
    """What the optimizer's code is known by, so that a changed one is made anew."""
    return tuple(contents.functions("optimizer", json.loads(optimizer_json(config))).items())


def prepare(config: DictConfig) -> Prepared:
    """Raises ExperimentError, CorpusError or VectorsError if the input cannot be used."""
    data = load(config)
    words, titles = initial_matrices(config, data)
    drawn = draw(config, data, vectors.zero_rows(titles))
    return Prepared(
        config,
        data,
        words,
        titles,
        drawn,
        compiled(config, len(words), len(titles), words.shape[1]),
    )


def draw(config: DictConfig, data: Data, zero_titles: np.ndarray) -> examples.Examples:
    """The examples a run trains on. Raises ExperimentError if there are fewer than asked for."""
    left_out = zero_titles if config.training.zero_titles == schema.ZeroTitles.left_out else None
    budget, in_batch = config.training, bool(config.loss.in_batch)
    negatives = 0 if in_batch else budget.negatives
    try:
        drawn = examples.draw(data.corpus, config.examples, negatives, config.seed, left_out)
    except ValueError as error:
        raise ExperimentError(str(error)) from error
    if in_batch and len(drawn) % budget.batch == 1:
        raise ExperimentError(
            f"training.batch={budget.batch} leaves a last batch of one of {len(drawn)} examples,"
            f" and loss={config.loss.name} takes its negatives from the batch: change one of them."
        )
    return drawn


def load(config: DictConfig) -> Data:
    """The corpus and the matrices of `config`: built once and cached under home, by the content of
    their sources."""
    plain = schema.plain(config)
    nodes = {
        "corpus.reader": plain["corpus"]["reader"],
        "vectors.source": plain["vectors"]["source"],
    }
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
    read_as = corpora.tied(read.corpus) if plain["model"]["tied"] else read.corpus
    return replace(read, corpus=read_as, words=words, titles=titles)


@lru_cache(maxsize=2)
def _read(corpus_json: str, source_json: str, dtype_json: str, sources: str, home: str) -> Data:
    """The corpus, and the matrices as its vectors make them, which runs that plant or normalise
    rows share."""
    corpus_options, source, dtype = (
        json.loads(part) for part in (corpus_json, source_json, dtype_json)
    )
    folder = Path(home) / "cache"
    del corpus_options["name"]
    of_corpus, of_vectors = json.loads(sources)
    read = [corpus_options, of_corpus]
    corpus = cache.kept(folder, "corpus", read, partial(_build_corpus, corpus_options))
    found = cache.kept(
        folder, "vectors", [*read, source, of_vectors], partial(_call, source, corpus=corpus)
    )
    words = vectors.matrix(found, corpus.vocabulary, dtype)
    titles = vectors.matrix(found, corpus.titles, dtype)
    for rows, names, what in ((words, corpus.vocabulary, "word"), (titles, corpus.titles, "title")):
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise ExperimentError(
                f"The vectors hold values that are not finite as they are read (word2vec's and"
                f" GloVe's formats are read as float32) in {len(bad)} {what}"
                f" row{'s' if len(bad) > 1 else ''}, the first that of '{names[bad[0]]}': remove"
                " or replace these vectors."
            )
    without = cache.kept(folder, "baseline", read, partial(_build_baseline, corpus))
    return Data(corpus, words, titles, without)


@lru_cache(maxsize=1)
def _libraries() -> dict[str, str]:
    found = {library: version(library) for library in ("gensim", "numpy", "scikit-learn")}
    return found | {"python": platform.python_version()}  # whose texts are corpora too


def _sources(at: str, node: dict) -> dict[str, str]:
    """Digests of what a reader's or a source's node reads and calls, and of the code here that does
    it; so that what is cached under another is not taken for it."""
    modules = (cache, corpora, vectors, vectorfiles, baseline)
    own = {module.__name__: contents.digest(str(module.__file__)) for module in modules}
    found = contents.files(at, node) | contents.functions(at, node) | own
    return found | _libraries()


def _build_corpus(options: dict) -> corpora.Corpus:
    bad_lines: list[corpora.BadLine] = []
    articles = _call(options["reader"], bad_lines=bad_lines)
    return corpora.build(articles, bad_lines, **{k: v for k, v in options.items() if k != "reader"})


def _build_baseline(corpus: corpora.Corpus) -> dict[str, dict[str, float]]:
    splits = {"test": corpus.test, "validation": corpus.validation}
    return {
        name: baseline.tfidf_centroid(corpus, positions)
        for name, positions in splits.items()
        if len(positions)
    }


def _call(node: dict, **more):
    """Calls a config node's _target_. hydra.utils.instantiate would copy the arguments that are
    lists."""
    return contents.resolved(node["_target_"])(
        **{k: v for k, v in node.items() if k != "_target_"}, **more
    )


def initial_matrices(config: DictConfig, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """The two embedding matrices a run starts from, float32 [n_words, d] and [n_titles, d]: the
    `init` factor."""
    words, titles = data.words, data.titles
    rng = np.random.default_rng([config.seed, 1])
    if config.init.start == schema.Start.uniform:
        words, titles = (
            vectors.uniform(rows.shape, config.init.scale, rng) for rows in (words, titles)
        )
    elif config.init.repair is not None:
        titles = vectors.repaired(config.init.repair, titles, words, data.corpus, rng)
    if config.init.norm is not None:
        words, titles = (
            vectors.rescaled(words, config.init.norm),
            vectors.rescaled(titles, config.init.norm),
        )
    return vectors.float32(words), vectors.float32(titles)


def compiled(config: DictConfig, n_words: int, n_titles: int, dim: int) -> training.Program:
    """The compiled step of `config`'s graph. Runs that differ only in seed, init or data share it:
    one trace and one XLA compilation serves them all."""
    placement = config.similarity
    graph = {
        "n_words": n_words,
        "n_titles": n_titles,
        "dim": dim,
        "window": config.corpus.window,
        "negatives": None if config.loss.in_batch else config.training.negatives,
        "filters": config.model.filters,
        "width": config.model.width,
        "dropout": config.model.dropout,
        "margin": config.training.margin,
        "trainable_words": config.trainable in (True, "words"),
        "trainable_titles": config.trainable in (True, "titles"),
        "masks_titles": config.training.zero_titles == schema.ZeroTitles.masked,
        "tied": bool(config.model.tied),
    }
    optimizer = optimizer_json(config)
    called = (placement.function, placement.epsilon, config.numerics.name, optimizer)
    named = (config.encoder.function, config.loss.function, config.loss.temperature)
    functions = (placement.function, *named[:2])
    sources = [pair for name in functions for pair in contents.functions("", name).items()]
    return _compiled(tuple(graph.items()), *called, named, (*sources, *optimizer_sources(config)))


@lru_cache(maxsize=16)  # the ablation's runs come back to a graph after 12 others
def _compiled(
    graph: tuple,
    function: str,
    epsilon: float | None,
    name: str,
    optimizer: str,
    more: tuple[str | None, str | None, float | None],
    sources: tuple,
) -> training.Program:
    """more: the functions of the encoder and of the loss, and its temperature.
    sources: digests of what `function` and `optimizer` name, so that what has changed is
    compiled anew."""
    import keras

    keras.backend.clear_session()  # else the layers' names count up from run to run
    placement = contents.resolved(function)
    if epsilon is not None:
        placement = partial(placement, epsilon=epsilon)
    made = _made(optimizer)
    encoder, loss, temperature = more
    of_scores = None
    if loss is not None:
        of_scores = contents.resolved(loss)
        if temperature is not None:
            of_scores = partial(of_scores, temperature=temperature)
    ranker = model.build(
        **dict(graph),
        encoder=encoders.cnn if encoder is None else contents.resolved(encoder),
        loss=of_scores,
        similarity=placement,
        numerics=numerics.named(name),
        rows_only=deferred.course_of(made) is not None,
    )
    return training.program(ranker, made, numerics.named(name))


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
