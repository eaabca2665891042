"""What decides a result besides the options: the contents of the files and of the functions that
they name.

A path or a dotted name is only a name. Here are digests of what stands behind it, found without
importing it, so that a plan of a thousand runs costs no import of TensorFlow.
"""

import ast
import errno
import glob
import hashlib
import importlib.util
import os
import pkgutil
import re
import site
import sys
import sysconfig
import time
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

# a run records versions and commit
LIBRARIES = ("zeronorm", "keras", "tensorflow", "gensim", "numpy", "hydra")
MOST = 10_000  # files of a folder that a reader may be given
# nanoseconds after which a file's times tell a change apart from what was read before
SETTLED = 2e9
DOTTED = re.compile(r"[^\W\d]\w*([.:][^\W\d]\w*)+")
LOADED = "__zeronorm_digest__"  # of a module: the digest of the source that it was loaded from


def named(config: dict[str, Any]) -> dict[str, str]:
    """{place: digest} of all that a run's config, a plain dict, names and that no version or commit
    stands for: files that its corpus and vectors are read from, functions and classes that are not
    shipped. Raises OSError if a file cannot be read."""
    nodes = {
        f"{group}.{node}": config[group][node]
        for group, node in (("corpus", "reader"), ("vectors", "source"))
    }
    found = {
        place: digest for at, node in nodes.items() for place, digest in files(at, node).items()
    }
    nodes |= {
        "similarity.function": config["similarity"]["function"],
        "encoder.function": config["encoder"]["function"],
        "loss.function": config["loss"]["function"],
        "optimizer.keras": config["optimizer"]["keras"],
    }
    return found | {
        place: digest for at, node in nodes.items() for place, digest in functions(at, node).items()
    }


def files(at: str, node: Any) -> dict[str, str]:
    """{place: digest} of the files that a reader's arguments name; `at`: the node's own place. What
    stands beside a file as gensim and NumPy write it (x.kv.vectors.npy beside x.kv) counts with it.
    """
    target = node.get("_target_") if isinstance(node, dict) else None
    if isinstance(target, str) and target.startswith("zeronorm."):
        node = {"path": node.get("path")}  # the rest are numbers and names
    # a text without a letter ("/", ".") separates fields, or the like
    texts = [
        (at, value)
        for at, value in _texts(at, node)
        if re.search(r"\w", value) and os.path.exists(value)
    ]
    return {place: _all_of(value) for place, value in texts}


def functions(at: str, node: Any) -> dict[str, str]:
    """{place: digest of the source} of the functions and classes, not shipped, that a config's
    value names."""
    found = {}
    for place, value in _texts(at, node):
        modules = sources(value)
        if modules:
            found[place] = _joined({module: digest(file) for module, file in modules.items()})
    return found


def resolved(name: str) -> Any:
    """What a dotted name means now. Raises what the import raises, AttributeError if the module has
    no such thing."""
    refresh(name)
    found = pkgutil.resolve_name(name)
    for module, file in sources(name).items():
        if module in sys.modules:
            vars(sys.modules[module]).setdefault(LOADED, digest(file))
    return found


def refresh(node: Any) -> None:
    """Loads the modules again that a config's value names and that have changed since they were
    loaded: a process that makes many runs would go on with the old ones."""
    for _, value in _texts("", node):
        modules = sources(value)
        loaded = {module: file for module, file in modules.items() if module in sys.modules}
        if any(_changed(sys.modules[module], file) for module, file in loaded.items()):
            for module, file in loaded.items():  # those that a module imports come before it
                _compiled_away(file)
                importlib.reload(sys.modules[module])
                setattr(sys.modules[module], LOADED, digest(file))


def sources(name: str) -> dict[str, str]:
    """{module: its file} of the module that a dotted name lies in and of all that it imports,
    imports first, as far as they are a user's own: no standard library, and of an installed package
    only the name's own modules. {} if it is no such name, or of LIBRARIES."""
    if not DOTTED.fullmatch(name):
        return {}
    found: dict[str, str] = {}
    _collect(name.replace(":", "."), name.replace(":", ".").split(".")[0], found, set())
    return found


def _collect(name: str, root: str, found: dict[str, str], met: set[str]) -> None:
    """Adds the modules of a dotted name, its packages first, each after what it imports."""
    parts = name.split(".")
    for module in (".".join(parts[:length]) for length in range(1, len(parts) + 1)):
        if parts[0] in LIBRARIES or module in met:
            continue
        met.add(module)
        spec = _spec(module)
        if spec is None or not spec.origin or not os.path.isfile(spec.origin):
            continue
        installed = _installed(spec.origin)
        if _of_python(spec.origin) or (parts[0] != root and installed):
            continue
        if not installed:  # a package's insides go with its version
            package = (
                module if spec.submodule_search_locations is not None else module.rpartition(".")[0]
            )
            for imported in _imports(spec.origin, digest(spec.origin), package):
                _collect(imported, root, found, met)
        found[module] = spec.origin


def _spec(module: str) -> ModuleSpec | None:
    """Where a module is, without importing its packages."""
    parent, _, name = module.rpartition(".")
    try:
        if not parent:
            found = importlib.util.find_spec(name)
            if found is None:  # a file of this second, in a folder that was listed before
                importlib.invalidate_caches()
                found = importlib.util.find_spec(name)
            return found
        above = _spec(parent)
        where = above.submodule_search_locations if above else None
        return PathFinder.find_spec(module, where) if where else None
    except (ImportError, ValueError):  # ValueError: a module without a spec
        return None


@lru_cache(maxsize=1024)
def _imports(file: str, digest: str, package: str) -> list[str]:
    """The dotted names that a module's source imports; of `from a import b` both a and a.b."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (SyntaxError, ValueError):  # an extension module, or one that no import will survive
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(part for part in (above, node.module) if part)
            found += [source, *(f"{source}.{one.name}" for one in node.names)]
    return [name for name in found if name]


def _installed(file: str) -> bool:
    return any(
        Path(file).resolve().is_relative_to(folder) for folder in _folders("purelib", "platlib")
    )


def _of_python(file: str) -> bool:
    inside = any(
        Path(file).resolve().is_relative_to(folder) for folder in _folders("stdlib", "platstdlib")
    )
    return inside and not _installed(file)


@cache
def _folders(*names: str) -> list[Path]:
    """Of this Python: its own modules, or what is installed in it."""
    paths = [sysconfig.get_paths()[name] for name in names]
    if "purelib" in names:
        paths += [*site.getsitepackages(), site.getusersitepackages()]
    return [Path(path).resolve() for path in paths]


def _changed(module: Any, file: str) -> bool:
    """Whether a module's file is another than it was loaded from; of one that was loaded by others,
    whether it may be: whether it was written since this process started."""
    known = getattr(module, LOADED, None)
    if known is None:
        status = os.stat(file)
        since = psutil.Process().create_time()
        if max(status.st_mtime, status.st_ctime) >= since:
            return True
        setattr(module, LOADED, digest(file))
        return False
    return known != digest(file)


def _compiled_away(file: str) -> None:
    """Python takes compiled code for current by the second and the size of its source; two edits
    may share both."""
    if file.endswith(".py"):
        Path(importlib.util.cache_from_source(file)).unlink(missing_ok=True)


def _texts(at: str, node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _texts(f"{at}.{key}", value)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _texts(f"{at}.{number}", value)
    elif isinstance(node, str):
        yield at, node


def folder(path: str | Path, pattern: str = "*") -> str:
    """Digest of the files in a folder and its folders, of their names too. Raises OSError if there
    are too many."""
    found = (file for file in Path(path).rglob(pattern) if file.is_file())
    inside = {file.relative_to(path).as_posix(): str(file) for file in islice(found, MOST + 1)}
    if len(inside) > MOST:
        raise OSError(
            errno.E2BIG,
            f"it is a folder of more than {MOST} files, so name the files themselves",
            str(path),
        )
    return _joined({name: digest(file) for name, file in inside.items()})


def _all_of(path: str) -> str:
    if os.path.isdir(path):
        return folder(path)
    if not os.path.isfile(path):  # a pipe has no content before it is read
        return ""
    beside = [
        file for kind in ("npy", "npz") for file in glob.glob(f"{glob.escape(path)}.*.{kind}")
    ]
    if not beside:
        return digest(path)
    return _joined({"": digest(path)} | {file.removeprefix(path): digest(file) for file in beside})


def _joined(digests: dict[str, str]) -> str:
    lines = "".join(f"{digest} {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def digest(path: str) -> str:
    """SHA-256 of a file; read once for as long as its times and size are the same."""
    status = os.stat(path)
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < SETTLED:
        return _read(path)
    kept = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return _read_once(os.path.abspath(path), kept)


@lru_cache(maxsize=4096)
def _read_once(path: str, status: tuple) -> str:
    return _read(path)


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
