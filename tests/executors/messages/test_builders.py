"""Message builders: what a model is asked for a row."""

import pytest

from raysandbox.core.errors import UnknownNameError
from raysandbox.core.registry import register
from raysandbox.executors.base import INFERENCES
from raysandbox.executors.messages.base import MESSAGE_BUILDERS, MessageBuilder


def build(name, row, **kwargs):
    return MESSAGE_BUILDERS.get(name)(**kwargs).build(row)


def test_the_question_after_its_instructions():
    row = {"system": "be brief", "query": " why? ", "response": "because"}
    question = {"role": "user", "content": " why? "}
    assert build("build_messages", row) == [{"role": "system", "content": "be brief"}, question]
    assert build("build_messages", {**row, "system": None}) == [question]
    assert build("build_messages", {**row, "system": " "}) == [question]
    assert build("build_messages", {"q": " why? "}, query_key="q") == [question]


def test_mathematics():
    system, user = build("build_messages_for_math_qa", {"system": "be brief", "query": "1 + 1?"})
    assert system == {"role": "system", "content": "be brief"}
    assert user["role"] == "user"
    assert "step by step" in user["content"]
    assert "\\boxed{" in user["content"]
    assert user["content"].endswith("\n\n1 + 1?")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "no 'query'"),
        ({"query": ""}, "'query' is empty"),
        ({"query": None}, "'query' is empty"),
        ({"query": 3}, "'query' is of type int, not text"),
        ({"query": "a", "system": ["b"]}, "'system' is of type list, not text"),
    ],
)
@pytest.mark.parametrize("name", MESSAGE_BUILDERS.names())
def test_rows_that_cannot_be_asked(name, row, reason):
    with pytest.raises(ValueError, match=reason):
        build(name, row)


def test_a_builder_of_the_users_own(monkeypatch):
    monkeypatch.setattr(MESSAGE_BUILDERS, "_classes", dict(MESSAGE_BUILDERS._classes))

    @register("translate")
    class Translate(MessageBuilder):
        """Asks for a translation."""

        language: str

        def build(self, row):
            return [{"role": "user", "content": f"{row[self.query_key]} in {self.language}?"}]

    example = {**INFERENCES.get("api").example, "build_messages_func": "translate"}
    made = INFERENCES.get("api")(**example, func_kwargs={"language": "French", "query_key": "text"})
    assert made.func_kwargs == {"language": "French", "query_key": "text"}
    with pytest.raises(ValueError, match="language: Field required"):
        INFERENCES.get("api")(**example, func_kwargs={})
    with pytest.raises(UnknownNameError, match="did you mean 'translate'"):
        MESSAGE_BUILDERS.get("translat")


@pytest.mark.parametrize("name", MESSAGE_BUILDERS.names())
def test_examples(name):
    cls = MESSAGE_BUILDERS.get(name)
    assert cls(**cls.example)
    assert cls.summary()
