"""The rows that the tests of this folder compare on.

They come from `bench_text.jsonl.zst` in the folder that RAYSANDBOX_BENCH_DATA names, else they are
made on the spot from the standard library's texts and planted edge cases.
"""

import io
import os
import random
import sys
from pathlib import Path

import orjson
import pytest

ROWS = 2000

EDGE_CASES = [
    "",
    " ",
    "\n",
    " \t\n ",
    "a",
    "é",
    "\u200b",
    "\u3000\u3000",
    "😀",
    "👩‍👩‍👧‍👦 family 🇩🇪 flag 👍🏽 skin",
    "مرحبا بالعالم، هذا نص عربي.",
    "שלום עולם",
    "नमस्ते दुनिया, यह एक वाक्य है।",
    "สวัสดีชาวโลก",
    "안녕하세요 세계",
    "こんにちは、世界！ﾊﾝｶｸ",
    "你好，世界！（全角）＜＆ｌｔ；＞",
    "zero\u200bwidth\u200djoiner\ufeffbom\u2060",
    "voilÃ  le travail, Ã©tÃ©, â€œquotesâ€\x9d and Ãƒ",
    "L&#39;&amp;&lt;br&gt;&EACUTE; &amp;amp; &notanentity;",
    "<b>&amp;</b>\n&amp; after markup",
    "ﬁne ﬂow ŉ ǆ “curly” ‘quotes’ ʼn",
    "\x00\x01\x07bell\x1b[31mred\x1b[0m\x7f\x85next\x80",
    "one\r\ntwo\rthree\u2028four\u2029five\x0bsix\x0cseven\x1ceight",
    "e\u0301 a\u0308 \u1112\u1161\u11ab 한",
    "İstanbul ΣΊΣΥΦΟΣ ΑΣ ΣΑΣ ß Ǆ",
    "œuvre Œ. Ђорђе вЂ В ГўВЂВa Â Ã Ã¡ a Â b",
    "х" * 50 + "°" + "Г°Р" + "ВÂ°" + "ØŸØ®",
    "x" * 30000,
    "repeat me please " * 400,
    "a b c d e f g h i j " * 20,
    "line\n" * 300,
    "Mail john.doe+tag@example.com, a@b.c, @x.y, x@y, a@@b.cd or ünï@example.org.",
    "See https://example.com/a_(b)_c?d=e#f, www.example.org/path, ftp://x.y/z. and bit.ly/abc!",
    "http://::::::::: http://( www1.a www1234.b std::vector foo:bar f:g Https://A/ example.museum/x a.b.co/",
    "(http://en.wikipedia.org/wiki/Foo_(bar)_(baz)) <http://a.b/c> 见http://例子.测试/路径。 ｈttp://x",
    "a.b.c.d/ e\u212a.\u017f\u0131/x WWW.EXAMPLE.COM WwW12.x «http://a.b» “http://a.b”",
    "!!! ??? ... --- 123 456",
    "tab\tseparated\tvalues\tπ Πάντα İ",
]


def _from_bench(folder):
    import zstandard

    with (Path(folder) / "bench_text.jsonl.zst").open("rb") as file:
        lines = io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file))
        return [orjson.loads(next(lines))["text"] for _ in range(ROWS)]


def _made():
    chance = random.Random(0)
    library = Path(os.__file__).parent
    sources = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(library.glob("*.py"))]
    data = sorted((library / "test" / "cjkencodings").glob("*-utf8.txt"))
    sources += [path.read_text(encoding="utf-8") for path in data]
    blocks = [(0x20, 0x7F), (0xA0, 0x250), (0x370, 0x530), (0x590, 0x700), (0x900, 0xA00), (0xE00, 0xE5C)]
    blocks += [(0x1E00, 0x2300), (0x2500, 0x2700), (0x3000, 0x3400), (0x4E00, 0x4F00), (0xAC00, 0xAD00)]
    blocks += [(0xFB00, 0xFB10), (0xFF00, 0xFFF0), (0x1F300, 0x1F700), (0x20, 0x30), (0x09, 0x0E)]
    rows = list(EDGE_CASES)
    while len(rows) < ROWS:
        kind = chance.random()
        if kind < 0.6:
            source = chance.choice(sources)
            start = chance.randrange(len(source) or 1)
            rows.append(source[start : start + chance.randrange(3000)])
        elif kind < 0.9:
            used = chance.sample(blocks, 3)
            rows.append("".join(chr(chance.randrange(*chance.choice(used))) for _ in range(chance.randrange(300))))
        else:
            rows.append(chance.choice(["", " ", "\n"]).join(chance.choices(EDGE_CASES[3:28], k=4)))
    return rows


@pytest.fixture(scope="session")
def texts(request):
    folder = os.environ.get("RAYSANDBOX_BENCH_DATA")
    rows = _from_bench(folder) if folder else _made()
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        source = folder or f"the standard library of Python {sys.version_info.major}.{sys.version_info.minor}"
        print(f"\n{len(rows)} rows from {source}", file=sys.stderr)
    return rows
