"""The corpus: sizes, splits, bad lines."""

import numpy as np
import pytest

from zeronorm import corpus, preparation


def test_the_excerpt_is_what_the_readme_says(excerpt):
    built = excerpt.corpus
    assert len(built.titles) == 106
    assert len(built.test) == 449
    assert len(built.train) + len(built.validation) == 4080
    assert len(built.vocabulary) - 1 == 32516
    per_title = np.bincount(built.title[np.union1d(built.train, built.validation)], minlength=106)
    assert (per_title.min(), np.median(per_title), per_title.max()) == (1, 31, 138)


def test_splits_are_disjoint_and_every_title_is_trained_on(excerpt):
    built = excerpt.corpus
    together = np.concatenate([built.train, built.validation, built.test])
    assert len(np.unique(together)) == len(together) == len(built.title)
    assert set(built.title[built.test]) <= set(built.title[built.train])
    assert set(built.title[built.validation]) <= set(built.title[built.train])


def test_a_split_is_fixed_by_its_seed(excerpt):
    again = corpus.hold_out(excerpt.corpus.title, 0.1, np.random.default_rng(0))
    np.testing.assert_array_equal(again, excerpt.corpus.test)
    other = corpus.hold_out(excerpt.corpus.title, 0.1, np.random.default_rng(1))
    assert not np.array_equal(other, again)


def test_keras_validation_split_on_article_order_validates_on_unseen_titles(composed):
    """The question's split: Keras takes the last tenth before it shuffles, here the last
    articles."""

    built = preparation.load(composed("corpus.validation_split=last_tenth")).corpus
    assert built.validation.min() > built.train.max()
    assert len(built.validation) == 408
    unseen = ~np.isin(built.title[built.validation], built.title[built.train])
    assert unseen.mean() > 0.9


def test_last_share_is_kerass_validation_split():
    """keras.src.trainers.data_adapters.data_adapter_utils.train_validation_split, seen through what
    fit trains on."""
    import keras

    seen = []
    layer = keras.layers.Lambda(lambda x: x)
    model = keras.Sequential([keras.Input((1,)), layer, keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)

    class Keep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)

    count = 25
    x = np.arange(count, dtype=np.float32)[:, None]
    model.fit(x, x, validation_split=0.1, batch_size=1, verbose=0, callbacks=[Keep()])
    assert len(seen) == count - len(corpus.last_share(count, 0.1))


def test_hold_out_leaves_one_of_each_group():
    groups = np.array([0] * 1 + [1] * 4 + [2] * 100)
    held = corpus.hold_out(groups, 0.9, np.random.default_rng(0))
    assert np.bincount(groups[held], minlength=3).tolist() == [0, 3, 90]


def test_windows():
    tokens = [str(number) for number in range(250)]
    assert [len(piece) for piece in corpus.cut(tokens, 100, 50)] == [100, 100, 50]
    assert [len(piece) for piece in corpus.cut(tokens[:249], 100, 50)] == [100, 100]
    # a short article stays whole
    assert [len(piece) for piece in corpus.cut(tokens[:7], 100, 50)] == [7]
    assert corpus.cut([], 100, 50) == []


def test_padding_stands_in_front_and_unknown_words_are_dropped():
    articles = [("One", ["a", "b", "c"]), ("Two", ["b", "b"]), ("One", ["zzz", "a"])]
    built = corpus.build(articles, [], 5, 1, 0.4, 0.0, "per_title", seed=1)
    held = built.test[0]
    others = np.setdiff1d(np.arange(3), built.test)
    known = {word for position in others for word in built.windows[position]}
    kept = [word for word in built.windows[held] if word in known]
    expected = [0] * (5 - len(kept)) + [built.vocabulary.index(word) for word in kept]
    assert built.text[held].tolist() == expected


def test_pairs_names_every_bad_line(tmp_path):
    file = tmp_path / "pairs.tsv"
    lines = (
        b"A good text\tTitle",
        b"no tab here",
        b"two\ttabs\there",
        b" \tOnly title",
        b"Text without title\t ",
        b"\xff\xfe\tx",
        b"Last good one\tOther",
    )
    file.write_bytes(b"\n".join(lines) + b"\n")
    bad: list[corpus.BadLine] = []
    articles = list(corpus.pairs(str(file), bad))
    assert articles == [("Title", ["a", "good", "text"]), ("Other", ["last", "good", "one"])]
    assert [(line.line, line.problem) for line in bad] == [
        (2, "0 tabs where there should be 1"),
        (3, "2 tabs where there should be 1"),
        (4, "no word in the text before the tab"),
        (5, "no title after the tab"),
        (6, "not UTF-8 at byte 1"),
    ]
    assert {line.file for line in bad} == {str(file)}


def test_too_little_to_rank():
    with pytest.raises(
        corpus.CorpusError, match="1 titles with text; a ranking needs at least two"
    ):
        corpus.build([("Only", ["a", "b"])], [], 5, 1, 0.1, 0.1, "per_title", seed=0)


def test_a_file_that_is_no_dump(tmp_path):
    file = tmp_path / "dump.xml.bz2"
    file.write_bytes(b"not bz2")
    with pytest.raises(corpus.CorpusError, match="is no bz2-compressed Wikipedia dump"):
        list(corpus.wikipedia(str(file), []))


def test_only_titles_of_one_word(composed):
    found = preparation.load(composed("corpus=wikipedia_single_words"))
    assert len(found.corpus.titles) == 52
    assert all(len(title.split()) == 1 for title in found.corpus.titles)
    zero = ~found.titles.any(axis=1)
    assert [found.corpus.titles[row] for row in np.flatnonzero(zero)] == [
        *("A", "Actrius", "Actinopterygii")
    ]


def test_the_topics_of_pythons_help():
    found = dict(corpus.python_topics([]))
    assert len(found) > 70 and "assert" in found["assert"]
    assert all(tokens for tokens in found.values())


def test_docstrings_are_parsed_and_never_run(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text(
        'raise SystemExit\n\ndef _Twice(x):\n    "The double of x."\n\nclass Empty:\n    pass\n'
    )
    (tmp_path / "b.py").write_text('async def twice(x):\n    "Twice x"\n')
    (tmp_path / "c.py").write_text("def broken(:\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "d.py").write_text('def tested():\n    "Not read."\n')
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    bad: list[corpus.BadLine] = []
    expected = [("twice", ["the", "double", "of", "x", "twice", "x"])]
    assert list(corpus.python_docstrings(bad)) == expected
    assert [(line.file, line.line) for line in bad] == [(str(tmp_path / "c.py"), 1)]
