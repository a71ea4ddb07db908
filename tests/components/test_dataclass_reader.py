"""Dataclasses from values, strictly; every mistake is told by its key."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from components.dataclass_reader import ByName, read_dataclass
from components.errors import ConfigError
from pipelines.config.params import Params, load_params

ROOT = Path(__file__).parents[2]
PRESETS = sorted((ROOT / "presets").glob("*.yaml"))


@dataclass(frozen=True)
class Circle:
    name: Literal["circle"]
    radius: float


@dataclass(frozen=True)
class Square:
    name: Literal["square"]
    side: int = 1

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ValueError("side must be at least 1")


@dataclass(frozen=True)
class Drawing:
    shape: Annotated[Circle | Square, ByName({"circle": Circle, "square": Square}, default=Circle)]
    sizes: tuple[int, ...] = ()
    shapes: dict[str, Square] = field(default_factory=dict)
    title: str | None = None
    scale: Literal["auto", 1, True] = "auto"
    extra: Any = None


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_there_and_back(path):
    params = load_params(path)
    assert read_dataclass(Params, json.loads(json.dumps(asdict(params)))) == params


def test_a_union_takes_the_kind_that_fits():
    assert read_dataclass(Drawing, {"shape": {"name": "square", "side": 3}}).shape == Square("square", 3)
    circle = read_dataclass(Drawing, {"shape": {"name": "circle", "radius": 2}}).shape
    assert circle == Circle("circle", 2.0)
    assert isinstance(circle.radius, float)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([], "expected a mapping, found []"),
        ({}, "shape: missing; this key is required"),
        ({"shap": {}}, "shap: unknown key, did you mean 'shape'. Known keys: shape, sizes"),
        ({"shape": {"name": "square", "side": "2"}}, "shape.side: expected an integer, found '2'"),
        ({"shape": {"name": "square", "side": True}}, "shape.side: expected an integer, found True"),
        ({"shape": {"name": "square", "side": 0}}, "shape: side must be at least 1."),
        ({"shape": {"name": "circle", "radius": "wide"}}, "shape.radius: expected a number, found 'wide'"),
        ({"shape": {"name": "hexagon"}}, "shape.name: unknown value 'hexagon'. Expected 'circle' or 'square'."),
        ({"shape": {"radus": 1}}, "shape.radus: unknown key, did you mean 'radius'. Known keys: name, radius"),
        ({"shape": {"name": "square"}, "sizes": 3}, "sizes: expected a list, found 3"),
        ({"shape": {"name": "square"}, "sizes": [1, 2.5]}, "sizes.1: expected an integer, found 2.5"),
        ({"shape": {"name": "square"}, "shapes": []}, "shapes: expected a mapping, found []"),
        ({"shape": {"name": "square"}, "shapes": {"a": {}}}, "shapes.a.name: missing"),
        ({"shape": {"name": "square"}, "title": 1}, "title: expected text, found 1: put it in quotes."),
        ({"shape": {"name": "square"}, "scale": 2}, "scale: unknown value 2. Expected 'auto', 1 or True."),
    ],
)
def test_a_mistake_names_its_key(value, told):
    with pytest.raises(ConfigError) as refused:
        read_dataclass(Drawing, value)
    assert str(refused.value).startswith(told)


SQUARE = {"shape": {"name": "square"}}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 10**400])
def test_a_number_is_finite_unless_the_caller_takes_others(number):
    value = {"shape": {"radius": number, "name": "circle"}}
    with pytest.raises(ConfigError, match=r"^shape\.radius: expected a finite number, found "):
        read_dataclass(Drawing, value)
    assert not math.isfinite(read_dataclass(Drawing, value, finite=False).shape.radius)


def test_one_and_true_differ_in_a_literal():
    assert read_dataclass(Drawing, SQUARE | {"scale": True}).scale is True
    with pytest.raises(ConfigError, match=r"^scale: unknown value 1\.0\. Expected"):
        read_dataclass(Drawing, SQUARE | {"scale": 1.0})


def test_a_number_is_a_name_and_nothing_else_that_is_no_text():
    assert read_dataclass(Drawing, SQUARE | {"shapes": {7: {"name": "square"}}}).shapes == {"7": Square("square")}
    for key in (True, None, 1.5, (1, 2)):
        with pytest.raises(ConfigError, match=r"^shapes: expected names as keys, found "):
            read_dataclass(Drawing, SQUARE | {"shapes": {key: {"name": "square"}}})


def test_every_mistake_is_told_at_once_under_the_sources_name():
    value = {"shape": {"name": "squire"}, "sizes": [1, "2", 3.0], "shapes": {"a": {"name": "square", "side": 0}}}
    with pytest.raises(ConfigError) as refused:
        read_dataclass(Drawing, value | {"scales": "auto"}, "drawing.yaml")
    assert str(refused.value).splitlines() == [
        "drawing.yaml: shape.name: unknown value 'squire', did you mean 'square'. Expected 'circle' or 'square'.",
        "drawing.yaml: sizes.1: expected an integer, found '2'.",
        "drawing.yaml: sizes.2: expected an integer, found 3.0.",
        "drawing.yaml: shapes.a: side must be at least 1.",
        "drawing.yaml: scales: unknown key, did you mean 'scale'. Known keys: shape, sizes, "
        "shapes, title, scale, extra.",
    ]
