"""What others reach on the task of the study full_budget: the same windows, split and titles, each
tuned on the validation windows, then trained on every window that is no test window, with three
seeds.

python experiments/full_budget/peers.py [--small --to FOLDER]

Needs `pip install '.[peers]'`, for fastText.
"""

import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from zeronorm import config as schema
from zeronorm import preparation, ranking
from zeronorm.corpus import Corpus
from zeronorm.report import script

SEEDS = (0, 1, 2)
SMALL = 300  # windows


@dataclass(frozen=True)
class Task:
    """train: the windows to train on, lists of tokens;
    title: int [train], the title of each;
    asked: the windows to rank all titles for;
    target: int [asked], the right ones;
    titles: how many there are."""

    train: list[list[str]]
    title: np.ndarray
    asked: list[list[str]]
    target: np.ndarray
    titles: int


def task(corpus: Corpus, train: np.ndarray, asked: np.ndarray) -> Task:
    """train, asked: positions of windows."""
    of = [[corpus.windows[position] for position in part] for part in (train, asked)]
    return Task(of[0], corpus.title[train], of[1], corpus.title[asked], len(corpus.titles))


def spread(scores: np.ndarray, titles: np.ndarray, total: int) -> np.ndarray:
    """Scores [n, total], of scores [n, k] of the titles int [k]; -inf for titles without one."""
    found = np.full((len(scores), total), -np.inf)
    found[:, titles] = scores
    return found


def linear_svm(given: Task, seed: int, C: float, sublinear_tf: bool) -> np.ndarray:
    """One-against-rest linear support vector machines on TF-IDF."""
    vectorizer = TfidfVectorizer(analyzer=lambda tokens: tokens, sublinear_tf=sublinear_tf)
    svm = LinearSVC(C=C, random_state=seed)
    svm.fit(vectorizer.fit_transform(given.train), given.title)
    scores = svm.decision_function(vectorizer.transform(given.asked))
    return spread(scores, svm.classes_, given.titles)


def doc2vec(given: Task, seed: int, dm: int, epochs: int) -> np.ndarray:
    """Paragraph vectors, a title a tag; the cosine of a tag and the vector inferred of a window."""
    from gensim.models.doc2vec import Doc2Vec, TaggedDocument

    texts = zip(given.train, given.title.tolist(), strict=True)
    tagged = [TaggedDocument(tokens, [title]) for tokens, title in texts]
    made = Doc2Vec(tagged, vector_size=100, dm=dm, epochs=epochs, min_count=5, seed=seed, workers=1)
    inferred = np.stack([made.infer_vector(tokens) for tokens in given.asked])
    tags = made.dv.get_normed_vectors()
    scores = inferred / np.linalg.norm(inferred, axis=1, keepdims=True) @ tags.T
    return spread(scores, np.array(made.dv.index_to_key), given.titles)


def fasttext(given: Task, seed: int, lr: float, epoch: int) -> np.ndarray:
    """Its supervised mode: a linear softmax over the mean of the words' vectors."""
    import fasttext as library

    with TemporaryDirectory() as folder:
        file = Path(folder) / "train.txt"
        lines = zip(given.title.tolist(), given.train, strict=True)
        file.write_text("".join(f"__label__{t} {' '.join(tokens)}\n" for t, tokens in lines))
        options = {"dim": 100, "thread": 1, "verbose": 0, "seed": seed}
        made = library.train_supervised(str(file), lr=lr, epoch=epoch, **options)
    vectors = np.stack([made.get_sentence_vector(" ".join(tokens)) for tokens in given.asked])
    labels = np.array([int(label.removeprefix("__label__")) for label in made.get_labels()])
    return spread(vectors @ made.get_output_matrix().T, labels, given.titles)


@dataclass(frozen=True)
class Peer:
    """name: in the table.
    package: what it is made with, as pip calls it, and module, as Python does.
    scores: (task, seed, options) -> float [asked, titles].
    grid: {option: the values tried}."""

    name: str
    package: str
    module: str
    scores: Callable[..., np.ndarray]
    grid: dict[str, tuple]

    def options(self) -> Iterator[dict[str, Any]]:
        for values in product(*self.grid.values()):
            yield dict(zip(self.grid, values, strict=True))


PEERS = (
    Peer(
        "TF-IDF, linear SVM",
        "scikit-learn",
        "sklearn",
        linear_svm,
        {"C": (1.0, 10.0, 100.0), "sublinear_tf": (False, True)},
    ),
    Peer(
        "Doc2Vec, a title a tag",
        "gensim",
        "gensim",
        doc2vec,
        {"dm": (0, 1), "epochs": (20, 40, 80)},
    ),
    Peer(
        "fastText",
        "fasttext-wheel",
        "fasttext",
        fasttext,
        {"lr": (0.5, 1.0, 2.0), "epoch": (50, 100, 200)},
    ),
)


def metrics(peer: Peer, given: Task, seed: int, options: dict[str, Any]) -> dict[str, float]:
    scores = peer.scores(given, seed, **options)
    return ranking.metrics(ranking.ranks(scores, given.target), scores.shape[1])


def measured(peer: Peer, tuning: Task, final: Task, small: bool) -> dict[str, Any]:
    """A row: the options with the best MRR on the validation windows, of the first seed, and what
    they reach on the test windows with every seed."""
    tried = list(peer.options())[: 1 if small else None]
    best = max(tried, key=lambda options: metrics(peer, tuning, SEEDS[0], options)["mrr"])
    found = [metrics(peer, final, seed, best) for seed in SEEDS[: 1 if small else None]]
    return {
        "system": peer.name,
        "package": f"{peer.package} {version(peer.package)}",
        "tried": len(tried),
        "options": ", ".join(f"{name}={value}" for name, value in best.items()),
        **{metric: [one[metric] for one in found] for metric in found[0]},
    }


def corpora() -> tuple[Corpus, Corpus]:
    """With the validation windows held out, and, as the study has it, without."""
    tuning = preparation.load(schema.composed()).corpus
    return tuning, preparation.load(schema.composed("corpus.validation_share=0")).corpus


def main(small: bool, to: Path) -> None:
    there = [peer for peer in PEERS if importlib.util.find_spec(peer.module)]
    absent = ", ".join(peer.name for peer in PEERS if peer not in there)
    if absent and not small:
        raise SystemExit(f"Not installed: {absent}. pip install '.[peers]'")
    tuning, final = corpora()
    count = SMALL if small else None
    tasks = (
        task(tuning, tuning.train[:count], tuning.validation[:count]),
        task(final, final.train[:count], final.test[:count]),
    )
    rows = []
    for peer in there:
        rows.append(measured(peer, *tasks, small))
    script.write(to, "peers", rows, seeds=list(SEEDS))


if __name__ == "__main__":
    main(**vars(script.arguments(__file__, __doc__)))
