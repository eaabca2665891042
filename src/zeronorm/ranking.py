"""Where the right title stands among all titles: hits@k, MRR, mean rank."""

import numpy as np

UNRANKED = 0  # the rank of a target whose score is not finite


def ranks(scores: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rank of the target among all titles, 1 the best, pessimistically; 0 is no rank.

    scores: float [n, titles];
    target: int [n].
    Returns int64 [n].

    Ties count against the target: its rank is the number of titles that score at least as much. So
    a model whose scores are all equal has rank `titles` everywhere, instead of a perfect score. A
    non-finite score never outranks a finite one, and a target with a non-finite score is not ranked
    at all: a model whose scores are all NaN has rank 0 everywhere.
    """
    finite = np.isfinite(scores)
    comparable = np.where(finite, scores, -np.inf)
    own = np.take_along_axis(comparable, target[:, None], axis=1)
    rank = (comparable >= own).sum(axis=1)
    return np.where(np.isfinite(own[:, 0]), rank, UNRANKED)


def gains(rank: np.ndarray) -> dict[str, np.ndarray]:
    """{mrr, hits_at_1, hits_at_10: what each rank adds to the mean}, float64 of rank's shape.

    rank: int, as `ranks` returns it. One that is not ranked gains nothing, as a document that a
        search does not return has the reciprocal rank 0 (Voorhees, "The TREC-8 Question Answering
        Track Report", 1999, section 3), however few titles there are.
    """
    ranked = rank != UNRANKED
    return {
        "mrr": np.divide(1.0, rank, out=np.zeros(rank.shape), where=ranked),
        "hits_at_1": (ranked & (rank <= 1)).astype(float),
        "hits_at_10": (ranked & (rank <= 10)).astype(float),
    }


def metrics(rank: np.ndarray, titles: int) -> dict[str, float]:
    """MRR, hits@1, hits@10 and mean rank of int [n] ranks; empty for n = 0.

    titles: how many are ranked: in the mean the place of a target that is not.
    """
    if not len(rank):
        return {}
    found = {name: float(np.mean(gain)) for name, gain in gains(rank).items()}
    return found | {"mean_rank": float(np.mean(np.where(rank == UNRANKED, titles, rank)))}
