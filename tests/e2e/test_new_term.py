"""A new objective term is a package in its room and a new stage a module with an entry in dvc.yaml, and nothing else:
configuration, training, tables and page have the term, studies and DVC the stage."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
PULL = """
from dataclasses import dataclass
from typing import Literal

from components.objectives.settings import ContrastiveSettings, Task, Words, positive


@dataclass(frozen=True)
class PullConfig(ContrastiveSettings):
    words = Words("Pull", "drawing views together", "views are near each other", "never", "none", {"A test": "https://x"})
    name: Literal["pull"] = "pull"
    strength: float = 2.0

    def __post_init__(self) -> None:
        positive(self, "strength")

    @staticmethod
    def term() -> type:
        from components.objectives.contrastive.pull.term import Pull

        return Pull

    def check(self, task: Task) -> None:
        if task.encoder_layers > 1:
            raise ValueError(f"strength: pull is for an encoder of one block, not of {task.encoder_layers}.")
"""
PULL_TERM = """
from components.objectives.base import ContrastiveTerm


class Pull(ContrastiveTerm):
    def forward(self, batch):
        spread = batch.projections.float().var(0, correction=0).sum(-1).mean()
        return self.config.strength * spread, {"pull_spread": spread.detach()}
"""
BRIGHTNESS = """
from dataclasses import dataclass
from typing import ClassVar, Literal

from components.objectives.settings import GenerativeSettings, Words


@dataclass(frozen=True)
class BrightnessConfig(GenerativeSettings):
    words = Words("Brightness", "guessing how bright images are", "one number", "never", "none", {"A test": "https://x"})
    zoo: ClassVar = {"bright": {"scored_views": 1}}
    name: Literal["brightness"] = "brightness"
    scored_views: Literal[1, 2] = 2

    @staticmethod
    def term() -> type:
        from components.objectives.generative.brightness.term import Brightness

        return Brightness
"""
BRIGHTNESS_TERM = """
from torch import nn

from components.objectives.base import GenerativeTerm, features


class Brightness(GenerativeTerm):
    def __init__(self, config, model, data):
        super().__init__(config, model, data)
        self.guess = nn.Linear(model.config.width, 1)

    def values(self, model, tokens, condition, drawn):
        pixels = model.tokenizer.dequantise(tokens).flatten(1).mean(1, keepdim=True)
        return (self.guess(features(model, tokens)) - pixels).square()

    def forward(self, values):
        return values.mean(), {"brightness_error": values.mean().detach()}
"""
TALLY = """
from components.evaluation.features.store import Embedded
from pipelines.paths import stage_folder
from pipelines.stages.registry import Stage
from pipelines.stages.stage_run import stage_run

STAGE = Stage(does="counting the images", per="encoder", after=("embed",), in_report="numbers")


def run(params, variant):
    with stage_run(params, "tally", variant) as stage, stage.folder() as out:
        out.metrics = {"images": len(Embedded.open(stage_folder("embed", variant)).features("test"))}
"""
TALLY_ENTRY = """
  tally:
    foreach: ${variants}
    do:
      cmd: python -m pipelines.stages tally --variant ${key}
      deps: ["outputs/${key}/embed", pipelines/stages/tally.py]
      outs: ["outputs/${key}/tally"]
"""
STUDY: dict[str, Any] = {"params": "params.yaml", "seeds": [0]}
PAGE = """
from pipelines.config.params import load_params
from pipelines.report_page.content import objective
print(objective(load_params().variant("toys")))
"""


@pytest.fixture(scope="module")
def project(fresh, tmp_path_factory):
    """The project with two more terms, a variant of both, and one more stage."""
    toys = {"w_gen": 1.0, "w_con": 0.5, "contrastive": {"name": "pull"}, "generative": {"name": "brightness"}}
    made = fresh.copy(tmp_path_factory.mktemp("toys") / "project")
    made.edit({"variants": {"toys": toys}})
    for term, declaration, code in (
        ("contrastive/pull", PULL, PULL_TERM),
        ("generative/brightness", BRIGHTNESS, BRIGHTNESS_TERM),
    ):
        package = made.root / "components/objectives" / term
        package.mkdir()
        (package / "__init__.py").write_text(declaration)
        (package / "term.py").write_text(code)
    (made.root / "pipelines/stages/tally.py").write_text(TALLY)
    dag = (made.root / "dvc.yaml").read_text()
    (made.root / "dvc.yaml").write_text(dag.replace("\nstages:\n", f"\nstages:{TALLY_ENTRY}"))
    return made


def write_study(project: Any, name: str, content: dict[str, Any]) -> str:
    YAML().dump(content, project.root / f"{name}.yaml")
    return f"{name}.yaml"


def test_the_configuration_knows_them(project):
    project.python("pipelines.stages", "check")
    for settings, told in (
        ({"name": "pull", "strength": -1.0}, "variants.toys.contrastive: strength must be positive"),
        ({"name": "pull", "strenght": 1.0}, "did you mean 'strength'. Known keys: name, strength"),
        ({"name": "pul"}, "did you mean 'pull'"),
    ):
        project.edit({"variants.toys.contrastive": settings})
        assert told in project.python("pipelines.stages", "check", code=2).stderr
    project.edit({"variants.toys.contrastive": {"name": "pull"}, "model.encoder_layers": 2})
    told = project.python("pipelines.stages", "check", code=2).stderr
    assert "variants.toys.contrastive.strength: pull is for an encoder of one block, not of 2." in told
    project.edit({"model.encoder_layers": 1})


def test_a_run_trains_them_and_the_tables_have_them(project):
    project.python("pipelines.experiments", "plan", write_study(project, "one", STUDY), "study-one")
    project.python("pipelines.experiments", "run", "study-one", "--until", "ood", PIPELINE_OFFLINE="1")
    project.python("pipelines.experiments", "methods", "study-one")
    (row,) = (line for line in (project.root / "study-one/methods.md").read_text().splitlines() if "| toys |" in line)
    assert row.startswith("| toys | hybrid | 1 | ")
    assert (project.root / "study-one/methods.png").is_file()
    (trained,) = (project.root / "study-one").rglob("term.safetensors")
    header = (trained.parent / "curves.csv").read_text().splitlines()[0].split(",")
    assert {"pull_spread", "brightness_error", "contrastive_loss", "generative_loss"} <= set(header)
    assert '"images": 287' in (trained.parent.parent / "tally/results.json").read_text()


def test_dvc_has_the_stage_behind_what_it_reads(project):
    assert '"embed@toys" -> "tally@toys"' in project.dvc("dag", "--dot", "tally@toys").stdout


def test_the_zoo_has_them(project):
    project.python(
        "pipelines.experiments", "plan", write_study(project, "all", {**STUDY, "variants": "zoo"}), "study-all"
    )
    planned = (project.root / "study-all/study.json").read_text()
    assert '"pull": {' in planned
    assert '"bright": {' in planned


def test_the_page_and_the_documents_have_their_words(project):
    learns = "guessing how bright images are (brightness, weight 1) and drawing views together (pull, weight 0.5)\n"
    assert project.run("python", "-c", PAGE).stdout == learns
    methods = project.root / "docs/methods.md"
    methods.parent.mkdir()
    methods.write_text((ROOT / "docs/methods.md").read_text())
    project.python("pipelines", "derive")
    assert "| `pull` | Pull ([A test](https://x)): views are near each other | never | none |\n" in methods.read_text()
    assert "| `brightness` | Brightness ([A test](https://x)): one number | never | none |\n" in methods.read_text()
    preset = (project.root / "presets/zoo-digits-cpu.yaml").read_text()
    bright = YAML(typ="safe").load(preset)["variants"]["bright"]
    assert bright == {"w_gen": 1.0, "w_con": 0.0, "generative": {"name": "brightness", "scored_views": 1}}
    assert "\n  bright:  # Brightness\n" in preset
