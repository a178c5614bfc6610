"""The tokenization switch of Data-Juicer's word operators."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

__all__ = ["Tokenization"]


def _refuse(tokenization: bool) -> bool:
    if tokenization:
        raise ValueError("splitting by a tokenizer's model is not in this version of raysandbox; set it to false")
    return tokenization


Tokenization = Annotated[bool, AfterValidator(_refuse)]
