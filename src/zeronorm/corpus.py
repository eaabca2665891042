"""Articles -> (window of text, title) examples, a vocabulary and fixed splits."""

import ast
import bz2
import hashlib
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

Article = tuple[str, list[str]]  # title, lower-case tokens

PADDING = 0  # word id of the zeros that pad_sequences puts in front
PADDING_NAME = "(padding)"  # what word id 0 is called


class CorpusError(Exception):
    """A corpus that cannot be read: one sentence that names the file and what is wrong with it."""


@dataclass(frozen=True)
class BadLine:
    """A line that was left out: `file`, 1-based `line`, and `problem`, what is wrong with it."""

    file: str
    line: int
    problem: str


@dataclass(frozen=True)
class Corpus:
    """Examples as integers, with the three splits as positions in them.

    text: int32 [n, window], word ids, padded in front with 0; words outside the vocabulary are
        dropped, as by Keras's Tokenizer. Ids from len(vocabulary) on are titles' (`tied`).
    title: int32 [n], title ids.
    vocabulary: word of each word id; id 0 is the padding. The distinct words of the train and
        validation windows.
    titles: title of each title id, in the order of the corpus.
    train, validation, test: int64 positions of the examples; disjoint.
    windows: the tokens of each example.
    """

    text: np.ndarray
    title: np.ndarray
    vocabulary: list[str]
    titles: list[str]
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    windows: list[list[str]]
    bad_lines: list[BadLine] = field(default_factory=list)

    @property
    def word_names(self) -> list[str]:
        """What each word id is called."""
        return [PADDING_NAME, *self.vocabulary[1:]]


def wikipedia(
    path: str | None, bad_lines: list[BadLine], title_words: int | None = None
) -> Iterator[Article]:
    """Articles of a Wikipedia dump (pages-articles, bz2), read as gensim's WikiCorpus reads them.

    path: null reads the excerpt inside the gensim package: 106 articles of at least 50 tokens. The
        reader lower-cases the text, drops tokens of one letter or more than 15, and skips redirects
        and pages outside the main namespace.
    title_words: most words of a title; articles of longer ones are left out. None: all are read.

    WikiCorpus itself forks workers, which can deadlock once TensorFlow's threads run; so its parts
    are called here.
    """
    from gensim.corpora import wikicorpus
    from gensim.test.utils import datapath

    path = path or datapath("enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2")
    try:
        with bz2.open(path) as dump:
            for title, text, page in wikicorpus.extract_pages(dump):
                tokens, title, _ = wikicorpus.process_article((text, title, page))
                ignored = any(
                    title.startswith(f"{namespace}:") for namespace in wikicorpus.IGNORED_NAMESPACES
                )
                long = title_words is not None and len(title.split()) > title_words
                if len(tokens) >= wikicorpus.ARTICLE_MIN_WORDS and not (ignored or long):
                    yield title, tokens
    except (OSError, EOFError, SyntaxError) as error:  # SyntaxError: xml.etree's ParseError
        raise CorpusError(f"{path} is no bz2-compressed Wikipedia dump ({error}).") from error


def pairs(path: str, bad_lines: list[BadLine]) -> Iterator[Article]:
    """Articles of a text<TAB>title file, UTF-8, one per line.

    A line that is not one text and one title is appended to `bad_lines` and left out; an empty line
    counts too.
    """
    from gensim.utils import tokenize

    with open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                fields = raw.decode("utf-8").rstrip("\r\n").split("\t")
            except UnicodeDecodeError as error:
                bad_lines.append(BadLine(path, number, f"not UTF-8 at byte {error.start + 1}"))
                continue
            if len(fields) != 2:
                bad_lines.append(
                    BadLine(path, number, f"{len(fields) - 1} tabs where there should be 1")
                )
                continue
            tokens, title = list(tokenize(fields[0], lowercase=True)), fields[1].strip()
            if not title:
                bad_lines.append(BadLine(path, number, "no title after the tab"))
            elif not tokens:
                bad_lines.append(BadLine(path, number, "no word in the text before the tab"))
            else:
                yield title, tokens


def python_topics(bad_lines: list[BadLine]) -> Iterator[Article]:
    """The topics of Python's help(), as the standard library has them (pydoc_data.topics): the
    topic's name, and what is said of it. Python's licence, PSF-2.0."""
    from pydoc_data.topics import topics

    from gensim.utils import tokenize

    for name, text in topics.items():
        yield name, list(tokenize(text, lowercase=True))


TESTS = {"test", "tests", "idle_test", "site-packages"}  # folders of no documentation


def python_docstrings(bad_lines: list[BadLine]) -> Iterator[Article]:
    """The docstrings of the functions and classes of this Python's standard library: what it is
    called, lower-case and without the underscores around it, and the docstring. Python's licence,
    PSF-2.0.

    The sources are parsed, never imported. Those of one name follow each other as one text, as if
    the name were one entry of an encyclopedia. A file that cannot be parsed is appended to
    `bad_lines`.
    """
    from gensim.utils import tokenize

    texts: dict[str, list[str]] = {}
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if TESTS & set(path.relative_to(root).parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError) as error:
            bad_lines.append(BadLine(str(path), getattr(error, "lineno", None) or 1, str(error)))
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                tokens = tokenize(ast.get_docstring(node) or "", lowercase=True)
                texts.setdefault(node.name.strip("_").lower(), []).extend(tokens)
    yield from ((name, tokens) for name, tokens in texts.items() if name and tokens)


def cut(tokens: list[str], window: int, min_window: int) -> list[list[str]]:
    """Consecutive windows of `window` tokens; a last one of fewer than `min_window` only if it is
    the whole text."""
    pieces = [tokens[start : start + window] for start in range(0, len(tokens), window)]
    return [piece for number, piece in enumerate(pieces) if len(piece) >= min_window or number == 0]


def hold_out(groups: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Positions held out at random: round(share * n) of the n members of each group, always leaving
    at least one.

    groups: [n], the group of each position.
    Returns sorted int64 positions.
    """
    held = []
    for group in dict.fromkeys(groups.tolist()):
        members = np.flatnonzero(groups == group)
        count = min(len(members) - 1, round(share * len(members)))
        held.append(rng.permutation(members)[:count])
    return np.sort(np.concatenate(held)) if held else np.array([], dtype=np.int64)


def last_share(count: int, share: float) -> np.ndarray:
    """Positions of the last share of `count` examples, as keras.Model.fit(validation_split=share)
    takes them: before any shuffling. On examples ordered by article these are the last articles,
    whose titles training never sees."""
    return np.arange(int(count * (1 - share)), count)


def build(
    articles: Iterable[Article],
    bad_lines: list[BadLine],
    window: int,
    min_window: int,
    test_share: float,
    validation_share: float,
    validation_split: str,
    seed: int,
) -> Corpus:
    """Cuts, splits and numbers the articles.

    bad_lines: what the reader leaves out; it fills up as `articles` is read.

    The test windows are held out per title, so that every title is known in training. So are the
    validation windows by default. With validation_split='last_tenth' they are the last share in
    article order instead, Keras's
    validation_split: on this corpus nine in ten of them then have a title that training never sees,
        and a validation score says nothing about the model.

    Raises CorpusError if no example is left to train on, or there are fewer than two titles.
    """
    windows: list[list[str]] = []
    names: list[str] = []
    for name, tokens in articles:
        for piece in cut(tokens, window, min_window):
            windows.append(piece)
            names.append(name)
    titles = list(dict.fromkeys(names))
    if len(titles) < 2:
        bad = bad_lines[0] if bad_lines else None
        why = (
            f" {len(bad_lines)} bad lines, the first {bad.file}:{bad.line}: {bad.problem}."
            if bad
            else ""
        )
        raise CorpusError(
            f"The corpus has {len(titles)} titles with text; a ranking needs at least two.{why}"
        )
    ids = {name: number for number, name in enumerate(titles)}
    title = np.array([ids[name] for name in names], dtype=np.int32)

    rng = np.random.default_rng(seed)
    test = hold_out(title, test_share, rng)
    known = np.setdiff1d(np.arange(len(title)), test)
    if validation_split == "per_title":
        validation = known[hold_out(title[known], validation_share, rng)]
    else:
        validation = known[last_share(len(known), validation_share)]
    train = np.setdiff1d(known, validation)

    counts = Counter(word for position in known for word in windows[position])
    vocabulary = ["", *counts]
    word_ids = {word: number for number, word in enumerate(vocabulary) if number != PADDING}
    text = np.full((len(windows), window), PADDING, dtype=np.int32)
    for row, piece in zip(text, windows, strict=True):
        numbers = [word_ids[word] for word in piece if word in word_ids]
        if numbers:
            row[-len(numbers) :] = numbers
    return Corpus(text, title, vocabulary, titles, train, validation, test, windows, bad_lines)


def tied(corpus: Corpus) -> Corpus:
    """The same corpus, whose texts name a title where a word is one: in `text` such a word is
    len(vocabulary) plus the title's id; of titles of one name the first.

    Titles are lower-cased, as the reader lower-cases the text. Raises CorpusError if no title is a
    word of the vocabulary.
    """
    numbers: dict[str, int] = {}
    for number, name in enumerate(corpus.titles):
        numbers.setdefault(name.lower(), number)
    words = len(corpus.vocabulary)
    ids = np.arange(words, dtype=np.int32)
    for word_id, word in enumerate(corpus.vocabulary):
        if word_id != PADDING and word in numbers:
            ids[word_id] = words + numbers[word]
    if not (ids >= words).any():
        raise CorpusError(
            "model.tied=true, but no title of this corpus is a word of its texts: use"
            " model.tied=false or a corpus with titles of one word."
        )
    return replace(corpus, text=ids[corpus.text])


def digest(corpus: Corpus) -> str:
    """SHA-256 of the examples, what they stand for, and the splits: two runs with the same one had
    the same."""
    found = hashlib.sha256("\n".join([*corpus.vocabulary, "", *corpus.titles]).encode())
    for part in (corpus.text, corpus.title, corpus.train, corpus.validation, corpus.test):
        found.update(str(part.shape).encode() + np.ascontiguousarray(part, dtype="<i8").tobytes())
    return found.hexdigest()


def summary(corpus: Corpus) -> dict:
    """What the audit says of the corpus: sizes, and the first of the lines that were left out."""
    return {
        "sha256": digest(corpus),
        "titles": len(corpus.titles),
        "words": len(corpus.vocabulary) - 1,
        "tokens": sum(map(len, corpus.windows)),
        "train": len(corpus.train),
        "validation": len(corpus.validation),
        "test": len(corpus.test),
        "bad_lines": len(corpus.bad_lines),
        "first_bad_lines": [
            f"{Path(bad.file).name}:{bad.line}: {bad.problem}" for bad in corpus.bad_lines[:20]
        ],
    }
