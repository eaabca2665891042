"""Where the right title stands among all titles: hits@k, MRR, mean rank."""

import numpy as np


def ranks(scores: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rank of the target among all titles, 1 the best, pessimistically.

    scores: float [n, titles];
    target: int [n].
    Returns int64 [n].

    Ties count against the target: its rank is the number of titles that score at least as much. A
    non-finite score is the worst: it never outranks a finite one, and a target with a non-finite
    score has the last rank. So a model whose scores are all equal, or all NaN, has rank `titles`
    everywhere, instead of a perfect score.
    """
    finite = np.isfinite(scores)
    comparable = np.where(finite, scores, -np.inf)
    own = np.take_along_axis(comparable, target[:, None], axis=1)
    return (comparable >= own).sum(axis=1)


def scored(scores: np.ndarray, target: np.ndarray) -> np.ndarray:
    """bool [n]: whether the target has a score at all, a finite one.

    scores, target: as `ranks` takes them.
    """
    return np.isfinite(np.take_along_axis(scores, target[:, None], axis=1))[:, 0]


def metrics(rank: np.ndarray, scored: np.ndarray) -> dict[str, float]:
    """MRR, hits@1, hits@10 and mean rank of int [n] ranks; empty for n = 0.

    scored: bool [n]. A target without a score is no hit, also where k is as large as the number of
        titles.
    """
    if not len(rank):
        return {}
    return {
        "mrr": float(np.mean(1.0 / rank)),
        "hits_at_1": float(np.mean(scored & (rank <= 1))),
        "hits_at_10": float(np.mean(scored & (rank <= 10))),
        "mean_rank": float(np.mean(rank)),
    }
