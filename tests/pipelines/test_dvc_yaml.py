"""dvc.yaml lists what the stages read: every command, parameter and file of code."""

import ast
import itertools
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipelines.config.params import Params
from pipelines.paths import stage_folder
from pipelines.stages.registry import all_stages, reported

ROOT = Path(__file__).parents[2]
DVC: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")
DECLARED = all_stages()
STUDENTS = {f"{name}-student": name for name, stage in DECLARED.items() if stage.per == "encoder"}  # their students
STAGES: dict[str, dict[str, Any]] = {
    name: stage.get("do", stage) for name, stage in DVC["stages"].items() if name not in STUDENTS
}

# Code that a stage imports and that changes no result of it: what it is told, where it computes and how it is tracked.
PLUMBING = {
    "pipelines/paths.py",
    "pipelines/command_start.py",
    "pipelines/stages/registry.py",
    "pipelines/stages/results.py",  # these three only open what earlier stages wrote, which is among the dependencies
    "pipelines/stages/weights.py",
    "components/data/prepared.py",
    "pipelines/neighbours.py",
    "components/cores.py",
    "pipelines/stages/stage_run.py",
    "pipelines/stages/attempts.py",
    "pipelines/stages/progress.py",
    "components/evaluation/csv_table.py",
    "components/files.py",
    "components/errors.py",
    "components/markdown.py",
    "components/training/device.py",
}
FIGURE = {"certificate": {"components/plotting/certificate.py", "components/plotting/style.py"}}  # drawn by the stage
RECORD = "record.json"


METHODS = {  # of Params: the sections that they read
    "variant": ("variants",),
    "student": ("students",),
    "encoder": ("variants", "students"),
    "encoders": ("variants", "students"),
    "model_of": ("model",),
    "training_of": ("training",),
    "weights_of": ("variants", "training"),
}


def is_plumbing(file: Path) -> bool:
    named = file.name.startswith(("config", "settings"))  # parameters are compared by value
    return str(file) in PLUMBING or file.parts[:2] in (("pipelines", "tracking"), ("pipelines", "config")) or named


def imports(file: Path) -> Iterator[Path]:
    """Files of this project that a file imports, wherever in it."""
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            module = Path(*name.split("."))
            if module.parts[0] in ("components", "pipelines"):
                files = (module.with_suffix(".py"), module / "__init__.py")
                yield from (f for f in files if (ROOT / f).is_file() and (ROOT / f).stat().st_size)


def code_of(stage: str) -> set[Path]:
    """Everything that a stage runs, plumbing aside."""
    todo, found = {Path(f"pipelines/stages/{stage}.py")}, set()
    while todo:
        file = todo.pop()
        found.add(file)
        todo |= {imported for imported in imports(file) if not is_plumbing(imported)} - found
    return found


def covers(dependency: str, file: Path) -> bool:
    return Path(dependency) == file or Path(dependency) in file.parents


def code_among_dependencies(name: str) -> set[str]:
    return {d for d in STAGES[name]["deps"] if d.startswith(("components", "pipelines"))}


def reruns(name: str) -> set[str]:
    """Code whose change makes a stage run again: it is listed, or listed by an earlier stage whose every run makes this
    one run, for its record is another one each time. A report's run key is that of its stages' runs."""
    stage, found = STAGES[name], code_among_dependencies(name)
    read = [d.replace("${item.teacher}", "${key}") for d in stage["deps"]]
    keys = [file for param in stage.get("params", ()) if isinstance(param, dict) for file in param]
    for earlier in STAGES.keys() - {"distill"}:  # which stands where `pretrain` stands, and reruns with that
        record = stage_folder(earlier, "${key}" if "do" in DVC["stages"][earlier] else None) / RECORD
        if any(covers(d, record) for d in read):
            found |= reruns(earlier)
        if str(record) in keys:
            found |= reruns(earlier) - code_among_dependencies(earlier)
    return found


def test_the_stages_are_those_of_the_command():
    groups = {name: stage["foreach"] for name, stage in DVC["stages"].items() if "do" in stage}
    over = {"variant": "${variants}", "student": "${students}", "encoder": "${variants}"}
    expected = {name: over.get(stage.per, f"${{{name}}}") for name, stage in DECLARED.items() if stage.per != "run"}
    assert groups == expected | dict.fromkeys(STUDENTS, "${students}")
    assert set(STAGES) == set(DECLARED)
    for name, stage in STAGES.items():
        variant = " --variant ${key}" if "do" in DVC["stages"][name] else ""
        assert stage["cmd"] == f"python -m pipelines.stages {name}{variant}"
        assert str(stage_folder(name, "${key}" if variant else None)) in stage["outs"]


def test_students_go_through_the_stages_of_variants():
    for name, original in STUDENTS.items():
        assert DVC["stages"][name]["do"] == DVC["stages"][original]["do"]
    assert STAGES["distill"]["outs"] == STAGES["pretrain"]["outs"]


@pytest.mark.parametrize("name", STAGES)
def test_code_that_a_stage_runs_makes_it_run_again(name):
    needed = {file for file in code_of(name) if str(file) not in FIGURE.get(name, ())}
    missing = [str(file) for file in needed if not any(covers(d, file) for d in reruns(name))]
    assert sorted(missing) == []


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_no_code_that_it_does_not_run(name):
    code = code_of(name)
    assert [d for d in code_among_dependencies(name) if not any(covers(d, file) for file in code)] == []
    assert len(set(STAGES[name]["deps"])) == len(STAGES[name]["deps"])


@pytest.mark.parametrize("name", STAGES)
def test_other_dependencies_are_outputs_of_earlier_stages(name):
    outputs = [out for stage in STAGES.values() for out in stage["outs"]]
    others = [d for d in STAGES[name]["deps"] if not d.startswith(("components", "pipelines"))]
    for dependency in (d.replace("${item.teacher}", "${key}") for d in others):  # a variant
        inside = any(covers(out, Path(dependency)) for out in outputs)
        assert inside or any(covers(dependency, Path(out)) for out in outputs), dependency


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_declared_behind_those_whose_outputs_it_reads(name):
    before = list(DECLARED)[: list(DECLARED).index(name)]
    for earlier in STAGES.keys() - {"distill", name}:  # `distill` writes where `pretrain` writes
        pairs = itertools.product(STAGES[earlier]["outs"], STAGES[name]["deps"])
        if any(covers(out, Path(d)) or covers(d, Path(out)) for out, d in pairs):
            assert earlier in before


def test_a_report_depends_on_the_numbers_that_it_has():
    own = [stage_folder(name, "${key}") for name in reported()]
    for folder in (*own, *(stage_folder(name) for name in reported(shared=True))):
        assert any(covers(d, folder / "results.json") for d in STAGES["report"]["deps"]), folder


@pytest.mark.parametrize("shared", ["prepare", "validate", "baselines"])
def test_nothing_depends_on_when_a_shared_stage_ran(shared):
    """Else the same images, prepared again on another machine, would make every model a new version."""
    record = stage_folder(shared) / "record.json"
    assert [name for name, stage in STAGES.items() if any(covers(d, record) for d in stage["deps"])] == []


@pytest.mark.parametrize("name", STAGES)
def test_parameters_are_required_keys_of_params_yaml(name):
    """DVC stops at a key that is missing, even where the configuration has a default."""
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    for key in STAGES[name].get("params", []):
        if isinstance(key, dict) or key in ("variants.${key}", "students.${key}", "certificate.${key}"):
            continue
        section, *rest = key.split(".")
        sections = {field.name: field for field in fields(Params)}
        assert sections[section].default is sections[section].default_factory  # both are MISSING
        for part in rest:
            keys = sections[section].type.__dataclass_fields__  # type: ignore[union-attr]
            assert keys[part].default is keys[part].default_factory, f"{key} has a default"  # both are MISSING
        value = params
        for part in key.split("."):
            value = value[part]


def test_a_stage_lists_the_parameters_that_its_results_are_made_with():
    """Sections that a stage reads of `params`, less those that only decide where it computes or what it tells."""
    told = {
        "baselines": {"training"},  # the device
        "embed": {"training"},  # the device
        # for the card; weights and results depend on them
        "export": {"variants", "students", "ood", "training", "seed"},
        # parameters of the MLflow run: whatever changes them reruns a stage before
        "report": {"variants", "students", "model", "training", "ood", "seed"},
        "certificate": {"training"},  # the device
    }
    for name, stage in STAGES.items():
        tree = ast.parse((ROOT / f"pipelines/stages/{name}.py").read_text())
        read = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "params"
        }
        listed = {key.split(".")[0] for key in stage.get("params", []) if isinstance(key, str)}
        read = {section for part in read for section in METHODS.get(part, (part,))}
        assert read - listed == told.get(name, set()), name


def test_plots_metrics_and_their_files_come_from_the_comparison():
    files = [*DVC["metrics"]]
    for plot in DVC["plots"]:
        files += [plot] if isinstance(plot, str) else list(itertools.chain(*(p["y"] for p in plot.values())))
    assert all(Path(file).parts[:2] == ("outputs", "compare") for file in files)
    templates = {p["template"] for plot in DVC["plots"] if not isinstance(plot, str) for p in plot.values()}
    own = {path.stem for path in (ROOT / ".dvc/plots").glob("*.json")}
    assert templates - own <= {"confusion_normalized"}
