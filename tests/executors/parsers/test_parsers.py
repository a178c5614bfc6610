"""Output parsers: what of a model's text is kept."""

import pytest

from raysandbox.executors.parsers.base import OUTPUT_PARSERS


def parse(text):
    return OUTPUT_PARSERS.get("parse_output")().parse(text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\n 42. \n", "42."),
        ("<think>hmm\n\nwell</think>\n\n42", "42"),
        (" <think></think>42", "42"),
        ("the template opened it</think> 42", "42"),
        ("a <think>b</think> c", "a <think>b</think> c"),
        ("```\nx\n```", "```\nx\n```"),
    ],
)
def test_the_answer_without_what_surrounds_it(text, answer):
    assert parse(text) == answer


@pytest.mark.parametrize(
    ("text", "reason"),
    [(" \n", "empty"), ("<think>hmm</think> ", "empty"), ("<think>hmm", "inside its <think> block"), ("", "empty")],
)
def test_no_answer(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse(text)
