import re
import unicodedata

import ftfy
import numpy as np
import pyarrow as pa
import pytest
from ftfy.badness import BADNESS_RE, MOJIBAKE_CATEGORIES, is_bad
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raysandbox.ops import span_kernels, tables
from raysandbox.ops.batch import Batch
from raysandbox.ops.mappers import fix_unicode_mapper
from raysandbox.ops.mappers.fix_unicode_mapper import FixUnicodeMapper

FORMS = ["NFC", "NFKC", "NFD", "NFKD"]
# Signs that ftfy's rules name, what it replaces, combining marks, and the ends of all those ranges.
SIGNS = sorted({*"".join(MOJIBAKE_CATEGORIES.values()), *(c for c in BADNESS_RE.pattern if not c.isascii())})
SIGNS += [
    *"“”‘’ﬁﬂŉǆĳ\u0301\u0308\u093c\u1161\u11a8\u3099ｶﾞ，！＆；＜ｌｔ\u3000\ufeff\u2028\x1b\x07\x00\r한각é각",
    "&",
    ";",
    "<",
]
SIGNS += ["&amp;", "&#233;", "&lt;", "\x1b[31m", "\r\n", "&", "lt;", "\n", " ", "a", "Z", "?", ".", "[", "3", "m"]
MOJIBAKE = ["voilÃ\xa0", "Ã©", "â€œ", "â€™", "Ð¿Ñ€Ð¸", "Ã¯Â»Â¿", "æ—¥æœ¬", "l’Ã©tÃ©", "рџ�", "Р”Р°", "ВЂ"]


def run(texts, form="NFC"):
    mapper = FixUnicodeMapper(normalization=form)
    return mapper.process(Batch(pa.table({"text": pa.array(texts, pa.large_string())})), None).texts


TEXT = st.lists(st.sampled_from(SIGNS) | st.sampled_from(MOJIBAKE) | st.characters(codec="utf-8"), max_size=14).map(
    "".join
)


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXT, max_size=6), st.sampled_from(FORMS))
@example(["<b>&amp;\n&amp;", "＜b> &amp;", "＆amp;", "&\x00amp;", "&ａmp；\n&lt;b&gt;\n&lt;"], "NFC")
def test_equals_ftfy(texts, form):
    assert run(texts, form) == [ftfy.fix_text(text, normalization=form) for text in texts]


def test_lines_longer_than_a_segment(monkeypatch):
    monkeypatch.setattr(fix_unicode_mapper, "_MAX_SEGMENT", 10)
    texts = ["e" * 9 + "\u0301", "e" * 10 + "\u0301", "é" * 9 + "\n“”", "12345678&amp;x", "<" + "-" * 12 + "&amp;"]
    config = ftfy.TextFixerConfig(max_decode_length=10, explain=False)
    assert run(texts) == [ftfy.fix_text(text, config) for text in texts]


def test_default_form_and_spelling():
    assert FixUnicodeMapper(normalization="nfkc").normalization == "NFKC"
    assert FixUnicodeMapper(normalization="").normalization is None
    with pytest.raises(ValueError, match="NFKD"):
        FixUnicodeMapper(normalization="NFX")


def test_unsuspected_neighbours_are_never_mojibake():
    """Exhaustively over pairs: ftfy finds nothing where the classes see nothing."""
    classes = fix_unicode_mapper._mojibake_classes()
    quiet = [chr(code) for code in np.flatnonzero(classes == span_kernels.WEAK)]
    assert len(quiet) > 150
    pairs = "".join(first + second for first in quiet for second in quiet)
    assert not is_bad(pairs)
    strong = [
        chr(code) for code in np.flatnonzero(classes == span_kernels.STRONG) if code >= 0xA0
    ]  # without C1 controls
    for left in ["", " ", "a", "Z", "1", "."]:
        for right in ["", " ", "a", "Z", "1", "."]:
            assert not [sign for sign in strong if is_bad(left + sign + right)]


def test_all_signs_of_the_rules_have_a_class():
    classes = fix_unicode_mapper._mojibake_classes()
    named = re.compile("[" + "".join(MOJIBAKE_CATEGORIES.values()).replace("\x80-\x9f", "") + "]")
    missing = [chr(code) for code in range(0x80, 0x3000) if named.match(chr(code)) and not classes[code]]
    assert not missing


def test_every_code_point_alone():
    texts = [chr(code) for code in range(tables.ASSIGNED) if not 0xD800 <= code < 0xE000]
    texts = ["".join(f"x{char}y\n" for char in texts[i : i + 64]) for i in range(0, len(texts), 64)]
    sample = [text for text in texts if any(char.isprintable() for char in text)][::12]
    assert run(sample) == [ftfy.fix_text(text) for text in sample]


@pytest.mark.parametrize("form", FORMS)
def test_beyond_the_assigned_planes_nothing_composes(form):
    beyond = "".join(map(chr, range(tables.ASSIGNED, tables.CODE_POINTS, 97))) + "".join(
        map(chr, range(0xE0000, 0xE0200))
    )
    assert unicodedata.is_normalized(form, beyond)
    assert not any(map(unicodedata.combining, beyond))
