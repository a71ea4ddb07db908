"""The Python snippets of how-to.md do what the text says, in a project that has run."""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.conftest import Project

HOW_TO = Path(__file__).parents[2] / "docs/how-to.md"
VQVAE = {"variants.vqvae": {"w_gen": 1.0, "w_con": 0.0, "generative": {"name": "vqvae"}}}

pytestmark = pytest.mark.e2e


def snippets(section: str) -> str:
    """All Python of a section, one block after the other."""
    text = HOW_TO.read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))


def test_the_encoder_in_python_and_a_head_of_ones_own(finished: Project):
    said = finished.run(sys.executable, "-c", snippets("Use the encoder in Python")).stdout
    found = re.fullmatch(r"accuracy (\S+), (\S+) bits/dim\n", said)
    assert found, said
    assert float(found[1]) > 0.3  # of eight classes, after 30 steps
    assert 0 < float(found[2]) < 8


def test_the_exported_model_and_image_files(scratch: Project):
    files = scratch.root / "photographs"
    files.mkdir()
    for i in range(2):
        Image.fromarray(np.full((40, 50, 3), 100 * i, np.uint8)).save(files / f"{i}.jpg")
    check = "assert embedding.shape[0] == is_ood.shape[0] == 5 and images.shape == (2, 32, 32, 3), images.shape"
    scratch.run(sys.executable, "-c", f"{snippets('Use the model')}\n{check}")


def test_images_become_codes_and_images_again(scratch: Project):
    scratch.edit(VQVAE)
    scratch.dvc("repro", "pretrain@vqvae")
    check = "assert codes.shape == (5, 16) and images.shape == (5, 1, 8, 8) and 0 <= images.min() <= images.max() <= 1"
    scratch.run(sys.executable, "-c", f"{snippets('Turn images into codes')}\n{check}")


def test_the_installed_project_is_imported_in_any_folder(finished: Project, tmp_path: Path):
    """As a user would: the environment's Python, another folder, the project's path in the place of the dot."""
    assert shutil.which("gcrl", path=str(Path(sys.executable).parent)), "make setup installs the project"
    code = snippets("Use the encoder in Python").replace('Path(".")', f"Path({str(finished.root)!r})")
    assert "bits/dim" in Project(tmp_path).run(sys.executable, "-c", code).stdout
