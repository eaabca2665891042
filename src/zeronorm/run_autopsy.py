"""The autopsy of one of this project's runs: the step that poisoned a weight, reached again from
the run's config, examined under each numerics, and treated with each placement and repair.

Of a run that nothing poisoned it is the first step that touches a zero row, and shows what the
other numerics would have made of it.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import islice

import numpy as np
import tensorflow as tf
from omegaconf import DictConfig, OmegaConf

from zeronorm import (
    checkout,
    contents,
    experiment,
    numerics,
    preparation,
    training,
    treatments,
    trust,
    vectors,
)
from zeronorm import config as schema
from zeronorm.autopsy import examination, graph, trace
from zeronorm.autopsy.blame import Guilty
from zeronorm.autopsy.capsule import Capsule, CapsuleError
from zeronorm.autopsy.subject import Subject, Trial
from zeronorm.examples import Batch
from zeronorm.result import Result
from zeronorm.run_report import RunReport

LINES = 12  # of the text that a terminal shows after a run
HISTORY = 50  # steps before the examined one of which the report tells the loss and the norms
# the scope in which numerics.py emulates a kernel
STANDS_FOR = re.compile(r"(?P<kind>\w+)Grad_2017")


@dataclass(frozen=True)
class Moment:
    """A run just before one of its steps.

    step: its number.
    state: the values of `training.Program.state`.
    batch: what the step is taken on.
    vocabulary, titles: what the rows of the two embeddings stand for.
    history: of the steps before, as `autopsy.Report` has it.
    """

    config: DictConfig
    step: int
    state: tuple[np.ndarray, ...]
    batch: Batch
    vocabulary: Sequence[str]
    titles: Sequence[str]
    history: tuple[dict, ...] = ()

    def made(self, name: str) -> training.Program:
        """The run's steps under a numerics, from whatever state they are in."""
        config = schema.merged(self.config, {"numerics": {"name": name}})
        words = next(value for value in self.state if value.shape[:1] == (len(self.vocabulary),))
        return preparation.compiled(config, len(self.vocabulary), len(self.titles), words.shape[1])

    def program(self, name: str) -> training.Program:
        """The run's steps under a numerics, from this moment."""
        made = self.made(name)
        for variable, value in zip(made.state, self.state, strict=True):
            variable.assign(value)
        return made

    def capsule(self) -> Capsule:
        """The moment, to be written to a file."""
        program = self.program(self.config.numerics.name)
        state = tuple(
            (variable.path, value)
            for variable, value in zip(program.state, self.state, strict=True)
        )
        names = {"words": self.vocabulary, "titles": self.titles}
        text = OmegaConf.to_yaml(self.config, resolve=True)
        return Capsule(
            self.step, program.numerics.jit_compile, state, _data(self.batch), text, names
        )


def reached(prepared: preparation.Prepared, step: int | None = None) -> Moment:
    """The moment before a step of the run, which is trained up to there.

    step: by default the first in which the audit predicts a death or, where it predicts none, that
        touches a zero row.

    Raises ExperimentError if it has no such step.
    """
    if step is None:
        step = _of_interest(prepared)
    order, recording = prepared.order(), prepared.start()
    training.train(prepared.program, islice(order, step), recording)
    batch = next(order, None)
    if batch is None:
        raise preparation.ExperimentError(
            f"The run has no step {step}: it has {recording.steps}, counted from 0."
        )
    state = tuple(np.array(variable) for variable in prepared.program.state)
    corpus = prepared.data.corpus
    return Moment(
        prepared.config, step, state, batch, corpus.word_names, corpus.titles, _history(recording)
    )


def of_capsule(capsule: Capsule, trusted: bool = False) -> Moment:
    """The moment that `Moment.capsule` made one of.

    trusted: its config may name what it likes, as `trust.config` says.

    Raises ConfigError if its config cannot be used, CapsuleError if the rest does not fit it.
    """
    config = trust.config(capsule.config, "The capsule", trusted, opens=False)
    fault = _misfit(config, capsule)
    if fault:
        raise CapsuleError(f"The capsule does not fit its own config: {fault}.")
    values = tuple(value for _, value in capsule.state)
    batch = Batch(capsule.step, 0, 0, *(np.asarray(part) for part in capsule.batch))
    moment = Moment(
        config, capsule.step, values, batch, capsule.names["words"], capsule.names["titles"]
    )
    own = [(tuple(v.shape), tf.as_dtype(v.dtype)) for v in moment.made(config.numerics.name).state]
    given = [(value.shape, tf.as_dtype(value.dtype)) for value in values]
    if own != given:
        differ = next(
            (n for n, (a, b) in enumerate(zip(own, given, strict=False)) if a != b),
            min(len(own), len(given)),
        )
        raise CapsuleError(
            f"The capsule does not fit its own config: variable {differ} of its {len(given)} is not"
            f" that of the {len(own)} which the model has."
        )
    return moment


def _misfit(config: DictConfig, capsule: Capsule) -> str | None:
    """What of a capsule is not as its config says, before anything is built: what is built is then
    no larger than what the file holds."""
    if not {"words", "titles"} <= set(capsule.names):
        return "it has no names of words and titles"
    n_words, n_titles = (len(capsule.names[name]) for name in ("words", "titles"))
    shapes = [value.shape for _, value in capsule.state]
    words = next((shape for shape in shapes if len(shape) == 2 and shape[0] == n_words), None)
    if words is None or (n_titles, words[1]) not in shapes:
        return "it has no two embeddings with a row for each of its names"
    kernel = (config.model.width, words[1], config.model.filters)
    if config.encoder.function is None and kernel not in shapes:
        return f"it has no kernel of {config.model.filters} filters, {config.model.width} wide"
    batch = capsule.batch
    if (
        not isinstance(batch, (tuple, list))
        or len(batch) != 3
        or not all(isinstance(x, tf.Tensor) for x in batch)
    ):
        return "its batch is not text, right titles and negatives"
    size = batch[0].shape[0] if batch[0].shape.rank else 0
    wide = (config.corpus.window, 1, config.training.negatives)
    named = n_words + n_titles * bool(config.model.tied)  # by a text
    for part, width, rows in zip(batch, wide, (named, n_titles, n_titles), strict=True):
        if part.dtype != tf.int32 or tuple(part.shape) != (size, width) or not size:
            return f"a part of its batch is {part.dtype.name} of shape {tuple(part.shape)}"
        if tf.reduce_min(part) < 0 or tf.reduce_max(part) >= rows:
            return "its batch names rows that its embeddings do not have"
    return None


def _of_interest(prepared: preparation.Prepared) -> int:
    foretold = prepared.foretell()
    return next(
        (step for step in (foretold.predicted.first, foretold.touch.first) if step is not None), 0
    )


@graph.quiet()
def examine(moment: Moment) -> RunReport:
    """The autopsy of the step that follows the moment."""
    own = numerics.named(moment.config.numerics.name).name
    programs = {name: moment.program(name) for name in numerics.BY_NAME}
    subjects = {name: _subject(program, moment) for name, program in programs.items()}
    # None of one that cannot be computed so
    lost = {name: Trial(subject, subject.jit_compile)() for name, subject in subjects.items()}
    examined = next((name for name in (own, *lost) if lost[name]), own)
    program, subject = programs[examined], subjects[examined]

    traced = _traced(program, tuple(tensor.shape for tensor in subject.tensors))
    outcomes = {False: lost["kernels" if examined == "xla" else examined], True: lost["xla"]}
    report = examination.report(
        subject, moment.step, outcomes, traced, _emulated, history=moment.history
    )
    fails = {name: None if of is None else bool(of) for name, of in lost.items()}
    known = vars(report) | {
        "harmful": bool(lost[own]),
        "kernels": fails["kernels"],
        "xla": fails["xla"],
        "jit_compile": own == "xla",
        "lost": lost[examined] or {},
    }
    return RunReport(
        **known,
        own=own,
        examined=examined,
        fails=fails,
        places=tuple(tuple(_places(one, moment, program)) for one in report.guilty),
        treated=_all_treated(moment, program),
    )


def _all_treated(moment: Moment, program: training.Program) -> tuple[treatments.Treatment, ...]:
    """None where the optimizer stops with an error under the kernels, which try the treatments: as
    Keras's RMSprop and Adagrad may of a batch that names a row twice."""
    try:
        return tuple(_treated(moment, program))
    except tf.errors.OpError as error:
        lines = [line for line in str(error).splitlines() if line.strip() and "{{node" not in line]
        said = lines[-1].strip()
        logging.getLogger(__name__).warning("No treatment could be tried: %s", said)
        return ()


def add(prepared: preparation.Prepared, result: Result) -> None:
    """Adds the autopsy to what a run found: its files, tags, a sentence of its story and the
    beginning of its text.

    An autopsy that fails is said in the log and in a tag: the run itself is not lost.
    """
    assert result.recording is not None  # the run has been made
    first = result.recording.first_nan()
    try:
        report = examine(reached(prepared, first.step if first else None))
    except Exception as error:
        logging.getLogger(__name__).warning("The autopsy failed; the run is whole.", exc_info=True)
        result.tags["autopsy"] = f"failed: {type(error).__name__}"
        return
    report.write(result.folder)
    result.story += f" {report.headline}"
    result.tags |= report.tags
    lines = [*str(report).splitlines()[:LINES], f"... the rest: {result.folder / 'autopsy.md'}"]
    if report.harmful and (report.cure or report.override):
        cure = " or ".join(known for known in (report.cure, report.override) if known)
        result.story += f" Cure: {cure}."
        lines.append(f"Cure: {cure}")
    result.autopsy = "\n".join(lines)


def _data(batch: Batch) -> tuple[tf.Tensor, ...]:
    return tuple(map(tf.constant, (batch.text, batch.positive, batch.negatives)))


def _weights(program: training.Program) -> dict:
    slots = {
        variable.path: variable
        for variable in program.optimizer.variables
        if "iteration" not in variable.path
    }
    named = {**program.ranker.weights, **slots}
    return {name: variable.value for name, variable in named.items()}


def _subject(program: training.Program, moment: Moment) -> Subject:
    """The step of a program that follows the moment, at which the program is."""
    return Subject(
        step=lambda data: program.take(*data),
        data=_data(moment.batch),
        weights=_weights(program),
        state=[variable.value for variable in program.state],
        optimizers=[program.optimizer],
        jit_compile=program.numerics.jit_compile,
        names={"words": moment.vocabulary, "titles": moment.titles},
        inputs=("text", "positive", "negatives"),
        compiled=_compiled(program),
    )


@lru_cache(maxsize=8)  # runs of one graph follow each other, each tried under all numerics
def _compiled(program: training.Program) -> dict:
    """Room for what is compiled of a program's step."""
    return {}


@lru_cache(maxsize=8)
def _traced(program: training.Program, shapes: tuple) -> graph.Step:
    """The program's step as a graph."""
    data = tuple(tf.zeros(shape, tf.int32) for shape in shapes)
    return trace.trace(lambda data: program.take(*data), data, [program.optimizer])


def _history(recording) -> tuple[dict, ...]:
    """The loss before each step, and the norms after it."""
    curves = {
        name: curve
        for name, curve in recording.curves.items()
        if name == "train/loss" or _is_norm(name)
    }
    steps = range(max(0, recording.steps - HISTORY), recording.steps)
    return tuple(
        {"step": step} | {name: float(curve[step]) for name, curve in curves.items()}
        for step in steps
    )


def _is_norm(name: str) -> bool:
    return name.startswith("norm/") and name.removeprefix("norm/") in experiment.model.WEIGHTS


def _emulated(guilty: Guilty, traced: graph.Step) -> Guilty:
    """An operation of the emulation of TensorFlow to 1.13 as the kernel that it stands for, at the
    line that called it."""
    stands = STANDS_FOR.search(guilty.operation)
    if not stands:
        return guilty
    kind = stands["kind"]
    operation = traced.graph.get_operation_by_name(guilty.operation)
    forward = next(of for of in graph.above(operation) if of.type == kind)
    line = graph.user_line(forward, past=(numerics.__file__,))
    own = {"op_type": f"{kind}Grad", "forward_op_type": kind, "forward_operation": forward.name}
    return replace(guilty, **own, **vars(line))


def _places(guilty: Guilty, moment: Moment, program: training.Program) -> Iterator[dict]:
    """Of the elements that stand for a pair of an example and a title: which."""
    batch = moment.batch
    ids = {1: batch.positive, batch.negatives.shape[1]: batch.negatives}
    titles = program.ranker.weights["titles"].numpy()
    zero, norms = vectors.zero_rows(titles), np.linalg.norm(titles.astype(np.float64), axis=1)
    shape = guilty.shape
    if (
        len(shape) < 2
        or shape[0] != len(batch.text)
        or shape[1] not in ids
        or max(shape[2:], default=1) != 1
    ):
        return
    for example, number, *_ in guilty.elements:
        row = int(ids[shape[1]][example, number])
        role = "the right title" if ids[shape[1]] is batch.positive else f"negative {number}"
        title = moment.titles[row]
        place = {"example": example, "role": role, "row": row, "title": title}
        yield place | {"zero_row": bool(zero[row]), "norm": float(norms[row])}


def _treated(moment: Moment, program: training.Program) -> list[treatments.Treatment]:
    titles, words = (program.ranker.weights[name].numpy() for name in ("titles", "words"))
    zero, rng, repaired = (
        vectors.zero_rows(titles),
        np.random.default_rng([moment.config.seed, 1]),
        {},
    )
    if zero.any() and not zero.all():
        repaired = {
            rule: vectors.repaired(rule, titles, words, moment, rng) for rule in vectors.REPAIRS
        }
    own = moment.config.similarity.name
    return treatments.tried(program, moment.batch, _placements(moment.config), own, repaired)


def _placements(config: DictConfig) -> dict:
    """{name: function bound to its epsilon}: the run's own, and every one in conf/similarity with
    its own epsilon."""
    files = sorted((checkout.conf_dir() / "similarity").glob("*.yaml"))
    nodes = {node.name: node for node in (*map(OmegaConf.load, files), config.similarity)}
    return {
        name: _placement(
            node.function, node.get("epsilon"), *contents.functions("", node.function).values()
        )
        for name, node in nodes.items()
    }


# the same object for the same placement: what is compiled for it is found again
@lru_cache(maxsize=64)
def _placement(function: str, epsilon: float | None, *sources: str):
    """sources: digests of what the function's name leads to, so that one that has changed is
    another."""
    found = contents.resolved(function)
    return found if epsilon is None else partial(found, epsilon=epsilon)
