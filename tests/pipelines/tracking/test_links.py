import json
import urllib.request

import pytest

from pipelines.tracking import Journal, deliver
from pipelines.tracking.links import run_links


def test_links_lead_to_the_runs_that_the_server_has(server, root):
    with Journal.start("report", "hybrid", experiment="linked", root=root) as journal:
        pass
    run_id = deliver(server.uri, root=root).sent[journal.key]
    with_password = server.uri.replace("http://", "http://someone:secret@")
    links = run_links([journal.key, "20260101T000000.000-unknown-00000000"], with_password, root)
    assert set(links) == {journal.key}
    page, _, place = links[journal.key].partition("/#/experiments/")
    assert page == server.uri
    experiment, _, run = place.partition("/runs/")
    assert run == run_id
    with urllib.request.urlopen(f"{server.uri}/api/2.0/mlflow/experiments/get?experiment_id={experiment}") as answer:
        assert json.load(answer)["experiment"]["name"] == "linked"


@pytest.mark.parametrize("uri", ["", "sqlite:///nowhere/mlflow.db"])
def test_a_store_without_a_server_has_no_addresses(root, uri):
    assert run_links(["some-key"], uri, root) == {}
