"""The tolerance that repeats give: what it lets pass, and what not."""

import numpy as np
import pandas as pd
import pytest

from zeronorm.report import committed, noise, reproduction

QUIET = 0.004  # standard deviation of a run's quality, about that of ten epochs
RANKING = list(noise.SHIFTED)
HOME, OTHER = "one processor", "another"


def made(runs, conditions, seed, deviation=QUIET):
    """The runs as they would come out another time: quality moved by rounding."""
    rng, found = np.random.default_rng(seed), runs.copy()
    alive = found["outcome"] == "finite"
    for name in RANKING:
        moved = found[name] + deviation * rng.normal(size=len(found))
        found.loc[alive, name] = moved.clip(0, 1)[alive]
    return found


def repeats(runs, conditions, number, **options):
    tables = []
    for repeat in range(1, number + 1):
        again = noise.measured(made(runs, conditions, repeat, **options), conditions)
        again.insert(0, "repeat", repeat)
        again.insert(0, noise.PROCESSOR, HOME)
        tables.append(again)
    return pd.concat(tables)


def study(name):
    runs = committed.committed_runs(name)
    return runs, [condition for condition, _ in committed.keys(runs)]


def compared(name, found, number=3, **options):
    runs, conditions = study(name)
    own = repeats(runs, conditions, number, **options)
    keys = noise.measured(runs, conditions)
    spread = noise.spread(own, keys, HOME, elsewhere=False)
    sides = [reproduction.Runs(table, conditions) for table in (runs, found)]
    return reproduction.compare(*sides, spread)


def of_quality():
    names = sorted(path.parent.name for path in committed.experiments_dir().glob("*/reported.csv"))
    return [name for name in names if len(committed.conditions(name)) <= 300]


@pytest.mark.parametrize("name", of_quality())
def test_two_points_of_hits_at_1_less_everywhere_fail_in_every_study(name):
    """And the same runs without that pass."""
    runs, conditions = study(name)
    again = made(runs, conditions, 11)
    for moved in (0.0, 0.02):
        again.loc[again["outcome"] == "finite", "hits_at_1"] -= moved
        cells = compared(name, again)
        if not moved:
            assert not (cells["verdict"] == "FAIL").any(), cells[cells["verdict"] == "FAIL"]
            continue
        failed = cells[cells["verdict"] == "FAIL"]
        assert "hits_at_1" in set(failed["column"][failed["kind"] == reproduction.MEANS])
        [sentence] = [
            line for line in reproduction.failures(failed, []) if line.startswith("The mean")
        ]
        assert "The mean hits_at_1 over all conditions moved by -0.0" in sentence


@pytest.mark.parametrize("name", of_quality())
def test_two_points_of_hits_at_1_less_everywhere_fail_by_the_noise_that_was_measured(name):
    runs, conditions = study(name)
    moved = runs.copy()
    moved.loc[moved["outcome"] == "finite", "hits_at_1"] -= 0.02
    sides = [reproduction.Runs(table, conditions) for table in (runs, moved)]
    cells = reproduction.compare(*sides, committed.spread(name, runs, elsewhere=False))
    failed = cells[cells["verdict"] == "FAIL"]
    assert "hits_at_1" in set(failed["column"][failed["kind"] == reproduction.MEANS])


def test_rounding_alone_hardly_ever_fails_a_study():
    """Of studies made twice without a change, with three repeats of one seed: also where the
    noisiest condition is forty times as noisy as the quietest."""
    failed = []
    for name in ("where_it_dies", "ablation"):
        runs, conditions = study(name)
        names = list(dict.fromkeys(conditions))
        noisy = dict(zip(names, np.geomspace(0.0003, 0.012, len(names)), strict=True))
        for draw in range(20):
            deviation = np.array([QUIET if draw % 2 else noisy[one] for one in conditions])
            # truth, and two makings of it, of which one is the report
            report, again = (made(runs, conditions, 1000 * draw + n, deviation) for n in (8, 9))
            own = pd.concat(
                noise.measured(
                    made(runs, conditions, 1000 * draw + n, deviation), conditions
                ).assign(**{"repeat": n, noise.PROCESSOR: HOME})
                for n in (1, 2, 3)
            )
            own = own[own["seed"] == 0]
            keys = noise.measured(report, conditions)
            spread = noise.spread(own, keys, HOME, elsewhere=False)
            sides = [reproduction.Runs(table, conditions) for table in (report, again)]
            cells = reproduction.compare(*sides, spread)
            failed.append(cells[cells["verdict"] == "FAIL"].assign(study=name, draw=draw))
    failed = pd.concat(failed)
    is_mean = failed["kind"] == reproduction.MEANS
    assert (~is_mean).sum() <= 2, failed[~is_mean]  # of 40 studies with up to 144 each
    assert is_mean.sum() <= 2, failed[is_mean]  # three means each


def test_fewer_than_three_repeats_have_no_tolerance():
    runs, conditions = study("full_budget")
    keys = noise.measured(runs, conditions)
    own = repeats(runs, conditions, 2)
    assert noise.spread(own, keys, HOME, elsewhere=False) is None
    assert noise.spread(repeats(runs, conditions, 3), keys, HOME, elsewhere=False).repeats == 3


def test_a_chaotic_condition_is_allowed_more_than_the_others():
    runs, conditions = study("where_it_dies")
    own = repeats(runs, conditions, 3)
    chaotic = next(c for c, out in zip(conditions, runs["outcome"], strict=True) if out == "finite")
    is_chaotic = own["condition"] == chaotic
    own["mrr"] *= np.where(is_chaotic, 1 + 0.2 * (own["repeat"] - 2), 1)
    keys = noise.measured(runs, conditions)
    spread = noise.spread(own, keys, HOME, elsewhere=False)
    others = [spread.tolerance(c, "mrr") for c in conditions if c != chaotic]
    assert spread.tolerance(chaotic, "mrr") > 1.5 * max(others)


def test_repeats_that_all_agree_still_allow_one_text():
    """Of hits@k the least that can move is one text."""
    runs, conditions = study("quick_ablation")
    own = repeats(runs, conditions, 3, deviation=0.0)
    keys = noise.measured(runs, conditions)
    spread = noise.spread(own, keys, HOME, elsewhere=False)
    alive = [c for c, out in zip(conditions, runs["outcome"], strict=True) if out == "finite"]
    assert all(spread.tolerance(c, "hits_at_10") > 1 / 449 for c in alive)


def test_another_processor_has_a_tolerance_of_its_own():
    """Other vectors move every condition; the report's own processor is held to less."""
    runs, conditions = study("where_it_dies")
    keys = noise.measured(runs, conditions)
    own = repeats(runs, conditions, 3)
    others = own.assign(
        **{noise.PROCESSOR: OTHER, "repeat": own["repeat"] + 3, "mrr": own["mrr"] + 0.03}
    )
    both = pd.concat([own, others])
    here, there = (noise.spread(both, keys, HOME, elsewhere) for elsewhere in (False, True))
    assert there.elsewhere and not here.elsewhere
    assert (here.repeats, there.repeats) == (3, 3)
    assert there.shift["mrr"] > 3 * here.shift["mrr"]
    alive = here.scale["mrr"].dropna().index
    assert (there.scale["mrr"][alive] > 2 * here.scale["mrr"][alive]).all()
    few = pd.concat([own, others[others["repeat"] < 6]])  # two of them
    few = noise.spread(few, keys, HOME, elsewhere=True)
    assert not few.elsewhere and few.shift == here.shift


@pytest.mark.parametrize("name", ["full_budget", "where_it_dies"])
def test_repeats_on_another_processor_alone_tell_how_far_rounding_moves(name):
    """What they have in common against the report is taken for rounding, but no further than
    rounding goes."""
    runs, conditions = study(name)
    keys = noise.measured(runs, conditions)
    own = repeats(runs, conditions, 3)
    others = own.assign(**{noise.PROCESSOR: OTHER})
    others["mrr"] += 0.1
    known = noise.spread(own, keys, HOME, elsewhere=False)
    here, there = (noise.spread(others, keys, HOME, elsewhere) for elsewhere in (False, True))
    alive = known.scale["mrr"].dropna().index
    assert (here.scale["mrr"][alive] / known.scale["mrr"][alive] > 0.5).all()
    assert (here.scale["mrr"][alive] / known.scale["mrr"][alive] < 6).all()
    assert known.shift["mrr"] / 3 < here.shift["mrr"] < 0.03 < there.shift["mrr"]
    assert there.shift["mrr"] > 0.09 and (there.scale["mrr"][alive] > 0.09).all()


def test_repeats_of_one_seed_tell_of_the_mean_of_all_seeds():
    """On the report's processor; on another, other vectors move all seeds alike."""
    runs, conditions = study("where_it_dies")
    keys = noise.measured(runs, conditions)
    shifts = {"all": [], "one": [], "there": [], "there, one": []}
    for draw in range(8):
        every = pd.concat(
            [
                repeats(made(runs, conditions, 100 + draw), conditions, 3).assign(
                    **{noise.PROCESSOR: where}
                )
                for where in (HOME, OTHER)
            ]
        )
        every.loc[every[noise.PROCESSOR] == OTHER, "repeat"] += 3
        every.loc[every[noise.PROCESSOR] == OTHER, "mrr"] += 0.03
        for suffix, own in (("all", every), ("one", every[every["seed"] == 0])):
            here, there = (noise.spread(own, keys, HOME, away) for away in (False, True))
            shifts[suffix].append(here.shift["mrr"])
            shifts["there" if suffix == "all" else "there, one"].append(there.shift["mrr"])
    found = {name: float(np.mean(values)) for name, values in shifts.items()}
    assert found["one"] == pytest.approx(found["all"], rel=0.4)
    assert found["there, one"] == pytest.approx(found["there"], rel=0.1)


@pytest.mark.parametrize("name", ["repair", "claims", "quick_ablation"])
def test_a_part_of_a_study_has_the_resolution_of_the_whole(name):
    """One seed shows fewer values than all, and repeats that agree by chance none at all."""
    runs = committed.committed_runs(name)
    part = runs[runs["seed"] == 0]
    whole, own = (committed.spread(name, one, elsewhere=False) for one in (runs, part))
    seeds = np.sqrt(runs["seed"].nunique())
    for column in ("zero_hits_at_1", "zero_hits_at_10", "zero_mrr"):
        known = whole.scale[column].dropna()
        assert (own.scale[column][known.index] < 1.01 * seeds * known).all()
        assert (own.scale[column].dropna() > 0).all()


def test_what_is_measured_of_a_dead_run_is_its_last_norm():
    runs, conditions = study("where_it_dies")
    found = noise.measured(runs, conditions)
    dead = (runs["outcome"] == "nan").to_numpy()
    assert found.loc[dead, ["mrr", "norm/titles_end"]].isna().all(axis=None)
    assert found.loc[~dead, list(noise.LAST)].isna().all(axis=None)
    assert found.loc[dead, "norm/titles_start"].notna().all()
