"""The step at which a run will die, from the batch order and probes of gradients: before training.

What makes it exact (README, "Why it happens"):

1. The first batch that touches a deadly title row makes that row NaN: one at which the gradient
   that is computed is not finite (`singularity.Fates`). Where that holds for an incoming gradient
   of 0 too, an inactive hinge does not help.
2. The first later batch that touches one of those rows again has a NaN similarity, and its gradient
   reaches z and with it every weight of the encoder. A large row can do that when it is touched
   first.
3. A text whose words are all zero rows, or nearly, gives a z of (nearly) zero as long as the biases
   are zero, that is in step 0 only; then the encoder itself stands at the singular point. So step 0
   is read off the first batch itself. An encoder without biases has a z of zero in every step, as
   long as none of the text's word rows has moved.
4. A title's row that is a word's too (`model.tied`) is moved by every text that holds the word:
   it is deadly only if no step before touched it so. Once lost, it makes z NaN wherever it is read.
5. How far a gradient that is not finite gets is the optimizer's (`optimizers.Reaches`): to its row,
   to every row of its batch, to every weight, at once or when the gradients of several steps are
   applied, or nowhere.

What cannot be known from these is said in `Prediction.uncertain`.
"""

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from zeronorm import singularity
from zeronorm.examples import Batch, Examples
from zeronorm.numerics import Numerics
from zeronorm.optimizers import Reaches
from zeronorm.singularity import Fates, Kind


@dataclass(frozen=True)
class Touch:
    """Steps, 0-based, or None where it does not come to pass in this training.

    first: the first batch that holds a title row that is zero or deadly, as positive or negative.
    again: the first batch after it that holds a title which was touched as such a row before, as a
        title or, of a tied model, as a word.
    zero_text: 0 if a text of the first batch has only zero rows.
    titles: ids of these titles in the first such batch.
    """

    first: int | None
    again: int | None
    zero_text: int | None
    titles: tuple[int, ...]


@dataclass(frozen=True)
class Prediction:
    """Steps, 0-based, of the first NaN in the title rows, in the word rows and in the encoder's
    kernels; None where there will be none.

    titles, words: None also where they are not trained.
    uncertain: why these steps are the likely ones only; "" where they are exact.
    """

    titles: int | None
    encoder: int | None
    words: int | None = None
    uncertain: str = ""

    @property
    def first(self) -> int | None:
        steps = (self.titles, self.encoder, self.words)
        return min((step for step in steps if step is not None), default=None)


def shared_ids(text: np.ndarray, first: int | None) -> np.ndarray:
    """The title ids that a text names, int [n]: its ids from `first` on; None: it names none."""
    return text[:0, 0] if first is None else text[text >= first] - first


def touches(
    batches: Iterable[Batch],
    singular: np.ndarray,
    zero_words: np.ndarray,
    shared: int | None = None,
) -> Touch:
    """Reads the batch order.

    singular: bool [titles], the rows that are zero or deadly;
    zero_words: bool [words], the rows that are exactly zero;
    shared: as `Rows` has it.
    """
    first, touched, zero_text = None, np.zeros_like(singular), None
    ids_of_first: tuple[int, ...] = ()
    for batch in batches:
        if batch.step == 0 and zero_words[batch.text].all(axis=1).any():
            zero_text = 0
        ids = np.unique(np.concatenate([batch.positive.ravel(), batch.negatives.ravel()]))
        if touched[ids].any() or touched[shared_ids(batch.text, shared)].any():
            return Touch(first, batch.step, zero_text, ids_of_first)
        hit = ids[singular[ids]]
        if first is None and len(hit):
            first, ids_of_first = batch.step, tuple(hit.tolist())
        touched[hit] = True
    return Touch(first, None, zero_text, ids_of_first)


@dataclass(frozen=True)
class Look:
    """What the gradients of a batch are, with the initial weights. Kinds, int8 [batch, 1 +
    negatives].

    title, text: at the title row, and at the text, of each pair, the right title first.
    """

    title: np.ndarray
    text: np.ndarray


Loss = Callable[..., tf.Tensor]
"""float32 [batch], of similarities, float32 [batch, 1 + k], the right title's first, and of the
mask of the titles where some are masked (`model.MaxMargin`)."""


def sent(loss: Loss, scores: np.ndarray, idle: np.ndarray | None = None) -> np.ndarray:
    """What a loss sends to each similarity: float32 like scores, the gradient of each example's
    loss.

    scores: float32 [batch, 1 + k].
    idle: bool like scores, pairs that are masked.
    """
    at = tf.constant(scores, tf.float32)
    masks = [] if idle is None else [tf.constant(np.insert(~idle[:, 1:], 0, True, 1), tf.float32)]
    with tf.GradientTape() as tape:
        tape.watch(at)
        of_each = loss(at, *masks)
    return tape.gradient(of_each, at).numpy()


@dataclass(frozen=True)
class Sends:
    """What a loss sends to a similarity, of one example.

    least, most: the smallest and the largest of what is not 0, without its sign.
    always: whether it sends something to a title of similarity 0 whatever the others' are.
    """

    least: float
    most: float
    always: bool

    @staticmethod
    def of(loss: Loss, candidates: int) -> "Sends":
        """Tries the extremes. candidates: similarities of an example."""
        below = np.nextafter(np.float32(1), np.float32(0))  # no cosine is above 1
        worst = np.full((2, candidates), -below)
        worst[0, 0], worst[1, :2] = 0, (below, 0)  # the title is the right one; a negative
        at_worst = sent(loss, worst)
        usual = np.full((3, candidates), -below)
        usual[0], usual[1, 0], usual[2, 1:] = 0, below, below
        found = np.abs(np.concatenate([at_worst, sent(loss, usual)]))
        found = found[found > 0]
        return Sends(
            float(found.min(initial=np.inf)),
            float(found.max(initial=0)),
            bool(at_worst[0, 0] and at_worst[1, 1]),
        )


def look(
    similarity: Callable,
    numerics: Numerics,
    z: np.ndarray,
    titles: np.ndarray,
    ids: np.ndarray,
    loss: Loss,
    scale: float,
    idle: np.ndarray | None = None,
) -> Look:
    """Takes the gradient of each pair of a batch, for what the loss sends it.

    z: float32 [batch, d], the texts as the step has them.
    titles: float32 [n, d], the rows.
    ids: int [batch, 1 + k], the right title first.
    scale: what an example's loss is multiplied by.
    idle: bool like ids, pairs that are masked.
    """
    rows = titles[ids]  # [batch, 1 + k, d]
    scores = np.asarray(similarity(*(tf.constant(x, tf.float32) for x in (z[:, np.newaxis], rows))))
    incoming = sent(loss, scores, idle) * np.float32(scale)
    texts = np.repeat(z, ids.shape[1], axis=0)
    text, title = singularity.kinds(
        similarity, numerics, texts, rows.reshape(texts.shape), incoming.ravel()
    )
    return Look(title.reshape(ids.shape), text.reshape(ids.shape))


def masked_pairs(batch: Batch, masked: np.ndarray) -> np.ndarray:
    """bool [batch, 1 + negatives]: the pairs of a batch whose hinges a mask, bool [titles],
    multiplies by 0."""
    negatives = masked[batch.negatives] | masked[batch.positive]
    return np.concatenate([negatives.all(axis=1, keepdims=True), negatives], axis=1)


EDGE = "a row touched in step {} stands at an edge where the text decides"
IDLE = (
    "a row touched in step {} is deadly only if the loss sends it something, as with this margin or"
    " temperature it may not"
)
BLANK = "a text of step {} has word rows that began as zeros, and some of them may have moved"
SHARED = "a row touched in step {} is a word of a text before, which will have moved it"
HELD = "an infinite gradient in step {}, which this optimizer may hold"
ZEROED = "this optimizer sets the rows that a batch does not name to zero"
MIXED = "this optimizer gives a row that a batch names twice what is another row's"
DROPPED = (
    "a text of step {} holds a word row so large that the convolution overflows, and XLA may drop"
    " the NaN that comes of it"
)
SQUARE = "a gradient in step {} so large that its square may overflow, which this optimizer takes"


@dataclass(frozen=True)
class Rows:
    """The rows of both embeddings that matter, bool each.

    lost: [titles], those that hold a non-finite value from the start.
    masked: [titles], as `masked_pairs` takes them, or None.
    wild: [words], those from which the convolution may overflow.
    lost_words: whether a word row holds a non-finite value from the start.
    dropped: whether the compiler may drop the NaN of an overflow, as XLA's maximum over time and
        its ReLU do.
    blank: [words], those of which a text's z is 0 in every step if it holds no others; None: there
        are none, or the encoder has biases.
    shared: of a tied model the first id of a text that is a title's: number 0 of the titles, with
        which the arrays of words go on. None: texts name words alone.
    """

    lost: np.ndarray
    wild: np.ndarray
    masked: np.ndarray | None = None
    lost_words: bool = False
    dropped: bool = False
    blank: np.ndarray | None = None
    shared: int | None = None


def predict(
    batches: Iterable[Batch],
    fates: Fates,
    look: Callable[[Batch], Look],
    reaches: Reaches,
    rows: Rows,
    trained: Container[str],
    always: bool,
) -> Prediction:
    """Follows what is lost through the batch order, up to the first NaN of the titles and of the
    encoder.

    fates: of every title row.
    look: at a batch with the initial weights, which step 0 has.
    reaches: of the optimizer.
    trained: names of the weights that are.
    always: as `Sends` has it.
    """
    course = _Course(fates, look, reaches, rows, trained, always)
    for batch in batches:
        course.take(batch)
        if course.is_over():
            break
    lost_at_once = rows.lost_words and "words" in trained
    words = 0 if lost_at_once else course.encoder if "words" in trained else None
    return Prediction(course.titles, course.encoder, words, course.uncertain)


class _Course:
    """What is lost on the way through the batches.

    learns: whether the titles are trained; else no row changes.
    dead: bool [titles], the rows that are lost.
    moved: bool [titles], the small rows that an update took off their edge.
    met: bool [words], the rows that an update may have moved, `meeting` those that the next may.
    shifted: bool [titles], the rows that an update moved since a text holds them, `shifting` those
        that the next will.
    pending, pending_encoder: what is lost when the gradients are applied.
    titles, encoder, uncertain: as `Prediction` has them.
    """

    def __init__(
        self,
        fates: Fates,
        look: Callable[[Batch], Look],
        reaches: Reaches,
        rows: Rows,
        trained: Container[str],
        always: bool,
    ):
        self.fates, self.look, self.reaches, self.rows = fates, look, reaches, rows
        self.learns, self.always = "titles" in trained, always
        learns, self.words_learn = self.learns, "words" in trained
        self.met, self.meeting = np.zeros_like(rows.wild), np.zeros_like(rows.wild)
        self.shifted, self.shifting = np.zeros_like(rows.lost), np.zeros_like(rows.lost)
        self.dead, self.moved = rows.lost.copy(), np.zeros_like(rows.lost)
        self.pending, self.pending_encoder = np.zeros_like(self.dead), False
        self.titles: int | None = 0 if learns and self.dead.any() else None
        self.encoder: int | None = None
        self.uncertain = ZEROED if learns and reaches.zeroes else ""
        if reaches.mixes and (learns or self.words_learn):
            self._doubt(MIXED)
        self.watched = fates.edge | (fates.text >= Kind.inf) | (fates.text_idle >= Kind.inf)
        if learns:
            self.watched = self.watched | fates.deadly | (fates.title == Kind.large)

    def take(self, batch: Batch) -> None:
        """One step."""
        ids = np.concatenate([batch.positive, batch.negatives], axis=1)
        overflows = bool(self.rows.wild[batch.text].any())
        concerns = (
            overflows
            or self._blank(batch).any()
            or self._reads_dead(batch)
            or (self.watched & ~self.moved)[ids].any()
            or self.dead[ids].any()
        )
        if batch.step == 0 or self.encoder is not None or self.pending_encoder or concerns:
            title, text = self._gradients(batch, ids, overflows)
            self._lose(batch, ids, title, text)
        self._meet(batch, ids)
        if (batch.step + 1) % self.reaches.period == 0:
            self._apply(batch.step)

    def is_over(self) -> bool:
        """Whether nothing more can come that the prediction tells."""
        if self.encoder is not None:
            return self.titles is not None or not self.learns
        waiting = self.pending.any() or self.pending_encoder
        blank = self.rows.blank is not None
        return not (
            blank or self.rows.wild.any() or self.watched.any() or self.dead.any() or waiting
        )

    def _reads_dead(self, batch: Batch) -> bool:
        """Whether a text holds a title's row that is lost."""
        return bool(self.dead[shared_ids(batch.text, self.rows.shared)].any())

    def _meet(self, batch: Batch, ids: np.ndarray) -> None:
        """Keeps the rows that the next update may move, and those that texts make it move."""
        first = self.rows.shared
        if first is None and self.rows.blank is None:  # nothing asks for them
            return
        if self.words_learn:
            own = batch.text if first is None else batch.text[batch.text < first]
            self.meeting[own] = True
        if self.learns and first is not None:
            shared = shared_ids(batch.text, first)
            self.shifting[shared] = True
            self.meeting[first + np.append(shared, ids)] = True

    def _blank(self, batch: Batch) -> np.ndarray:
        """bool [batch]: the texts of rows alone that were zero at the start."""
        rows = self.rows.blank
        return np.zeros(len(batch.text), bool) if rows is None else rows[batch.text].all(axis=1)

    def _gradients(
        self, batch: Batch, ids: np.ndarray, overflows: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """The kinds of the gradients of a step at the title and at the text of each pair."""
        step, fates = batch.step, self.fates
        idle = None if self.rows.masked is None else masked_pairs(batch, self.rows.masked)
        shifted = self.shifted[ids] & (fates.norm < 1)[ids]  # a large row stays where it is
        at_edge = fates.edge[ids] & ~self.moved[ids] & ~shifted
        if step == 0 or overflows or at_edge.any():
            seen = self.look(batch)
            title, text = seen.title, seen.text
            if overflows and self.rows.dropped and (text >= Kind.inf).any():
                self._doubt(DROPPED.format(step))
        else:
            moved = self.moved[ids]
            title, text = (np.where(moved, Kind.finite, of) for of in _pairs(fates, ids, idle))
            title, text = self._of_blank(batch, title, text)
        if (np.maximum(title, text)[shifted & ~self.dead[ids]] >= Kind.inf).any():
            self._doubt(SHARED.format(step))
        title, text = (np.where(shifted, Kind.finite, of) for of in (title, text))
        if self.encoder is None and step > 0:
            self._doubt(_doubt(fates, ids, idle, at_edge, self.always, step))
        if self.learns:
            self.moved[ids[at_edge & (title < Kind.inf)]] = True
            self.moved &= fates.norm < 1
        if self.encoder is not None or self.dead[ids].any() or self._reads_dead(batch):
            # the similarity is NaN, and its gradient reaches z
            text = np.full_like(text, Kind.nan)
            title = np.full_like(title, Kind.nan) if self.encoder is not None else title
        return title, text

    def _of_blank(
        self, batch: Batch, title: np.ndarray, text: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same kinds, with those that a z of 0 gives where a text is blank."""
        blank = self._blank(batch)
        if not blank.any():
            return title, text
        seen = self.look(batch)
        deadly = np.maximum(seen.title, seen.text).max(axis=1) >= Kind.inf
        moved = self.met[batch.text].any(axis=1)
        if (blank & moved & deadly).any() and self.encoder is None:
            self._doubt(BLANK.format(batch.step))
        still = (blank & ~moved)[:, np.newaxis]
        return np.where(still, seen.title, title), np.where(still, seen.text, text)

    def _lose(self, batch: Batch, ids: np.ndarray, title: np.ndarray, text: np.ndarray) -> None:
        """Adds what these gradients lose to what is pending, as far as the optimizer lets them."""
        step, first, named = batch.step, self.rows.shared, ids.ravel()
        if first is not None:  # a word that is no title's reads the first title's row, for nothing
            named = np.append(named, np.maximum(batch.text - first, 0))
        reaches, usual = self.reaches, Reaches.elementwise().large
        kinds = ((Kind.nan, reaches.nan), (Kind.inf, reaches.inf), (Kind.large, reaches.large))
        for kind, reach in kinds:
            hit = title == kind
            if not self.learns or not hit.any():
                continue
            if kind == Kind.inf and reach != reaches.nan:
                self._doubt(HELD.format(step))
            if kind == Kind.large and reach != usual:
                self._doubt(SQUARE.format(step))
            self.pending[ids[hit]] |= reach.row
            self.pending[named] |= reach.touched
            self.pending |= reach.table
            self.pending_encoder |= reach.others
        if (text >= Kind.inf).any():
            self.pending_encoder |= reaches.encoder.row
            self.pending[named] |= self.learns and reaches.encoder.touched
            self.pending |= self.learns and reaches.encoder.table
            lost = batch.text[(text >= Kind.inf).any(axis=1)]
            self.pending[shared_ids(lost, first)] |= self.learns and reaches.nan.row

    def _apply(self, step: int) -> None:
        """The optimizer's update, of the gradients of one step or of several."""
        self.dead |= self.pending
        if self.titles is None and self.pending.any():
            self.titles = step
        if self.encoder is None and self.pending_encoder:
            self.encoder = step
        self.pending[:], self.pending_encoder = False, False
        self.met |= self.meeting
        self.shifted |= self.shifting

    def _doubt(self, why: str) -> None:
        """Keeps the first reason."""
        self.uncertain = self.uncertain or why


def _pairs(fates: Fates, ids: np.ndarray, idle: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The kinds of the gradients at the title and at the text of each pair, as the fates of the
    rows have them."""
    title, text = fates.title[ids], fates.text[ids]
    if idle is None:
        return title, text
    return np.where(idle, fates.title_idle[ids], title), np.where(idle, fates.text_idle[ids], text)


def _doubt(
    fates: Fates,
    ids: np.ndarray,
    idle: np.ndarray | None,
    at_edge: np.ndarray,
    always: bool,
    step: int,
) -> str:
    """Why what these rows do in a step after the first cannot be known before."""
    if at_edge.any():
        return EDGE.format(step)
    at_rest = (fates.title_idle >= Kind.inf) | (fates.text_idle >= Kind.inf)
    counts = (
        (fates.deadly & ~at_rest)[ids] if idle is None else (fates.deadly & ~at_rest)[ids] & ~idle
    )
    return "" if always or not counts.any() else IDLE.format(step)


@dataclass(frozen=True)
class Chance:
    """Of touching a title row that is zero or deadly, from the share of such titles alone, before
    any negative is drawn.

    batch: probability that the first batch touches one.
    ever: that any does.
    first: the expected step, 0-based, of the first that does, given that one does; None where none
        can.
    """

    batch: float
    ever: float
    first: float | None


def chance(examples: Examples, singular: np.ndarray, batch: int) -> Chance:
    """Over the random order and the random negatives of `examples`, whose right titles are given.

    With k of n titles singular, an example whose right title is not is clean with q = ((n - 1 - k)
    / (n - 1)) ^ negatives; m batches of b examples, drawn without replacement from N of which N'
    have such a title, are all clean with S(m) = C(N', mb) / C(N, mb) * q ^ (mb). Later epochs
    repeat the first, so they touch nothing new.
    singular: bool [titles].
    """
    count, others, k = len(examples), len(singular) - 1, int(singular.sum())
    good = int((~singular[examples.positive[:, 0]]).sum())
    clean = max(others - k, 0) / others if others else 1.0
    # examples seen after each batch
    sizes = np.minimum(np.arange(1, -(-count // batch) + 1) * batch, count)
    each = np.where(
        np.arange(count) < good, (good - np.arange(count)) / (count - np.arange(count)), 0
    )
    survival = (
        np.cumprod(each) * clean ** (examples.negatives.shape[1] * np.arange(1, count + 1))
    )[sizes - 1]
    ever = 1 - survival[-1]
    first = float(((survival - survival[-1]) / ever).sum()) if ever > 0 else None
    return Chance(batch=float(1 - survival[0]), ever=float(ever), first=first)
