"""System metrics reach the journal under the names that MLflow's UI knows."""

import time

from pipelines.tracking import Journal
from pipelines.tracking.background import sample_system
from pipelines.tracking.spool import read_events


def test_samples_until_the_stage_ends(journal: Journal) -> None:
    with sample_system(journal, every=0.05):
        deadline = time.monotonic() + 30
        while len(read_events(journal.folder)) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    journal.finish()
    samples = [event.fields for event in read_events(journal.folder)[1:-1]]
    assert [sample["step"] for sample in samples] == list(range(len(samples)))
    values = samples[-1]["values"]
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= set(values)
    assert 0 < values["system/system_memory_usage_percentage"] < 100
    assert 0 <= values["system/cpu_utilization_percentage"] <= 100
