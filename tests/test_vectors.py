"""The matrices: zero rows that arise, repairs, shares, bad files."""

import numpy as np
import pytest

from zeronorm import vectors


def test_zero_rows_arise_by_themselves(excerpt):
    zero = vectors.zero_rows(excerpt.titles)
    assert zero.sum() == 57  # 54 % of 106
    titles = np.array(excerpt.corpus.titles)
    assert all(zero[[" " in title for title in titles]])  # every title of several words
    assert set(titles[zero & np.array([" " not in title for title in titles])]) == {
        "A",
        "Actrius",
        "Actinopterygii",
    }
    assert round(vectors.zero_rows(excerpt.words)[1:].mean(), 2) == 0.74
    assert not excerpt.words[0].any()  # the padding


@pytest.mark.slow
def test_word2vec_repeats_bit_for_bit(excerpt, composed):
    source = dict(composed().vectors.source)
    del source["_target_"]
    again = vectors.matrix(
        vectors.word2vec(excerpt.corpus, **source), excerpt.corpus.titles, "float32"
    )
    np.testing.assert_array_equal(again, excerpt.titles)


def test_repairs_fill_zero_rows_and_nothing_else(excerpt):
    zero = vectors.zero_rows(excerpt.titles)
    for rule in vectors.REPAIRS:
        rng = np.random.default_rng(0)
        filled = vectors.repaired(rule, excerpt.titles, excerpt.words, excerpt.corpus, rng)
        assert not vectors.zero_rows(filled).any()
        np.testing.assert_array_equal(filled[~zero], excerpt.titles[~zero])
    row = excerpt.corpus.titles.index("Abraham Lincoln")
    ids = [excerpt.corpus.vocabulary.index(word) for word in ("abraham", "lincoln")]
    filled = vectors.repaired(
        "title_words", excerpt.titles, excerpt.words, excerpt.corpus, np.random.default_rng(0)
    )
    np.testing.assert_allclose(filled[row], excerpt.words[ids].mean(axis=0), rtol=1e-6)
    filled = vectors.repaired(
        "noise", excerpt.titles, excerpt.words, excerpt.corpus, np.random.default_rng(0)
    )
    known = np.linalg.norm(excerpt.titles[~zero], axis=1)
    assert all(
        np.isclose(known, norm, rtol=1e-5).any() for norm in np.linalg.norm(filled[zero], axis=1)
    )


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_zero_share_is_exact_and_nested(excerpt, share):
    zero = vectors.zero_rows(
        vectors.with_zero_share(excerpt.titles, share, np.random.default_rng(0))
    )
    assert zero.sum() == round(share * 106)
    larger = vectors.zero_rows(
        vectors.with_zero_share(excerpt.titles, min(1, share + 0.2), np.random.default_rng(0))
    )
    assert (larger | ~zero).all()


def test_normalised_leaves_zero_rows_zero():
    rows = np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(vectors.normalised(rows), [[0.6, 0.8], [0, 0]])
    assert vectors.normalised(rows).dtype == np.float32


@pytest.mark.parametrize("norm", [1e-30, 1e-20, 1.0, 1e20, 1e30])
def test_a_row_of_any_norm_is_normalised_without_a_word(norm):
    """Its square may leave float32's range; a warning would be an error here."""
    rows = (np.array([[0.6, 0.8], [0, 0]]) * norm).astype(np.float32)
    np.testing.assert_allclose(vectors.normalised(rows), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(vectors.rescaled(rows, 2.0)[0], [1.2, 1.6], rtol=1e-6)


def test_rescaled_reaches_the_mean_norm_of_the_rows_that_are_not_zero():
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [6.0, 8.0]])
    norms = np.linalg.norm(vectors.rescaled(rows, 0.3), axis=1)
    np.testing.assert_allclose(norms, [0.2, 0, 0.4])


@pytest.mark.parametrize("norm", [1e-45, 1e-38, 1e-20, 1.0, 1e20, 3e38])
def test_planted_rows_have_their_norm_and_their_directions(excerpt, norm):
    planted = vectors.with_zero_share(excerpt.titles, 0.5, np.random.default_rng(0), norm)
    filled = vectors.with_zero_share(excerpt.titles, 0.0, np.random.default_rng(0))
    zero = vectors.zero_rows(vectors.with_zero_share(excerpt.titles, 0.5, np.random.default_rng(0)))
    assert planted.dtype == np.float32 and (planted[~zero] == filled[~zero]).all()
    norms = np.linalg.norm(planted[zero].astype(np.float64), axis=1)
    if norm > 1e-37:  # below, float32 has fewer and fewer digits
        np.testing.assert_allclose(norms, norm, rtol=1e-5)
        cosine = (planted[zero] / norms[:, None] * vectors.normalised(filled[zero])).sum(axis=1)
        np.testing.assert_allclose(cosine, 1, rtol=1e-5)
    else:
        assert (norms <= 2e-44).all() if norm == 1e-45 else (norms > 0).all()


def test_a_row_has_the_class_that_the_model_sees():
    rows = np.array(
        [[0, 0], [1e-50, 0], [1e-40, 0], [1e-20, 0], [0.6, 0.8], [1e20, 0], [1e50, 0], [np.nan, 0]]
    )
    assert vectors.classes(rows[:5]).tolist() == ["zero", "small", "small", "small", "large"]
    seen = vectors.classes(vectors.float32(rows)).tolist()
    assert seen == ["zero", "zero", "small", "small", "large", "large", "non-finite", "non-finite"]
    assert set(seen) == set(vectors.CLASSES)


def test_audit_by_hand():
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [np.nan, 1.0], [0.0, 1.0]])
    assert vectors.audit(rows, "float64") == {
        "rows": 4,
        "dim": 2,
        "dtype": "float64",
        "zero_rows": 1,
        "nonfinite_values": 1,
        "smallest_norm": 1.0,
        "median_norm": 3.0,
        "largest_norm": 5.0,
    }


@pytest.fixture
def saved(tmp_path):
    """The same two vectors in each format."""
    from gensim.models import KeyedVectors

    kept = KeyedVectors(vector_size=3)
    kept.add_vectors(["alien", "zebra"], np.arange(6, dtype=np.float32).reshape(2, 3))
    kept.save(str(tmp_path / "gensim"))
    kept.save_word2vec_format(str(tmp_path / "word2vec"))
    kept.save_word2vec_format(str(tmp_path / "word2vec_binary"), binary=True)
    lines = (tmp_path / "word2vec").read_text().splitlines()[1:]
    (tmp_path / "glove").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.parametrize("format", ["gensim", "word2vec", "word2vec_binary", "glove"])
def test_keyed_vectors_reads(saved, format):
    found = vectors.keyed_vectors(None, str(saved / format), format)
    np.testing.assert_array_equal(
        vectors.matrix(found, ["Zebra", "Alien", "Alien life"], "float64"),
        [[3, 4, 5], [0, 1, 2], [0, 0, 0]],
    )


@pytest.mark.parametrize("format", ["gensim", "word2vec", "word2vec_binary", "glove", "fasttext"])
def test_keyed_vectors_says_what_is_wrong(tmp_path, format):
    file = tmp_path / "broken"
    file.write_text("not vectors at all\n")
    with pytest.raises(
        vectors.VectorsError, match=rf"broken cannot be read as vectors.source.format={format}"
    ):
        vectors.keyed_vectors(None, str(file), format)


def test_the_digest_is_of_what_the_model_starts_from():
    rows = np.random.default_rng(0).standard_normal((4, 3))
    assert (
        vectors.digest(rows)
        == vectors.digest(rows.astype(np.float32))
        == vectors.digest(np.asfortranarray(rows))
    )
    nearly = rows.astype(np.float32)
    nearly[2, 1] = np.nextafter(nearly[2, 1], np.float32(9))
    assert (
        len({vectors.digest(other) for other in (rows, nearly, rows.reshape(3, 4), rows * 1e50)})
        == 4
    )


def test_min_count_above_every_word(tiny):
    with pytest.raises(
        vectors.VectorsError, match=r"as frequent as vectors\.source\.min_count=10000: lower it"
    ):
        vectors.word2vec(tiny[0], dim=8, min_count=10000, window=5, epochs=1, seed=1)


def test_zero_words_are_an_exact_share():
    rows = np.ones((10, 2), np.float32)
    planted = vectors.with_zero_words(rows, 0.3, np.random.default_rng(0))
    assert vectors.zero_rows(planted).sum() == 3 and rows.all()
    assert vectors.zero_rows(vectors.with_zero_words(rows, 1, np.random.default_rng(0))).all()
