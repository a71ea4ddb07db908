"""`python -m pipelines flow`"""

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipelines.__main__ import main
from pipelines.flows.command_line import FLOWS, find


@pytest.mark.usefixtures("prefect_server")
def test_it_runs_a_flow_and_exits_with_its_message(project, capsys):
    root = project({"broken": {"cmd": "echo 'error: no images'; exit 1"}, "fine": {"cmd": "touch fine.out"}})
    assert main(["flow", "reproduce", "targets=[fine]", f"project={root}"]) == 0
    assert (root / "fine.out").exists()
    capsys.readouterr()
    assert main(["flow", "reproduce", f"project={root}"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: 1 failed, 1 cached. broken: no images"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["reproduc"], "No such command 'reproduc'. Did you mean 'reproduce'?"),
        (["sweep", "seed=[1]"], "unknown parameter 'seed', did you mean 'seeds'. Parameters of sweep: variants, seeds"),
        (["sweep", "seeds"], "'seeds': expected key=value. Parameters of sweep: variants, seeds"),
        (["sweep", "seeds=[1"], "seeds: not valid YAML"),
        (["monitor"], "monitor: incoming: Field required."),
        (["reproduce", "targets=probe"], "reproduce: targets: Input should be a valid list."),
        (["sweep", "seeds=[a]", "parallel=0"], "sweep: seeds.0: Input should be a valid integer"),
    ],
)
def test_a_mistake_in_the_command_exits_with_2(capsys, arguments, told):
    assert main(["flow", *arguments]) == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.usefixtures("prefect_server")
def test_a_server_that_is_not_there_is_told_in_one_line(project, capsys):
    root = project({"fine": {"cmd": "touch fine.out"}})
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert main(["flow", "reproduce", f"project={root}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no Prefect server answers at http://127.0.0.1:9/api")
    assert not (root / "fine.out").exists()


@pytest.mark.parametrize("name", FLOWS)
def test_help_lists_a_flows_parameters_and_what_they_mean(name, capsys):
    assert main(["flow", name, "--help"]) == 0
    page = capsys.readouterr().out
    for parameter in find(name).parameters.properties:
        meaning = next(line for line in page.splitlines() if line.startswith(f"    {parameter}: "))
        assert len(meaning.split()) > 3, meaning


def test_help_tells_defaults(capsys):
    main(["flow", "sweep", "--help"])
    page = capsys.readouterr().out
    assert "\n    seeds: random seeds; that of params.yaml if none are named.\n" in page
    assert "\n    project: the folder with dvc.yaml. (default: '.')\n" in page
