import pytest

from raysandbox.evaluators._java_text import java_lower


# What `toLowerCase(Locale.ROOT)` of Java 17 returns.
@pytest.mark.parametrize(
    ("text", "lowered"),
    [
        ("Plain ASCII", "plain ascii"),
        ("İI", "i̇i"),
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
        ("ΣΑΣ Σ ΑΣ, ΣΣ", "σας σ ας, σς"),
        ("Α1Σ", "α1ς"),
        ("ΑΣ1", "ας1"),
        ("1Σ", "1σ"),
        ("ΑΣ-Α ΑΣ'Α ΑΣ.Α", "ασ-α ασ'α ασ.α"),
        ("ΑΣ--Α ΑΣ,Α", "ας--α ας,α"),
        ("Α-Σ", "α-ς"),
        ("ΑΣ\u0301", "ας\u0301"),
        ("中ΑΣ中Α", "中ας中α"),
        ("ς Σς", "ς σς"),
    ],
)
def test_lower_casing_is_javas(text, lowered):
    assert java_lower(text) == lowered
