"""Java's lower-casing, where it differs from Python's: the last sigma of a word.

Both turn Σ into ς at the end of a word and into σ elsewhere, but they disagree about what a
word is. Python follows Unicode's Final_Sigma; `java.lang.String.toLowerCase` asks its word
`BreakIterator`, for which digits are inside a word, and hyphens, dots and apostrophes between two
letters. The classes below were found by asking Java 17 about every character of the basic plane;
those beyond it (emoji, mathematical letters) end a word here, and nearly always there.

Letters younger than the Java that a model is compared with (Unicode 13 for Java 17) are lower-cased
here and not there: 40 letters of Glagolitic, Latin Extended-D and Vithkuqi.
"""

from __future__ import annotations

import regex

__all__ = ["java_lower"]

_UNBROKEN = r"\u3005\u3041-\u3094\u3099-\u309E\u30A1-\u30FE\u4E00-\u9FA5\uF900-\uFA2D\U00010000-\U0010FFFF"
_BASE_LETTER = rf"[\p{{L}}--[{_UNBROKEN}]]"
_LETTER = rf"[[\p{{L}}\p{{M}}\p{{Cf}}]--[\u00AD{_UNBROKEN}]]"
_INVISIBLE = r"[\p{Cf}--[\u00AD]]*"
_DIGIT = r"[\p{N}--[\U00010000-\U0010FFFF]]"
_BETWEEN_LETTERS = r"[\p{Pd}\p{Pc}\u00AD\u2027\"'.]"
_BETWEEN_DIGITS = r"[\"',.\u066B]"
_WORD = regex.compile(
    rf"(?:{_LETTER}|{_DIGIT}"
    rf"|(?<={_LETTER}){_BETWEEN_LETTERS}(?={_INVISIBLE}{_BASE_LETTER})"
    rf"|(?<={_DIGIT}){_BETWEEN_DIGITS}(?={_DIGIT}))+",
    regex.VERSION1,
)
_CASED = regex.compile(
    r"[\p{Lu}\p{Ll}\p{Lt}\u02B0-\u02B8\u02C0\u02C1\u02E0-\u02E4\u0345\u037A\u1D2C-\u1D61\u2160-\u217F\u24B6-\u24E9]",
    regex.VERSION1,
)
_CAPITAL, _MEDIAL, _FINAL = "Σ", "σ", "ς"


def java_lower(text: str) -> str:
    """Lower-cases like `String.toLowerCase(Locale.ROOT)` of Java."""
    if _CAPITAL in text:
        # A space ends a word for Java as well, so that only the parts with a sigma are searched.
        text = " ".join(_resolve(part) if _CAPITAL in part else part for part in text.split(" "))
    return text.lower()


def _resolve(text: str) -> str:
    """Replaces every capital sigma; one that is its word's only cased letter is not final."""
    return _WORD.sub(lambda word: _resolve_last(word[0]), text).replace(_CAPITAL, _MEDIAL)


def _resolve_last(word: str) -> str:
    cased = [match.start() for match in _CASED.finditer(word)]
    if len(cased) < 2 or word[cased[-1]] != _CAPITAL:
        return word
    return word[: cased[-1]] + _FINAL + word[cased[-1] + 1 :]
