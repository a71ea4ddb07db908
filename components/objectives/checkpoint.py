"""What a generative term without an exact likelihood owns, as a file beside the model's: its decoder, its codebook."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from components.errors import UserError
from components.files import atomic_file
from components.model.gcrl import GCRL
from components.objectives.base import GenerativeTerm, TrainingSet
from components.objectives.registry import GENERATIVE


def save_term(path: Path, term: GenerativeTerm) -> None:
    """Write a term's settings and weights as safetensors."""
    weights = {name: value.detach().cpu().contiguous() for name, value in term.state_dict().items()}
    content = save(weights, metadata={"generative": json.dumps(asdict(term.config))})
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)  # save_file would hide a full disk's error


def load_term(path: Path, model: GCRL) -> GenerativeTerm:
    """Read the term that a model was trained with, in evaluation mode, on the model's device.

    Raises:
        UserError: there is no such file, or it is not that of a term of this model.
    """
    if not path.exists():
        raise UserError(f"{path}: not there. Variants without an exact likelihood have one, beside their model's file.")
    try:
        with safe_open(path, "pt") as file:
            settings = json.loads((file.metadata() or {})["generative"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        config = GENERATIVE[settings["name"]](**settings)
        images = np.empty((0, model.image_size, model.image_size, model.channels), np.uint8)
        term: GenerativeTerm = config.term()(config, model, TrainingSet(images))
        term.load_state_dict(weights)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        told = " ".join(str(error).split())
        raise UserError(f"{path}: not the term of this model ({told}). Take both from one folder.") from error
    return term.to(model.start.device).eval()
