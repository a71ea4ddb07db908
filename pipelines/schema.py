"""params.yaml to pydantic: the dataclasses of `pipelines.config`, strictly, and each term by its name."""

from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema

from components.objectives.config import VariantConfig
from components.objectives.config_contrastive import ContrastiveConfig, NTXentConfig
from components.objectives.config_generative import AutoregressiveConfig, GenerativeConfig
from pipelines.config import Params, by_name


class ByName:
    """Validates a term by the class that its `name` stands for; without a name, by the first of its kind."""

    def __get_pydantic_core_schema__(self, kinds: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        named = by_name(kinds)
        first = next(iter(named))
        return core_schema.tagged_union_schema(
            {name: handler.generate_schema(kind) for name, kind in named.items()},
            lambda given: str(given.get("name", first) if isinstance(given, dict) else getattr(given, "name", first)),
        )


@dataclass(frozen=True)
class _Variant(VariantConfig):
    contrastive: Annotated[ContrastiveConfig, ByName()] = field(default_factory=NTXentConfig)
    generative: Annotated[GenerativeConfig, ByName()] = field(default_factory=AutoregressiveConfig)


Variant = Annotated[_Variant, AfterValidator(lambda variant: VariantConfig(**vars(variant)))]


@dataclass(frozen=True, kw_only=True)
class _Params(Params):
    # strict: "3" is no integer and 1 no boolean; nested dataclasses inherit all of this
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    variants: dict[str, Variant]  # type: ignore[assignment]  # VariantConfig in the end


def read_params(text: str) -> Params:
    """Parameters from JSON. Raises pydantic's ValidationError."""
    params = TypeAdapter(_Params).validate_json(text)
    return Params(**{section.name: getattr(params, section.name) for section in fields(params)})
