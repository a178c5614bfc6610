import pyarrow as pa
import pytest

from raysandbox.ops.base import OPERATORS
from raysandbox.ops.batch import Batch


@pytest.fixture(scope="session")
def mapped():
    """Applies a mapper to texts and returns those that it makes of them."""

    def run(name, texts, **parameters):
        operator = OPERATORS.get(name)(**parameters)
        batch = operator.process(Batch(pa.table({"text": pa.array(texts, pa.large_string())})), operator.load())
        assert batch.texts == batch.table.column("text").to_pylist()
        return batch.texts

    return run
