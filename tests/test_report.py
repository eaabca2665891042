"""The READMEs equal the data, their commands parse, and the data says what the prose says."""

import io
import os
import re
import shlex
import subprocess
import sys

import click
import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from rich.console import Console

from zeronorm import checkout, checks, cli
from zeronorm import config as schema
from zeronorm.report import blocks, committed, measured, present, releases, tables
from zeronorm.sweep.plan import expand

ROOT = checkout.conf_dir().parent
READMES = blocks.documents()
TEXTS = [*READMES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "src").rglob("README.md"))]
WORDS = 1000  # of the README: two screens
# with which a run says that its prediction is not certain (`optimizers.Reaches.mixes`)
MIXING = {"keras.optimizers.RMSprop", "keras.optimizers.Adagrad"}
STUDIES = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/reported.csv"))


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_of_a_readme_is_what_the_data_says(readme):
    text = readme.read_text()
    assert "<!-- begin" in text or readme.parent.name == "docs"
    assert blocks.refreshed(text) == text


def test_the_readme_is_short():
    words = [word for word in (ROOT / "README.md").read_text().split() if re.search("[a-z]", word)]
    assert len(words) <= WORDS


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_inside_the_repository_leads_somewhere(text):
    """To a file or folder, and with an anchor to a heading of it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (text.parent / path).resolve() if path else text
        assert file.exists(), target
        headings = re.findall(r"^#+ (.+)$", file.read_text(), re.M) if anchor else []
        slugs = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]
        assert not anchor or anchor in slugs, target


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_image_says_in_words_what_is_to_be_seen(text):
    """More than a name: a sentence's part."""
    for said in re.findall(r"!\[([^\]]*)\]\(", text.read_text()):
        assert len(said.split()) >= 4, said
    assert "<img" not in text.read_text()


def test_every_page_is_reached_from_the_readme():
    """By links, from the README on."""
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        for target in re.findall(r"\]\(([^)\s#]+)", page.read_text()):
            file = (page.parent / target).resolve()
            if file.suffix == ".md" and file.exists():
                todo.append(file)
    assert {path.resolve() for path in TEXTS} - seen == set()


def test_changing_a_cell_changes_the_block(monkeypatch):
    """The test above can fail."""
    text = (ROOT / "README.md").read_text()
    found = committed.conditions("quick_ablation")
    found.loc[3, "hits_at_10_mean"] += 0.001
    monkeypatch.setattr(blocks, "conditions", lambda name: found)
    assert blocks.refreshed(text) != text


def test_every_study_is_reported_under_its_name():
    assert sorted(path.stem for path in (ROOT / "conf" / "study").glob("*.yaml")) == STUDIES
    for name in STUDIES:
        assert not committed.provenance(name)["dirty"]
        assert all(len(commit) == 12 for commit in committed.provenance(name)["commit"].split(", "))


@pytest.mark.parametrize("name", STUDIES)
def test_the_tables_have_their_columns_and_no_nan(name):
    metrics = [
        zero + metric
        for zero in ("", "zero_")
        for metric in ("mrr", "hits_at_1", "hits_at_10", "mean_rank")
    ]
    factors = ["study", "trainable", "init", "similarity", "epsilon", "numerics", "optimizer"]
    first_nan = ["first_nan_predicted", "first_nan_observed", "first_nan_tensor"]
    norms = [f"norm/{weight}_{end}" for weight in tables.WEIGHTS for end in ("start", "end")]
    pooled = [f"{metric}_{what}" for metric in metrics for what in ("mean", "std")]
    for file, counted, quality in (
        ("reported.csv", ["seeds", "nan_runs"], pooled),
        ("runs.csv", ["seed"], metrics),
    ):
        table = pd.read_csv(ROOT / "experiments" / name / file, dtype=str, keep_default_na=False)
        assert list(table.columns[:7]) == factors and set(table["study"]) == {name}
        wanted = [*counted, *first_nan, *quality, *norms]
        assert [column for column in table.columns if column in wanted] == wanted
        assert (
            not table.drop(columns="outcome", errors="ignore")
            .isin(["nan", "NaN", "inf", "-inf"])
            .any(axis=None)
        )
    runs, table = committed.committed_runs(name), committed.conditions(name)
    assert (
        runs["config_sha"].is_unique
        and table["seeds"].sum() == len(runs) == committed.provenance(name)["runs"]
    )
    missed = table[table["predicted_exactly"] < table["seeds"]]
    assert set(missed.get("optimizer.keras._target_", [])) <= MIXING and len(missed) <= len(MIXING)


@pytest.mark.parametrize("name", STUDIES)
def test_the_report_follows_from_its_runs(name):
    assert committed.edited_cells(name) == []


def commands():
    """(folder of the README, the words after `zeronorm`) of every command that a README prints."""
    pattern = r"(?:^|`|\| `)((?:[A-Z_]+=\S+ )?(?:\.venv/bin/)?zeronorm [^`\n]+)"
    for readme in READMES:
        for line in re.findall(pattern, readme.read_text(), re.M):
            words = shlex.split(line)
            yield (
                readme.parent.name,
                words[next(n for n, word in enumerate(words) if word.endswith("zeronorm")) + 1 :],
            )


def compositions():
    """{its overrides: a README that prints it} of every printed `train` and `reproduce`."""
    found = {}
    for where, (command, *words) in commands():
        if command == "reproduce" and words not in ([], ["NAME"]):  # which stand in the prose
            words = [f"study={words[0]}", *words[1:]]
        elif command != "train" or "--help" in words:
            continue
        found.setdefault(tuple(word for word in words if not word.startswith("-")), where)
    return found


def test_every_printed_command_has_its_options():
    for _, (command, *words) in commands():
        if command not in ("train", "reproduce"):
            # raises if an option is not there
            # click keeps the names of help that it first sees
            whole = click.Context(cli.main, **cli.main.context_settings)
            cli.main.commands[command].make_context(command, words, parent=whole)


@pytest.mark.parametrize("overrides", compositions(), ids=" ".join)
def test_every_printed_configuration_composes(overrides, home, covering, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    (tmp_path / "my_titles.tsv").touch()
    schema.register()
    (tmp_path / "similarity").mkdir()  # the placement that the README adds
    (tmp_path / "similarity" / "guarded.yaml").write_text(
        "name: guarded\nfunction: mine.guarded\nepsilon: 1.0e-6\n"
    )
    with initialize_config_dir(str(checkout.conf_dir()), version_base="1.3"):
        # as a sweep over one job or more, which is what `expand` makes of any command line
        base = compose("config", [f"home={home}"], return_hydra_config=True)
        base.hydra.overrides.task = [*overrides, f"hydra.searchpath=[file://{tmp_path}]"]
        study_name = next(
            (word.split("=")[1] for word in overrides if word.startswith("study=")), None
        )
        if study_name:
            base.hydra.sweeper = compose(
                "config", [f"study={study_name}"], return_hydra_config=True
            ).hydra.sweeper
        jobs = [compose("config", job) for job in covering(expand(base))]
    for job in jobs:
        schema.validate(job)


@pytest.mark.parametrize("name", STUDIES)
def test_a_report_is_of_as_many_runs_as_its_study(name, home):
    schema.register()
    with initialize_config_dir(str(checkout.conf_dir()), version_base="1.3"):
        given = [f"study={name}", f"home={home}"]
        base = compose("config", given, return_hydra_config=True)
    base.hydra.overrides.task = given
    jobs = len(list(expand(base)))
    text = (checkout.conf_dir() / "study" / f"{name}.yaml").read_text()
    assert f"# Cost:     {jobs} runs, about " in text
    assert len(committed.committed_runs(name)) == committed.provenance(name)["runs"] == jobs


@pytest.mark.parametrize("name", ["ablation", "quick_ablation"])
def test_the_ablations_are_what_their_readmes_say(name):
    found = committed.conditions(name)
    dead = found[found["nan_runs"] > 0]
    assert len(found) == 48
    assert set(
        zip(dead["trainable"], dead["init"], dead["similarity"], dead["numerics"], strict=True)
    ) == {
        ("true", "pretrained", similarity, numerics)
        for similarity in ("clamp_product", "add_to_product")
        for numerics in ("xla", "tf1")
    }
    assert (found["predicted_exactly"] == found["seeds"]).all()
    assert (dead["first_nan_tensor"] == "titles").all()
    if name == "quick_ablation":  # where a dead run goes on to its end
        assert (dead[dead["numerics"] == "tf1"]["last_finite_loss"].astype(float) == 0).all()
    alive = found[found["nan_runs"] == 0]
    assert (alive["hits_at_10_mean"] > 0.2).all()  # chance is 0.094


def test_the_readmes_own_placement_works(composed, tmp_path, monkeypatch):
    """Its code blocks, taken as they stand."""
    import yaml

    text = (ROOT / "docs" / "configuration.md").read_text()
    code = next(block for block in text.split("```python\n") if block.startswith("# mine.py"))
    (tmp_path / "mine.py").write_text(code.split("```")[0])
    placement = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    checks.check(composed(*(f"similarity.{key}={value}" for key, value in placement.items())))


def test_the_readmes_callback_works():
    """Its code block, with a model and data."""
    import cases

    model, arguments = cases.fitted([cases.dense()])
    text = (ROOT / "README.md").read_text()
    code = next(block for block in text.split("```python\n") if block.startswith("import zeronorm"))
    names = {"model": model, **arguments}
    exec(code.split("```")[0], names)
    assert names["watch"].report is None and int(model.optimizer.iterations) == 1


def test_the_example_prints_what_the_readme_shows():
    """In a process of its own: Keras counts its layers' names on from whatever was built before."""
    command = [sys.executable, "experiments/autopsy/example.py"]
    found = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
    ).stdout
    assert found.strip() == (ROOT / "experiments" / "autopsy" / "example.txt").read_text().strip()


def test_the_suite_is_the_cases_and_no_case_went_wrong():
    import cases

    rows = measured.suite_data("autopsy")["rows"]
    assert [row["case"] for row in rows] == [case.name for case in [*cases.BUGS, *cases.HEALTHY]]
    assert all(all(row["autopsy"]["right"].values()) for row in rows if row["birth"])
    assert not any(row["autopsy"]["alarm"] for row in rows if not row["birth"])


def test_the_numbers_in_the_prose_are_the_data_s(excerpt):
    readme, why, results = (
        (ROOT / name).read_text().replace("\n", " ")
        for name in ("README.md", "docs/why.md", "experiments/README.md")
    )
    zero, titles = int((~excerpt.titles.any(axis=1)).sum()), len(excerpt.corpus.titles)
    assert f"{zero} of {titles}, nothing planted" in why
    assert f"over {titles} titles (chance {10 / titles:.3f})" in results
    chances = (1 / titles, (1 / np.arange(1, titles + 1)).mean(), 10 / titles)
    by_chance = " / ".join(f"{chance:.2f}".removeprefix("0") for chance in chances)
    assert f"hits@1 / MRR / hits@10 over {titles} titles (by chance {by_chance})" in readme
    minutes = committed.provenance("quick_ablation")["minutes"]
    assert f"about {minutes:.0f} minutes" in readme
    runs = committed.provenance("quick_ablation")["runs"]
    assert f"{runs} runs" in (ROOT / "Makefile").read_text() and f"{runs} of {runs} runs" in readme
    affected = re.match(r"\d+ of \d+ calls", releases.libraries_verdict("releases"))
    assert affected and f"[{affected[0]} of today's libraries]" in readme
    assert "`keras.losses.CosineSimilarity()(a, b)`" in releases.libraries_verdict("releases")
    said = present.verdict(committed.conditions("quick_ablation"))
    assert said in " ".join(readme.split()) and len(why.split()) <= 760
    bugs = [row for row in measured.suite_data("autopsy")["rows"] if row["birth"]]
    named = all(all(row["autopsy"]["right"].values()) for row in bugs)
    sentence = f"It names the cause of the {len(bugs)} bugs from public threads"
    assert sentence in readme and named


def test_the_readme_shows_what_its_first_command_prints():
    """All but the runs themselves, which tests/test_sweep.py makes on a small scale."""
    readme = (ROOT / "README.md").read_text()
    assert re.search("^make ablation ", readme, re.MULTILINE)
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    would = subprocess.run(
        ["make", "-n", "ablation"], cwd=ROOT, env=outside, capture_output=True, text=True
    )
    assert would.stdout.splitlines()[-1] == ".venv/bin/zeronorm train study=quick_ablation"
    printed = io.StringIO()
    present.print_table(committed.conditions("quick_ablation"), Console(file=printed, width=100))
    shown = next(block for block in readme.split("```text\n") if " conditions end in NaN" in block)
    verdict, end = re.match(r"(.*?)(^\d+ of \d+ runs finished.*?)```", shown, re.S | re.M).groups()
    lines = [line.rstrip() for line in printed.getvalue().splitlines()]
    assert lines[-verdict.count("\n") :] == verdict.splitlines()
    runs = committed.provenance("quick_ablation")["runs"]
    assert end.startswith(f"{runs} of {runs} runs finished; tables: ")


def test_the_norms_of_an_unscaled_start_are_those_of_the_runs():
    """A factor, the same for each row, brings a start to `init.norm`: so its own follows from two
    runs."""
    text = " ".join((ROOT / "experiments" / "init_scale" / "README.md").read_text().split())
    found = committed.conditions("init_scale").set_index(["init", "init.norm"])

    def own(init: str, weight: str) -> str:
        starts = found[f"norm/{weight}_start"].astype(float)
        return f"{starts[init, ''] / starts[init, '1.0']:.2g}"

    assert f"{own('pretrained', 'titles')} for the titles of `pretrained`" in text
    assert f"{own('repaired', 'titles')} for those of `repaired`" in text
    assert own("pretrained", "words") == own("repaired", "words")
    assert f"{own('pretrained', 'words')} for the words of both" in text
    assert own("uniform", "words") == own("uniform", "titles")
    assert f"{own('uniform', 'words')} for titles and words of `uniform`" in text


def test_a_table_has_the_columns_that_differ_and_no_rank_of_the_dead():
    found = committed.conditions("quick_ablation").iloc[:2].copy()
    assert found["nan_runs"].tolist() == [0, 1]
    said = present.markdown(found, ["similarity", "numerics", "mrr", "hits10"])
    header, _, alive, dead, *_ = said.splitlines()
    assert header == "| numerics | MRR | hits @10 |" and dead == "| xla | - | - |"
    assert alive.startswith("| kernels | .")
    one = present.markdown(found.iloc[:1], ["similarity", "numerics"])
    assert one.startswith("| similarity | numerics |")


def test_what_tells_runs_apart_stands_beside_them():
    """Learning rates, epsilons and budgets are conditions of their own, not seeds."""
    children = pd.DataFrame(
        {
            "params.seed": ["0", "0", "1", "0"],
            "params.optimizer.name": ["adam", "adam", "adam", "sgd"],
            "params.optimizer.keras.learning_rate": ["0.001", "0.01", "0.01", "0.1"],
            "params.training.name": ["quick", "quick", "quick", "question"],
            "params.training.epochs": ["1", "1", "1", "10"],
            "params.examples": ["20", "20", "20", "20"],
            "params.tracking.points": ["1", "2", "3", "4"],
        }
    )
    assert tables.further_factors(children) == [
        "params.optimizer.keras.learning_rate",
        "params.training.name",
    ]
    children["params.init.name"] = ["pretrained", "uniform", "uniform", "uniform"]
    # follows from the choice, as far as one can see
    children["params.init.norm"] = ["None", "0.3", "0.3", "0.3"]
    assert "params.init.norm" not in tables.further_factors(children)
    children["tags.overrides"] = ["seed=0", *["init=uniform init.norm=0.3"] * 3]
    assert "params.init.norm" in tables.further_factors(children)
    found = committed.conditions("quick_ablation").iloc[[0, 0]].copy()
    found["epsilon"] = ["1e-07", "0.001"]
    assert [heading for heading, _ in present.groups(found)] == [
        "trainable embeddings, pretrained vectors, epsilon=1e-07",
        "trainable embeddings, pretrained vectors, epsilon=0.001",
    ]


def test_seeds_are_pooled():
    base = committed.committed_runs("quick_ablation").iloc[[0, 0, 1]].copy()
    base["seed"] = [0, 1, 0]
    base.loc[:, "hits_at_10"] = [0.2, 0.4, 0.7]
    base["outcome"] = ["finite", "nan", "finite"]
    pooled = tables.conditions_table(base)
    assert len(pooled) == 2
    first = pooled.iloc[0]
    assert (first["seeds"], first["nan_runs"]) == (2, 1)
    assert first["hits_at_10_mean"] == pytest.approx(0.3) and first[
        "hits_at_10_std"
    ] == pytest.approx(0.1414, abs=1e-4)
    assert present.cells(first, ["outcome", "hits10"]) == ["NaN 1/2", ".300±.141"]
    assert pd.isna(pooled.iloc[1]["hits_at_10_std"])


def test_the_steps_of_a_condition_are_those_of_all_its_seeds():
    base = committed.committed_runs("quick_ablation").iloc[[0, 0, 0]].copy()
    base["seed"] = [0, 1, 2]
    base["outcome"] = ["finite", "nan", "nan"]
    base["first_nan_observed"] = base["first_nan_predicted"] = ["", "17", "5"]
    base["encoder_nan_observed"] = base["encoder_nan_predicted"] = ["", "53", "9"]
    pooled = tables.conditions_table(base)
    assert present.cells(pooled.iloc[0], ["outcome", "predicted", "observed"]) == [
        "NaN 2/3",
        "5-17, 9-53",
        "5-17, 9-53",
    ]
    assert "seen, over the seeds." in present.caption(pooled, ["observed"])
    assert "over the seeds" not in present.caption(pooled.assign(seeds=1), ["observed"])


def test_dead_zones_by_hand():
    norms = ["0", "1e-30", "1e-20", "1", "1e20", "1e38"]
    dead = {"kernels": [0, 1, 1, 0, 0, 0], "xla": [1, 1, 0, 0, 1, 1], "tf1": [0, 0, 0, 0, 0, 0]}
    rows = [
        {
            "similarity": "clamp_product",
            "epsilon": "1e-07",
            "numerics": name,
            "vectors.planted_norm": norm,
            "nan_runs": n,
        }
        for name, counts in dead.items()
        for norm, n in zip(norms, counts, strict=True)
    ]
    table = pd.DataFrame(rows)
    assert tables.dead_zones(table).values.tolist() == [
        ["clamp_product", "kernels", 1e-30, 1e-20],
        ["clamp_product", "xla", 0.0, 1e-30],
        ["clamp_product", "xla", 1e20, 1e38],
    ]
    assert (
        "| clamp_product | 1e-30 to 1e-20 | 0 to 1e-30, from 1e20 | none |"
        in present.zones_markdown(table)
    )


@pytest.mark.parametrize("name", ["quick_ablation", "ablation"])
@pytest.mark.parametrize("width", [80, 100])
def test_the_table_fits_the_terminal_and_cuts_nothing(name, width, capsys):
    console = Console(width=width, force_terminal=True, no_color=True)
    present.print_table(committed.conditions(name), console)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    assert sum(line.startswith(" add_to_product") for line in lines) == 12
    assert any("33.6>NaN" in line for line in lines) == (width == 100)
