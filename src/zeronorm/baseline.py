"""What a ranker that only counts words reaches on the same split: the nearest TF-IDF centroid, by
scikit-learn."""

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from zeronorm import ranking
from zeronorm.corpus import Corpus


def tfidf_centroid(corpus: Corpus, positions: np.ndarray) -> dict[str, float]:
    """{metric of `ranking.metrics`: value} of the windows at `positions`, ranked among all titles.

    A title's centroid is the sum of the TF-IDF vectors of its train windows, normalised; a window's
    score for a title is the cosine of the two (Manning, Raghavan and Schuetze, "Introduction to
    Information Retrieval", 2008, section 14.2: Rocchio classification).
    """
    vectorizer = TfidfVectorizer(analyzer=lambda tokens: tokens)
    train = vectorizer.fit_transform([corpus.windows[position] for position in corpus.train])
    belongs = np.zeros((len(corpus.titles), len(corpus.train)), np.float32)
    belongs[corpus.title[corpus.train], np.arange(len(corpus.train))] = 1
    centroids = normalize(belongs @ train)
    scores = (
        vectorizer.transform([corpus.windows[position] for position in positions]) @ centroids.T
    )
    scores, target = np.asarray(scores), corpus.title[positions]
    return ranking.metrics(ranking.ranks(scores, target), len(corpus.titles))
