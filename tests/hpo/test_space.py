from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from raysandbox.config.documents import Document
from raysandbox.core.errors import Problem
from raysandbox.hpo.parameters import algorithm_problems, read_parameters
from raysandbox.hpo.space import KINDS, Parameter, SearchSpace

SAMPLES = 1000
LEAST_P = 0.01  # of a test with fixed draws; wrong laws have p-values below 1e-6


def read(form: Any, name: str = "op.x") -> tuple[Parameter | None, list[Problem]]:
    """A parameter as a sweep file gives it."""
    document = Document({"parameters": {name: form}}, "sweep.yaml", {("parameters", name): 3})
    found, problems = read_parameters(document.data["parameters"], document.problem)
    return (found[name][0] if name in found else None), problems


def parameter(form: Any) -> Parameter:
    found, problems = read(form)
    assert found is not None, problems
    return found


def samples(of: Parameter, count: int = SAMPLES) -> list[Any]:
    space = SearchSpace((of,))
    return [space.random_point(7, index)[of.name] for index in range(count)]


def quantised(law: Any, q: float) -> Callable[[float], float]:
    """Probability of a multiple of q when a value of the law is rounded to it."""
    return lambda value: float(law.cdf(value + q / 2) - law.cdf(value - q / 2))


# The laws as wandb's documentation states them, written with scipy's.
CONTINUOUS = {
    "uniform": ({"min": -1.0, "max": 3.0}, stats.uniform(-1, 4)),
    "log_uniform": ({"distribution": "log_uniform", "min": -3, "max": 2}, stats.loguniform(math.exp(-3), math.exp(2))),
    "log_uniform_values": ({"distribution": "log_uniform_values", "min": 1e-4, "max": 1}, stats.loguniform(1e-4, 1)),
    # log(1/X) is uniform between min and max
    "inv_log_uniform": (
        {"distribution": "inv_log_uniform", "min": 1, "max": 4},
        stats.loguniform(math.exp(-4), math.exp(-1)),
    ),
    # log(1/X) is uniform between log(1/max) and log(1/min)
    "inv_log_uniform_values": (
        {"distribution": "inv_log_uniform_values", "min": 0.1, "max": 10},
        stats.loguniform(0.1, 10),
    ),
    "normal": ({"distribution": "normal"}, stats.norm(0, 1)),
    "log_normal": ({"distribution": "log_normal", "mu": 1, "sigma": 0.5}, stats.lognorm(0.5, scale=math.e)),
    "beta": ({"distribution": "beta", "a": 2, "b": 5}, stats.beta(2, 5)),
}
QUANTISED = {
    "q_uniform": ({"distribution": "q_uniform", "min": 0, "max": 10, "q": 2.5}, stats.uniform(0, 10), 2.5),
    "q_log_uniform": (
        {"distribution": "q_log_uniform", "min": 0, "max": 4},
        stats.loguniform(1, math.exp(4)),
        1,
    ),
    "q_log_uniform_values": (
        {"distribution": "q_log_uniform_values", "min": 1, "max": 1000, "q": 10},
        stats.loguniform(1, 1000),
        10,
    ),
    "q_normal": ({"distribution": "q_normal", "mu": 3, "sigma": 2, "q": 0.5}, stats.norm(3, 2), 0.5),
    "q_log_normal": ({"distribution": "q_log_normal", "mu": 2}, stats.lognorm(1, scale=math.exp(2)), 1),
    "q_beta": ({"distribution": "q_beta", "a": 2, "b": 5, "q": 0.1}, stats.beta(2, 5), 0.1),
}
DISCRETE = {
    "int_uniform": ({"min": 1, "max": 6}, {value: 1 / 6 for value in range(1, 7)}),
    "categorical": ({"values": ["a", "b", "c"]}, {value: 1 / 3 for value in "abc"}),
    "categorical with probabilities": (
        {"values": ["a", "b", "c"], "probabilities": [0.6, 0.4, 0.0]},
        {"a": 0.6, "b": 0.4, "c": 0.0},
    ),
    "constant": ({"value": "x"}, {"x": 1.0}),
}


def chi_square(counts: Counter[Any], expected: dict[Any, float]) -> float:
    """P-value of counts against probabilities; values that are expected less than five times are put together."""
    common = [value for value, share in expected.items() if share * SAMPLES >= 5]
    seen = [counts[value] for value in common]
    wanted = [expected[value] * SAMPLES for value in common]
    rest = SAMPLES - sum(wanted)
    if rest > 1e-6 * SAMPLES:
        seen, wanted = [*seen, SAMPLES - sum(seen)], [*wanted, rest]
    assert sum(seen) == SAMPLES, "values that cannot be"
    return 1.0 if len(seen) == 1 else float(stats.chisquare(seen, np.array(wanted) * SAMPLES / sum(wanted)).pvalue)


def test_every_kind_is_compared_with_its_law() -> None:
    assert {name.removesuffix(" with probabilities") for name in {**CONTINUOUS, **QUANTISED, **DISCRETE}} == {*KINDS}


@pytest.mark.parametrize("kind", CONTINUOUS)
def test_samples_follow_a_continuous_law(kind: str) -> None:
    form, law = CONTINUOUS[kind]
    found = parameter(form)
    assert found.kind == kind
    assert stats.kstest(samples(found), law.cdf).pvalue > LEAST_P


@pytest.mark.parametrize("kind", QUANTISED)
def test_samples_follow_a_quantised_law(kind: str) -> None:
    form, law, q = QUANTISED[kind]
    found = parameter(form)
    drawn = samples(found)
    whole = isinstance(form.get("q", 1), int)
    assert all(type(value) is (int if whole else float) for value in drawn)
    steps = Counter(round(value / q) for value in drawn)
    assert all(math.isclose(value, round(value / q) * q) for value in drawn)
    share = quantised(law, q)
    expected = {step: share(step * q) for step in range(-50, 2000)}
    assert chi_square(steps, expected) > LEAST_P


@pytest.mark.parametrize("name", DISCRETE)
def test_samples_follow_a_discrete_law(name: str) -> None:
    form, expected = DISCRETE[name]
    found = parameter(form)
    assert found.kind == name.split()[0]
    assert chi_square(Counter(samples(found)), expected) > LEAST_P


def test_the_comparison_finds_a_wrong_law() -> None:
    drawn = samples(parameter({"distribution": "log_uniform_values", "min": 0.1, "max": 10}))
    assert stats.kstest(drawn, stats.uniform(0.1, 9.9).cdf).pvalue < 1e-6
    loaded = Counter(samples(parameter({"values": ["a", "b", "c"], "probabilities": [0.5, 0.25, 0.25]})))
    assert chi_square(loaded, {value: 1 / 3 for value in "abc"}) < 1e-6


ALL_FORMS = [form for form, *_ in [*CONTINUOUS.values(), *QUANTISED.values(), *DISCRETE.values()]]


@pytest.mark.parametrize("form", ALL_FORMS, ids=str)
def test_quantiles_are_the_inverse_and_the_form_reads_back(form: dict[str, Any]) -> None:
    found = parameter(form)
    again = parameter(found.to_json())
    previous: Any = None
    for step in range(1, 200):
        value = found.at(step / 200)
        assert again.at(step / 200) == value
        assert found.contains(value)
        back = found.at(found.quantile(value))
        assert back == value or math.isclose(back, value, rel_tol=1e-9, abs_tol=1e-12)
        if found.kind not in ("categorical", "constant"):
            assert previous is None or previous <= value, "a quantile function does not fall"
            previous = value


@given(u=st.floats(0, 1))
def test_values_stay_between_their_bounds(u: float) -> None:
    for kind in ("uniform", "log_uniform_values", "inv_log_uniform_values"):
        found = Parameter("x", kind, low=0.1, high=0.7)
        assert 0.1 <= found.at(u) <= 0.7
    assert 1 <= Parameter("x", "int_uniform", low=1, high=3).at(u) <= 3
    assert math.isfinite(Parameter("x", "normal").at(u))
    assert Parameter("x", "categorical", values=(1, 2), probabilities=(1.0, 0.0)).at(u) == 1


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ({"min": 0.0, "max": 1.0}, 1.5),
        ({"min": 1, "max": 3}, 2.5),
        ({"min": 1, "max": 3}, True),
        ({"values": [1, 2]}, 3),
        ({"values": [1, 2]}, True),
        ({"value": 1}, 2),
        ({"distribution": "q_uniform", "min": 0, "max": 10, "q": 5}, 3),
        ({"distribution": "log_normal"}, -1.0),
        ({"distribution": "normal"}, "high"),
        ({"distribution": "beta"}, math.nan),
    ],
)
def test_what_lies_outside(form: dict[str, Any], value: Any) -> None:
    assert not parameter(form).contains(value)


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ({"value": None}, "constant"),
        ({"values": [1]}, "categorical"),
        ({"min": 1, "max": 2}, "int_uniform"),
        ({"min": 1, "max": 2.0}, "uniform"),
        ({"min": 0.5, "max": 2}, "uniform"),
        ({"distribution": "uniform", "min": 1, "max": 2}, "uniform"),
        (
            {"distribution": "categorical_w_probabilities", "values": [1, 2], "probabilities": [0.5, 0.5]},
            "categorical",
        ),
    ],
)
def test_distributions_are_inferred_as_wandb_does(form: dict[str, Any], kind: str) -> None:
    assert parameter(form).kind == kind


def test_defaults_are_those_of_wandb() -> None:
    normal = parameter({"distribution": "q_normal"})
    assert (normal.mu, normal.sigma, normal.q) == (0, 1, 1)
    beta = parameter({"distribution": "beta"})
    assert (beta.a, beta.b) == (1, 1)
    assert isinstance(parameter({"distribution": "q_log_uniform_values", "min": 1, "max": 9}).at(0.5), int)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (3, "should be a mapping (write op.x: {value: 3} for a fixed value)"),
        ({}, "no distribution follows from nothing"),
        ({"min": 1}, "no distribution follows from min"),
        ({"distribution": "uniforn", "min": 1, "max": 2}, "unknown distribution 'uniforn' (did you mean 'uniform'?)"),
        ({"distribution": "uniform", "min": 1}, "max is missing"),
        ({"mim": 1, "max": 2}, "unknown key 'mim' (did you mean 'min'?)"),
        ({"min": 2, "max": 1}, "min 2 is not less than max 1"),
        ({"min": 1, "max": 1}, "write value: … for a fixed value"),
        ({"min": "1", "max": 2}, "should be a number, not '1'"),
        ({"min": True, "max": 2.0}, "should be a number, not True"),
        ({"min": 0.0, "max": math.inf}, "should be a number, not inf"),
        ({"distribution": "int_uniform", "min": 0.5, "max": 2}, "int_uniform needs whole numbers, not 0.5"),
        ({"distribution": "log_uniform_values", "min": 0, "max": 2}, "needs values greater than 0, not 0"),
        ({"distribution": "log_uniform", "min": 1, "max": 2048}, "min and max are exponents of e"),
        ({"distribution": "q_uniform", "min": 0, "max": 2, "q": 0}, "should be greater than 0, not 0"),
        ({"distribution": "uniform", "min": 0, "max": 2, "q": 1}, "uniform has no 'q' (it has: min, max)"),
        ({"distribution": "normal", "min": 0, "max": 2}, "normal has no 'min' (it has: mu, sigma)"),
        ({"distribution": "normal", "sigma": 0}, "should be greater than 0, not 0"),
        ({"distribution": "beta", "a": 0}, "should be greater than 0"),
        ({"values": []}, "should be a list of at least one value"),
        ({"values": 3}, "should be a list of at least one value"),
        ({"values": [1, 2], "probabilities": [1]}, "should be a list of 2 numbers, one per value"),
        ({"values": [1, 2], "probabilities": [0.5, 0.6]}, "sum to 1, not 1.1"),
        ({"values": [1, 2], "probabilities": [1.5, -0.5]}, "should be at least 0"),
        ({"distribution": "categorical_w_probabilities", "values": [1]}, "needs probabilities"),
        ({"parameters": {"a": {"value": 1}}, "min": 1}, "has `parameters` and other keys"),
    ],
)
def test_odd_parameters_have_their_message(form: Any, message: str) -> None:
    found, problems = read(form)
    assert found is None
    assert len(problems) == 1
    assert message in str(problems[0])
    assert problems[0].line == 3
    assert problems[0].path.startswith("parameters.op.x")


def test_odd_but_allowed_parameters_are_warned_of() -> None:
    _, twice = read({"values": [1, 2, 1]})
    _, beyond = read({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.6})
    assert [p.severity for p in (*twice, *beyond)] == ["warning", "warning"]
    assert "given more than once: 1" in str(twice[0])
    assert "rounded to multiples of 0.6, as wandb does: from 0 to 1.2" in str(beyond[0])
    assert read({"values": [1, True, 1.5]})[1] == []


def test_nested_parameters_have_dotted_names() -> None:
    document = Document(None, "sweep.yaml")
    raw = {"optimizer": {"parameters": {"lr": {"min": 0.0, "max": 1.0}, "sgd": {"parameters": {"m": {"value": 1}}}}}}
    found, problems = read_parameters(raw, document.problem)
    assert not problems
    assert {name: where for name, (_, where) in found.items()} == {
        "optimizer.lr": ("parameters", "optimizer", "parameters", "lr"),
        "optimizer.sgd.m": ("parameters", "optimizer", "parameters", "sgd", "parameters", "m"),
    }
    _, problems = read_parameters({**raw, "optimizer.lr": {"value": 3}}, document.problem)
    assert "'optimizer.lr' is given twice, nested and dotted" in str(problems[0])


def test_a_point_depends_on_seed_and_number_only() -> None:
    both = SearchSpace((Parameter("a", "uniform", low=0, high=1), Parameter("b", "uniform", low=0, high=1)))
    point = both.random_point(1, 5)
    assert point == both.random_point(1, 5)
    assert point != both.random_point(2, 5)
    assert point != both.random_point(1, 6)
    assert point["a"] != point["b"]
    assert SearchSpace(both.parameters[1:]).random_point(1, 5)["b"] == point["b"]
    assert point == {"a": 0.3392905119681991, "b": 0.7123899592990797}, "the same on every machine"


def test_a_grid_goes_through_every_point_once() -> None:
    space = SearchSpace(
        (
            parameter({"values": ["x", "y"]}),
            Parameter("q", "q_uniform", low=0, high=1, q=0.25),
            Parameter("i", "int_uniform", low=1, high=3),
            Parameter("c", "constant", values=(None,)),
        )
    )
    assert space.grid_size() == 2 * 5 * 3
    points = [space.grid_point(index) for index in range(space.grid_size())]
    assert len({repr(point) for point in points}) == len(points)
    assert points[0] == {"op.x": "x", "q": 0.0, "i": 1, "c": None}
    assert points[1] == {"op.x": "x", "q": 0.0, "i": 2, "c": None}
    assert points[3] == {"op.x": "x", "q": 0.25, "i": 1, "c": None}
    assert list(points[0]) == ["op.x", "q", "i", "c"]
    assert space.parameters[1].choices() == [0.0, 0.25, 0.5, 0.75, 1.0]
    for index in (-1, 30):
        with pytest.raises(IndexError):
            space.grid_point(index)
    huge = SearchSpace((Parameter("i", "int_uniform", low=0, high=10**12),))
    assert huge.grid_point(10**11) == {"i": 10**11}
    with pytest.raises(ValueError, match="x: normal cannot be enumerated"):
        SearchSpace((Parameter("x", "normal"),)).grid_size()
    assert Parameter("x", "normal").choices() is None


@pytest.mark.parametrize(
    ("method", "alg", "scheduler", "form", "message"),
    [
        ("grid", None, None, {"min": 0.0, "max": 1.0}, "method grid cannot enumerate uniform (write values"),
        ("grid", None, None, {"distribution": "q_normal"}, "method grid cannot enumerate q_normal"),
        ("bayes", "optuna", None, {"values": [1, 2], "probabilities": [0.5, 0.5]}, "bayes would ignore probabilities"),
        ("bayes", "bayesopt", None, {"values": [1, 2]}, "bayesopt cannot choose among values"),
        ("bayes", "bohb", None, {"min": 0.0, "max": 1.0}, "bohb works with scheduler: hb_bohb only"),
        ("random", None, "hb_bohb", {"min": 0.0, "max": 1.0}, "hb_bohb works with search_alg: bohb only"),
        ("random", None, "pb2", {"values": [1, 2]}, "pb2 cannot choose among values"),
        ("random", None, "pb2", {"distribution": "normal"}, "pb2 needs bounds, which normal has none"),
    ],
)
def test_what_an_algorithm_cannot_do(
    method: str, alg: str | None, scheduler: str | None, form: dict[str, Any], message: str
) -> None:
    document = Document(None, "sweep.yaml")
    found = {"x": (parameter(form), ("parameters", "x"))}
    given = [None if name is None else {"type": name} for name in (alg, scheduler)]
    problems = list(algorithm_problems(method, given[0], given[1], found, document.problem))
    assert [message in str(problem) for problem in problems] == [True], problems


def test_the_space_in_the_form_of_a_sweep() -> None:
    space = SearchSpace((Parameter("a", "uniform", low=0, high=4), Parameter("c", "categorical", values=("x", "y"))))
    assert space.to_json() == {"a": {"distribution": "uniform", "min": 0, "max": 4}, "c": {"values": ["x", "y"]}}
