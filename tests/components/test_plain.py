"""Reading configuration from plain values: what pydantic accepts is read alike, and mistakes are told by their key."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from ruamel.yaml import YAML

from components.errors import ConfigError
from components.plain import ByName, read_plain
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
def test_a_preset_is_read_as_pydantic_reads_it(path):
    assert read_plain(Params, YAML(typ="safe").load(path)) == load_params(path)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_there_and_back(path):
    params = load_params(path)
    assert read_plain(Params, json.loads(json.dumps(asdict(params)))) == params


def test_a_union_takes_the_kind_that_fits():
    assert read_plain(Drawing, {"shape": {"name": "square", "side": 3}}).shape == Square("square", 3)
    circle = read_plain(Drawing, {"shape": {"name": "circle", "radius": 2}}).shape
    assert circle == Circle("circle", 2.0)
    assert isinstance(circle.radius, float)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([], "configuration: expected a mapping, found []"),
        ({}, "shape: missing; this key is required"),
        ({"shap": {}}, "shap: unknown key, did you mean 'shape'. Known keys: shape, sizes"),
        ({"shape": {"name": "square", "side": "2"}}, "shape.side: expected int, found '2'"),
        ({"shape": {"name": "square", "side": True}}, "shape.side: expected int, found True"),
        ({"shape": {"name": "square", "side": 0}}, "shape: side must be at least 1."),
        ({"shape": {"name": "circle", "radius": "wide"}}, "shape.radius: expected float, found 'wide'"),
        ({"shape": {"name": "star"}}, "shape.name: expected one of 'circle', 'square', found 'star'"),
        ({"shape": {"radus": 1}}, "shape.radus: unknown key, did you mean 'radius'. Known keys: name, radius"),
        ({"shape": {"name": "square"}, "sizes": 3}, "sizes: expected a list, found 3"),
        ({"shape": {"name": "square"}, "sizes": [1, 2.5]}, "sizes.1: expected int, found 2.5"),
        ({"shape": {"name": "square"}, "shapes": []}, "shapes: expected a mapping, found []"),
        ({"shape": {"name": "square"}, "shapes": {"a": {}}}, "shapes.a.name: missing"),
        ({"shape": {"name": "square"}, "title": 1}, "title: expected str, found 1"),
        ({"shape": {"name": "square"}, "scale": 2}, "scale: expected one of 'auto', 1, True, found 2"),
    ],
)
def test_a_mistake_names_its_key(value, told):
    with pytest.raises(ConfigError) as refused:
        read_plain(Drawing, value)
    assert str(refused.value).startswith(told)


def test_where_begins_the_key():
    with pytest.raises(ConfigError, match=r"^study.json.shape.name: expected one of"):
        read_plain(Drawing, {"shape": {"name": 3}}, "study.json")
