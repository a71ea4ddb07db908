"""What the images and compose.yaml are made of fits together; tests/e2e/test_compose.py runs the services."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = YAML(typ="safe").load(ROOT / "compose.yaml")
TARGETS = ("train", "serve")
CUDA = re.compile(r"(torch|torchvision|triton|cuda-.+|nvidia-(?!ml-py).+)==")


def stage(name: str) -> str:
    """The instructions of one stage."""
    (found,) = re.findall(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    return found


def pinned(text: str) -> list[str]:
    """The requirements of a lock, without their hashes."""
    return [line.rstrip(" \\") for line in text.splitlines() if re.match(r"[a-z0-9]", line)]


def lock(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.txt").read_text()


def test_the_build_sees_the_locks_and_nothing_else():
    copied = set()
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        copied.update(sources.split())
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignored[0] == "*"
    assert {line.removeprefix("!") for line in ignored[1:]} == copied
    assert all((ROOT / path).is_file() for path in copied)


def test_python_is_one_that_the_project_supports():
    supported = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
    (version,) = re.findall(r"^ARG PYTHON=(\d\.\d+)-", DOCKERFILE, re.MULTILINE)
    assert version in supported


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_runs_as_root(target):
    users = re.findall(r"^USER (.+)$", stage(target), re.MULTILINE)
    assert users == ["1000"]  # a number, which Kubernetes' runAsNonRoot can check
    after = stage(target).partition("USER 1000")[2]
    assert "RUN" not in after
    assert "COPY" not in after


def test_every_install_goes_by_hashes_but_those_of_pytorchs_cpu_builds_and_of_the_project():
    installs = re.findall(r"pip install ([^;\\&\n]+)", DOCKERFILE.replace("\\\n", " "))
    without = [options for options in installs if "--require-hashes" not in options]
    assert len(installs) > len(without)
    assert [" ".join(options.split()) for options in without] == [
        "--torch-backend cpu --no-deps --requirement torch.txt",
        "--no-deps --editable /project",  # the project itself
    ]


def test_the_cpu_image_gets_the_lock_less_cuda(tmp_path):
    builder = stage("train-builder").replace("\\\n", " ")
    (kept,) = re.findall(r"awk '.+?' +requirements/main.txt", builder)
    (torch,) = re.findall(r"sed -nE '.+?' requirements/main.txt", builder)
    cpu = subprocess.run(kept, shell=True, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert pinned(cpu) == [line for line in pinned(lock("main")) if not CUDA.match(line)]
    assert "nvidia-ml-py==" in cpu
    assert cpu.count("--hash=") > len(pinned(cpu))
    apart = subprocess.run(torch, shell=True, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert apart.splitlines() == [line for line in pinned(lock("main")) if re.match(r"torch(vision)?==", line)]


def test_uv_is_the_makefiles_and_comes_by_its_hash():
    (command,) = re.findall(r"RUN (sed -n .+?) > uv.txt", DOCKERFILE)
    text = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (version,) = re.findall(r"^UV_VERSION := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert pinned(text) == [f"uv=={version}"]
    assert "--hash=sha256:" in text
    assert not text.rstrip().endswith("\\")


def test_the_serving_image_has_the_versions_of_the_pipeline_and_no_torch():
    serve, main = ({line.partition(" ;")[0] for line in pinned(lock(name))} for name in ("serve", "main"))
    assert serve <= main
    names = {canonicalize_name(Requirement(line).name) for line in serve}
    assert {"mlflow-skinny", "onnx", "onnxruntime"} <= names
    assert not {"torch", "torchvision", "mlflow", "prefect", "dvc"} & names


def test_ports_are_bound_to_this_machine_alone():
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_service_is_pinned_restarts_and_tells_its_health():
    for name, service in COMPOSE["services"].items():
        tag = service["image"].partition(":")[2]
        assert re.match(r"\d", tag), name
        assert service["restart"] == "unless-stopped", name
        target = service.get("build", {}).get("target")
        assert "healthcheck" in service or "HEALTHCHECK" in stage(target), name
        for needed in service.get("depends_on", {}).values():
            assert needed == {"condition": "service_healthy"}, name


def test_secrets_have_no_defaults_and_the_example_names_them_all():
    text = (ROOT / "compose.yaml").read_text()
    required = set(re.findall(r"\$\{(\w+):\?", text))
    example = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert {name for name, value in example.items() if not value} == required
    for line in text.splitlines():
        if re.match(r"\s+\w*(PASSWORD|SECRET_KEY|AUTH_STRING): ", line):
            assert ":?" in line, line
    ignored = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", ".env"], cwd=ROOT)
    assert ignored.returncode == 0
