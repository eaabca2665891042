"""What the shell offers at TAB: `eval "$(_ZERONORM_COMPLETE=bash_source zeronorm)"`, or zsh_source.

Whatever goes wrong here offers nothing: a message would land in the middle of what is being typed.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

Items = list[CompletionItem]
LISTED = "63"  # COMP_TYPE where bash lists what it found, after a second TAB
RUNS = 50  # of a store, at most

# As click's, but no blank after what ends in = or . and runs with what is said of them in a list
SOURCE_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' completion type value
    COMPREPLY=()
    for completion in $(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD \\
        COMP_TYPE=$COMP_TYPE %(complete_var)s=bash_complete "$1" 2>/dev/null); do
        IFS=',' read -r type value <<< "$completion"
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value"); [[ $value == *[=.] ]] && compopt -o nospace ;;
        esac
    done
    return 0
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
SOURCE_ZSH = """\
#compdef %(prog_name)s
%(complete_func)s() {
    local type key descr
    local -a response described open
    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \\
        %(complete_var)s=zsh_complete "${words[1]}" 2>/dev/null)}")
    for type key descr in ${response}; do
        case $type in
            dir) compset -P '*='; _path_files -/ ;;
            file) compset -P '*='; _path_files -f ;;
            plain)
                if [[ $key == *[=.] ]]; then open+=("$key")
                elif [[ $descr == _ ]]; then compadd -U -V plain -- "$key"
                else described+=("$key:$descr")
                fi ;;
        esac
    done
    (( $#open )) && compadd -U -S '' -V open -a open
    (( $#described )) && _describe -V described described -U
    return 0
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
    compdef %(complete_func)s %(prog_name)s
fi
"""


class _Silent(ShellComplete):
    """Offers nothing where it fails. The words before the one that is typed are the context's
    `obj`: click parses none of them where the last is an option without its value."""

    def complete(self) -> str:
        try:
            return super().complete()
        except Exception:
            return ""

    def get_completions(self, args: list[str], incomplete: str) -> Items:
        self.ctx_args["obj"] = list(args)
        return super().get_completions(args, incomplete)


@add_completion_class
class Bash(_Silent, BashComplete):
    """bash splits a word at each = and :, and replaces only what follows the last one."""

    source_template = SOURCE_BASH
    before = ""  # of the word, what bash keeps

    def get_completion_args(self) -> tuple[list[str], str]:
        words = split_arg_string(os.environ["COMP_WORDS"])
        at = int(os.environ["COMP_CWORD"])
        last = words[at] if at < len(words) else ""
        *args, word = _joined([*words[1:at], last])
        self.before = word if last and not last.strip("=:") else word.removesuffix(last)
        return args, word

    def format_completion(self, item: CompletionItem) -> str:
        said = f"  ({item.help})" if item.help and os.environ.get("COMP_TYPE") == LISTED else ""
        return f"{item.type},{item.value.removeprefix(self.before)}{said}"


@add_completion_class
class Zsh(_Silent, ZshComplete):
    """zsh replaces the whole word, also what stands before the = of an option."""

    source_template = SOURCE_ZSH
    option = ""  # --cfg= of --cfg=j

    def get_completion_args(self) -> tuple[list[str], str]:
        args, word = super().get_completion_args()
        name, equals, _ = word.partition("=")
        self.option = f"{name}=" if equals and word.startswith("-") else ""
        return args, word

    def format_completion(self, item: CompletionItem) -> str:
        whole = CompletionItem(self.option + item.value, item.type, item.help)
        return super().format_completion(whole)


def _joined(words: Iterable[str]) -> list[str]:
    """Words that were split at = and :, whole again."""
    found: list[str] = []
    inside = False
    for word in words:
        splits = bool(word) and not word.strip("=:")
        if found and word and (splits or inside):
            found[-1] += word
        else:
            found.append(word)
        inside = splits
    return found


def overrides(ctx: click.Context, _: click.Parameter, incomplete: str) -> Items:
    """For the overrides of a run: factors and keys, or, after the =, the values that one has."""
    key, equals, typed = incomplete.partition("=")
    if not equals:
        return _starting(incomplete, _keys(ctx, incomplete))
    if key == "home":
        return [CompletionItem(typed, type="dir")]
    if key.endswith(".path"):
        return [CompletionItem(typed, type="file")]
    *before, last = typed.split(",")
    chosen = "".join(f"{one}," for one in before)
    names = (name for name in _values(ctx, key.lstrip("+")) if name not in before)
    return [CompletionItem(f"{key}={chosen}{name}") for name in names if name.startswith(last)]


def stores(ctx: click.Context, _: click.Parameter, incomplete: str) -> Items:
    """For overrides that name a store."""
    if "=" in incomplete:
        return overrides(ctx, _, incomplete)
    return _starting(incomplete, ["tracking=", "home="])


def studies(ctx: click.Context, _: click.Parameter, incomplete: str) -> Items:
    return _starting(incomplete, _names("study"))


def reported(ctx: click.Context, _: click.Parameter, incomplete: str) -> Items:
    """For a study that has a report."""
    from zeronorm.checkout import conf_dir

    reports = conf_dir().parent / "experiments"
    there = [name for name in _names("study") if (reports / name / "reported.csv").is_file()]
    return _starting(incomplete, there)


def sweeps(ctx: click.Context, _: click.Parameter, incomplete: str) -> Items:
    """For the parent run of a sweep of the study that is named, newest first."""
    command, *words = ctx.obj
    study = next((word for word in words if not word.startswith("-")), command)
    where = "kind.value = 'sweep' AND study.value = ?"
    return [
        CompletionItem(run, help=f"{name}, {status.lower()}")
        for run, name, status, _ in _runs(ctx, where, "start_time DESC", study)
        if run.startswith(incomplete)
    ]


def targets(ctx: click.Context, _: click.Parameter, incomplete: str) -> Items:
    """For what an autopsy examines: runs, those that died first, each the newest first; or a file,
    where none begins so."""
    first = "coalesce(outcome.value, '') = 'nan' DESC, start_time DESC"
    found = [
        CompletionItem(run, help=f"{name}: {outcome or status.lower()}")
        for run, name, status, outcome in _runs(ctx, "kind.value = 'run'", first)
        if run.startswith(incomplete)
    ]
    return found or [CompletionItem(incomplete, type="file")]


def _starting(incomplete: str, names: Iterable[str]) -> Items:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _names(group: str, more: str | None = None) -> list[str]:
    """The choices of a group, also those of a folder of the user's own."""
    from zeronorm.checkout import conf_dir

    folders = [conf_dir(), *([Path(more)] if more else [])]
    return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})


def _config(ctx: click.Context) -> Any:
    """The config of the factors that are chosen on the line; the baseline's, if they make none."""
    from zeronorm import mistakes

    more = ctx.params.get("config_dir")
    typed = [word for word in ctx.params.get("overrides") or () if "," not in word]
    for words in (typed, []):
        try:
            return mistakes.composed(words, more)
        except Exception:
            continue
    return {}


def _keys(ctx: click.Context, incomplete: str) -> Iterator[str]:
    """Factors first, then the keys of the level that is being typed, which end in = or, where there
    is more in them, in a full stop."""
    from zeronorm import config as schema

    written = incomplete.lstrip("+")
    more, (at, dot, _) = incomplete.removesuffix(written), written.rpartition(".")
    if not dot:
        factors = [name for name in schema.Config.__dataclass_fields__ if schema.is_group(name)]
        yield from (f"{more}{name}=" for name in ("study", *factors, "hydra/launcher"))
    for name, inside in _level(ctx, at):
        path = f"{at}.{name}" if dot else name
        if name not in ("name", "study"):
            yield f"{more}{path}{'.' if inside else '='}"
    if not dot:
        yield f"{more}hydra."


def _level(ctx: click.Context, at: str) -> Iterator[tuple[str, bool]]:
    """(name, whether there is more in it) of what is in a node; '' is the root."""
    from omegaconf import DictConfig, OmegaConf

    from zeronorm import config as schema

    if not at.startswith(("hydra", *schema.CALLED)):  # known without composing
        start = at and f"{at}."
        beneath = [path.removeprefix(start) for path in schema.paths() if path.startswith(start)]
        names = [path.partition(".") for path in beneath]
        yield from dict.fromkeys(
            (name, bool(dot) or start + name in schema.CALLED)
            for name, dot, rest in names
            if rest != "name"
        )
        return
    node = OmegaConf.select(_config(ctx), at)
    for name in node if isinstance(node, DictConfig) else ():
        yield str(name), isinstance(node._get_node(name), DictConfig)


def _values(ctx: click.Context, key: str) -> list[str]:
    from zeronorm import config as schema

    more = ctx.params.get("config_dir")
    if key == "hydra/launcher":
        return sorted({"basic", *_names(key, more)})
    if key == "study" or schema.is_group(key):
        return _names(key, more)
    return schema.values(key)


def _runs(ctx: click.Context, where: str, order: str, *values: str) -> list[tuple]:
    """(run id, name, status, outcome) of runs of the local store. Its file is read as it is, in
    milliseconds, where MLflow takes seconds to import and would make or migrate a store."""
    from zeronorm import config as schema

    uri = schema.composed(*(ctx.params.get("overrides") or ())).tracking.uri
    file = os.path.abspath(uri.removeprefix("sqlite:///"))
    tagged = "".join(
        f" LEFT JOIN tags {name} ON {name}.run_uuid = runs.run_uuid AND {name}.key = '{name}'"
        for name in ("kind", "study", "outcome")
    )
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=0.5)) as store:
        return store.execute(
            f"SELECT runs.run_uuid, runs.name, runs.status, outcome.value FROM runs{tagged}"
            f" WHERE runs.lifecycle_stage = 'active' AND {where} ORDER BY {order} LIMIT {RUNS}",
            values,
        ).fetchall()
