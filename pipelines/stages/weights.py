"""The trained model of a variant or student."""

from components.data.prepared import Prepared
from components.distillation.config import StudentConfig
from components.model.build import Architecture, load_weights
from components.model.gcrl import GCRL
from pipelines.config.params import Params
from pipelines.paths import stage_folder


def architecture_of(params: Params, name: str, prepared: Prepared) -> Architecture:
    """The architecture that params.yaml gives a variant or student on these images."""
    model, trained = params.model_of(name), params.encoder(name)
    if isinstance(trained, StudentConfig):
        return Architecture.of_encoder(model, prepared.image_size, prepared.palette)
    return Architecture.of(model, trained, prepared.image_size, prepared.palette)


def load_model(params: Params, name: str, prepared: Prepared) -> GCRL:
    """The model in evaluation mode. Raises UserError where there is none, or one of another architecture."""
    path = stage_folder("pretrain", name) / "model.safetensors"
    return load_weights(path, architecture_of(params, name, prepared))[0]
