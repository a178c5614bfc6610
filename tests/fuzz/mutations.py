"""Mutations of configurations: of what was parsed, then of its text. A number gives the same case every time."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from tests.fuzz import seeds

# No absolute path that could be written to, and no address that anybody answers at.
STRINGS = (
    "",
    " ",
    ".",
    "..",
    "-1",
    "-1.",
    "-1.processed_path",
    "item",
    "anonymous.process_data.processed_path",
    "nothing.of.this",
    "a.b.c >= ",
    "a.b.c >= 0.8e999",
    "${env:",
    "${env:HOME}",
    "${env:NOT_SET_ANYWHERE}",
    "${env:NOT_SET_ANYWHERE,${env:HOME}}",
    "${env:ÄÖ,x}",
    "nul\0byte",
    "bell\a and \x1b[31mescape\x7f",
    "line\nbreak\r\nand\ttab",
    "\u202eright to left\u2066",
    "\ufeffmark",
    "\ud800",
    "你好" * 50,
    "🦀" * 300,
    "x" * 5000,
    "a/" * 3000,
    "~nobody-at-all/x",
    "/dev/null/x",
    "/proc/self/mem",
    "file://x/y",
    "http://127.0.0.1:9/x.jsonl",
    "http://[::1",
    "memory://x",
    "nosuchscheme://x/y",
    "s3://",
    "*.jsonl",
    "[a-",
    "**/**/**/*",
    "0.5 a.jsonl b.jsonl nan c.jsonl",
    "-0.5 a.jsonl 1e999 b.jsonl",
    "a.jsonl' \"",
    "train[:10%]+test[-1:]",
    "10 < x <= 'y' and (",
    "((((((((((x))))))))))" * 20,
    "__import__('os').system('touch started')",
    "(" * 500 + "1" + ")" * 500,
    "2 ** 9 ** 9 ** 9",
    "(a+)+$",
    "[[:bad:]](",
    "2026-01-01",
    "1_000",
    "0x1F",
    "1:30:00",
    "9" * 4000 + "GB",
    "1/0",
    "nan",
    "inf",
    "{{x}}",
    "%s%n",
    "None",
    "null",
    "yes",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**64),
    10**30,
    10**400,
    0.0,
    -0.5,
    1e-320,
    1e308,
    float("inf"),
    float("-inf"),
    float("nan"),
    [],
    {},
    [[]],
    [None],
    [{}],
    {"": ""},
    {"type": "fake"},
    {"a": {"b": [1, {"c": None}]}},
    [1, "a", None, {"b": 2}],
    {"hook": "ProcessDataHook"},
    list(range(1000)),
)
KEYS: tuple[Any, ...] = (
    "",
    ".",
    "a.b",
    "dj_configs",
    "extra_configs.x",
    "<<",
    "=",
    "hook",
    "type",
    "process",
    "parameters",
    "dataset_path",
    "pipelines",
    "_job_configs",
    "new_job_configs",
    "__class__",
    "model_config",
    "ä ö",
    "x" * 3000,
    "\n",
    None,
    True,
    3,
    -1,
    1.5,
    float("nan"),
)
Path = tuple[Any, ...]


@dataclass(frozen=True)
class Case:
    """A mutated configuration.

    Attributes:
        number: makes it again.
        what: names of what was done to it.
        content: of the file.
        sweep: of a sweep file that it names; None where there is none.
        overrides: what comes after `-o`.
    """

    number: int
    what: tuple[str, ...]
    content: bytes
    sweep: bytes | None = None
    overrides: tuple[str, ...] = ()


def case(number: int) -> Case:
    """The case of a number."""
    return drawn(random.Random(number), number)


def drawn(chance: random.Random, number: int = -1) -> Case:
    """A case from whatever `chance` draws."""
    kind = chance.random()
    if kind < 0.2:
        what, content = _mutated(chance, chance.choice(seeds.sweeps()))
        if chance.random() < 0.5:
            return Case(number, what, _text(seeds.searched("sweep.yaml")), content)
        what, tree = _of_tree(chance, chance.choice(seeds.sweeps()))
        return Case(number, what, _text(seeds.searched(tree)))
    seed = chance.choice(seeds.configurations()) if kind < 0.7 else seeds.of_components(chance)
    if kind < 0.28:
        return Case(number, ("override",), _text(seed), overrides=tuple(_override(chance, seed) for _ in range(2)))
    what, content = _mutated(chance, seed)
    return Case(number, what, content)


def _override(chance: random.Random, seed: Any) -> str:
    """`path=value`, mostly with a path that leads somewhere."""
    path = ".".join(str(part) for part in chance.choice(list(_places(seed, ()))))
    value = chance.choice((*map(str, VALUES[:18]), *STRINGS, "{a: [", "[1, 2]", "*x", "&a [*a]"))
    text = f"{path}={value}" if chance.random() < 0.8 else _typo(chance, f"{path}={value}")
    return re.sub("[\0\ud800-\udfff]", "?", text)  # no argument of a command can hold these


def _mutated(chance: random.Random, seed: Any) -> tuple[tuple[str, ...], bytes]:
    what: tuple[str, ...] = ()
    tree = seed
    if chance.random() < 0.85:
        what, tree = _of_tree(chance, seed)
    content = _text(tree)
    if chance.random() < 0.3 or not what:
        mutate = chance.choice(TEXT_MUTATIONS)
        what, content = (*what, mutate.__name__.strip("_")), mutate(chance, content)
    return what, content


def _of_tree(chance: random.Random, seed: Any) -> tuple[tuple[str, ...], Any]:
    tree = {"root": copy.deepcopy(seed)}
    what = []
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        mutate = chance.choice(TREE_MUTATIONS)
        places = list(_places(tree["root"], ("root",)))
        mutate(chance, tree, chance.choice(places))
        what.append(mutate.__name__.strip("_"))
    return tuple(what), tree["root"]


class _Dumper(yaml.SafeDumper):
    """No aliases, so that equal parts are mutated alone."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Fast: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _FastDumper(_Fast):
    """The same by libyaml, which cannot write half a surrogate pair."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(tree: Any) -> bytes:
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "width": 1000}
    try:
        return yaml.dump(tree, Dumper=_FastDumper, **options).encode("utf-8")
    except UnicodeEncodeError:
        return yaml.dump(tree, Dumper=_Dumper, **options).encode("utf-8", "surrogatepass")


def _places(value: Any, path: Path) -> Iterator[Path]:
    """Where something stands, at any depth."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value[:50]):
            yield from _places(item, (*path, index))


def _at(tree: Any, path: Path) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def _put(tree: Any, path: Path, value: Any) -> None:
    _at(tree, path[:-1])[path[-1]] = value


def _delete(chance: random.Random, tree: Any, path: Path) -> None:
    if len(path) > 1:
        del _at(tree, path[:-1])[path[-1]]


def _rename(chance: random.Random, tree: Any, path: Path) -> None:
    parent = _at(tree, path[:-1])
    if not isinstance(parent, dict) or len(path) == 1:
        return
    key = chance.choice(KEYS) if chance.random() < 0.6 else _typo(chance, str(path[-1]))
    items = [(key if old == path[-1] else old, value) for old, value in parent.items()]
    parent.clear()
    parent.update(items)


def _add_key(chance: random.Random, tree: Any, path: Path) -> None:
    value = _at(tree, path)
    if isinstance(value, dict):
        value[chance.choice(KEYS)] = chance.choice((*VALUES, *STRINGS))


def _duplicate(chance: random.Random, tree: Any, path: Path) -> None:
    parent = _at(tree, path[:-1])
    if isinstance(parent, list):
        parent.extend([copy.deepcopy(_at(tree, path))] * chance.choice((1, 1, 30)))


def _replace(chance: random.Random, tree: Any, path: Path) -> None:
    _put(tree, path, copy.deepcopy(chance.choice(VALUES)))


def _restring(chance: random.Random, tree: Any, path: Path) -> None:
    _put(tree, path, chance.choice(STRINGS))


def _wrap(chance: random.Random, tree: Any, path: Path) -> None:
    value = _at(tree, path)
    for _ in range(chance.choice((1, 1, 2, 40))):
        value = [value] if chance.random() < 0.5 else {chance.choice(KEYS): value}
    _put(tree, path, value)


def _unwrap(chance: random.Random, tree: Any, path: Path) -> None:
    value = _at(tree, path)
    if isinstance(value, dict | list) and value:
        _put(tree, path, next(iter(value.values())) if isinstance(value, dict) else value[0])


def _transplant(chance: random.Random, tree: Any, path: Path) -> None:
    """Puts something of the same or another configuration in its place."""
    donor = {"root": chance.choice((tree["root"], *seeds.configurations(), *seeds.sweeps()))}
    part = copy.deepcopy(_at(donor, chance.choice(list(_places(donor["root"], ("root",))))))
    _put(tree, path, part)


def _swap(chance: random.Random, tree: Any, path: Path) -> None:
    other = chance.choice(list(_places(tree["root"], ("root",))))
    if path != other and path[: len(other)] != other and other[: len(path)] != path:
        first, second = _at(tree, path), _at(tree, other)
        _put(tree, path, second)
        _put(tree, other, first)


def _edit(chance: random.Random, tree: Any, path: Path) -> None:
    """Changes a text a little, or a number a lot."""
    value = _at(tree, path)
    if isinstance(value, str):
        _put(tree, path, _typo(chance, value))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = chance.choice(
            (-value, value * 10**6, value // 3 + 0.5 if abs(value) < 1e300 else 0.5, str(value), -value * 10**20)
        )
        _put(tree, path, number)


def _typo(chance: random.Random, text: str) -> str:
    at = chance.randrange(len(text) + 1)
    insert = chance.choice(("", "x", ".", " ", "/", "\0", "\u200b", "\t", "#", ": ", "\n", chance.choice(STRINGS)))
    return text[:at] + insert + text[at + chance.choice((0, 1, 3)) :]


TREE_MUTATIONS: tuple[Callable[[random.Random, Any, Path], None], ...] = (
    _delete,
    _rename,
    _add_key,
    _duplicate,
    _replace,
    _replace,
    _restring,
    _restring,
    _wrap,
    _unwrap,
    _transplant,
    _swap,
    _edit,
    _edit,
)


def _bytes_flipped(chance: random.Random, text: bytes) -> bytes:
    changed = bytearray(text)
    for _ in range(chance.choice((1, 3, 30))):
        if changed:
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def _cut(chance: random.Random, text: bytes) -> bytes:
    return text[: chance.randrange(len(text) + 1)]


def _line(chance: random.Random, text: bytes) -> bytes:
    """Repeats, drops, indents or moves lines, or adds a strange one."""
    lines = text.split(b"\n")
    at = chance.randrange(len(lines))
    strange = (b"\t" + lines[at], b"  " + lines[at], b"", lines[at] + b"\n" + lines[at], chance.choice(_LINES))
    lines[at] = chance.choice(strange)
    return b"\n".join(lines)


_LINES = (
    b"---",
    b"...",
    b"%YAML 9.9",
    b"%TAG ! tag:x,2000:",
    b"- - - -",
    b"? [a, b]\n: c",
    b"? {a: b}\n: c",
    b"!!python/object/apply:os.system ['touch started']",
    b"key: !!python/name:os.system",
    b"key: !unknown value",
    b"key: !!binary '\xff='",
    b"key: !!binary AAAA",
    b"key: !!timestamp 2026-99-99",
    b"key: 2026-99-99",
    b"key: !!int x",
    b"key: !!float {}",
    b"key: !!set {a, b}",
    b"key: !!omap [a: 1]",
    b"key: !!null x",
    b"key: !!bool maybe",
    b"key: !!str [a]",
    b"key: !!map [a]",
    b"<<: [1, 2]",
    b"<<: *nothing",
    b"<<: {work_dir: x, <<: {work_dir: y}}",
    b"&a a: *a",
    b"key: &k [*k]",
    b"key: &k {k: *k}",
    b'key: "\\ud800"',
    b'key: "\\x00\\a\\e"',
    b'key: "\\q"',
    b"key: |9\n  x",
    b"key: >-+\n x",
    b"key: " + b"9" * 5000,
    b"key: 0b" + b"1" * 20000,
    b"max_iter_num: 0x" + b"f" * 5000,
    b"2026-99-99: 1",
    b"!!int x: 1",
    b"key: 0o9",
    b"key: 1" + b":59" * 400,
    b"key: 1e99999",
    b"key: .nan",
    b"key: [",
    b"key: ]",
    b"key: {a",
    b"key: 'open",
    b"key: @x",
    b"key: `x`",
    b"\xef\xbb\xbfkey: x",
    b"key: \x00",
    b"key: \x85\xe2\x80\xa8x",
    b"true: 1",
    b"1: 1",
    b"null: 1",
    b"2026-01-01: 1",
    b"=: 1",
    b"!!binary AAAA: 1",
)


def _other_encoding(chance: random.Random, text: bytes) -> bytes:
    decoded = text.decode("utf-8", "replace")
    return decoded.encode(chance.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7", "latin-1")), "replace")


def _several_documents(chance: random.Random, text: bytes) -> bytes:
    return chance.choice((text + b"\n---\n" + text, b"---\n---\n" + text, text + b"\n...\n", b"", b"---", b"# nothing"))


def _json(chance: random.Random, text: bytes) -> bytes:
    return b"{" + text.replace(b"\n", b",\n") + b"}"


def _windows(chance: random.Random, text: bytes) -> bytes:
    return text.replace(b"\n", chance.choice((b"\r\n", b"\r", b"\n\n\t")))


def _deep(chance: random.Random, text: bytes) -> bytes:
    depth = chance.choice((50, 200, 1000, 3000, 20000))
    opening, inner, closing = chance.choice(((b"[", b"1", b"]"), (b"{a: ", b"1", b"}"), (b"- ", b"1", b"")))
    return text + b"\ndeep: " + b"\n" * (not closing) + opening * depth + inner + closing * depth


def _laughs(chance: random.Random, text: bytes) -> bytes:
    """Aliases of aliases: 10**n nodes."""
    lines = [b"a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    kinds = (b"[%s]", b"{%s}")
    kind = chance.choice(kinds)
    for n in range(1, chance.choice((3, 9, 9, 40))):
        parts = [b"*a%d" % (n - 1) if kind == kinds[0] else b"k%d: *a%d" % (i, n - 1) for i in range(10)]
        lines.append(b"a%d: &a%d " % (n, n) + kind % b", ".join(parts))
    return b"\n".join(lines) + b"\n" + text


def _merges(chance: random.Random, text: bytes) -> bytes:
    """Merge keys of merge keys."""
    lines = [b"m0: &m0 {k: 1}"]
    for n in range(1, chance.choice((3, 12, 30))):
        lines.append(b"m%d: &m%d {<<: [%s], k%d: 1}" % (n, n, b", ".join([b"*m%d" % (n - 1)] * 10), n))
    return b"\n".join(lines) + b"\n" + text


def _binary(chance: random.Random, text: bytes) -> bytes:
    head = chance.choice((b"", b"\x80\x04\x95", b"PK\x03\x04", b"\x1f\x8b\x08", b"\x89PNG\r\n\x1a\n"))
    return head + chance.randbytes(chance.choice((1, 50, 5000)))


TEXT_MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _bytes_flipped,
    _bytes_flipped,
    _cut,
    _line,
    _line,
    _line,
    _line,
    _line,
    _other_encoding,
    _several_documents,
    _json,
    _windows,
    _deep,
    _laughs,
    _merges,
    _binary,
)
