"""params.yaml to pydantic: the dataclasses of `pipelines.config.params`, strictly, and each term by its name."""

from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema

from components.objectives.config import ANY_CONTRASTIVE, ANY_GENERATIVE, VariantConfig
from components.objectives.contrastive.nt_xent import NTXentConfig
from components.objectives.generative.autoregressive import AutoregressiveConfig
from components.objectives.settings import ContrastiveSettings, GenerativeSettings
from components.plain import ByName
from pipelines.config.params import Params


@dataclass(frozen=True)
class Chosen:
    """Validates a section by the class that its `name` chooses."""

    choice: ByName

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        kinds = {name: handler.generate_schema(kind) for name, kind in self.choice.kinds.items()}
        return core_schema.tagged_union_schema(kinds, self._name)

    def _name(self, given: Any) -> str:
        default = self.choice.default.name
        return str(given.get("name", default) if isinstance(given, dict) else getattr(given, "name", default))


@dataclass(frozen=True)
class _Variant(VariantConfig):
    contrastive: Annotated[ContrastiveSettings, Chosen(ANY_CONTRASTIVE)] = field(default_factory=NTXentConfig)
    generative: Annotated[GenerativeSettings, Chosen(ANY_GENERATIVE)] = field(default_factory=AutoregressiveConfig)


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
