import argparse
import json
from pathlib import Path

import pytest

from benchmarks.measuring import Report, markdown, medians, run, take_turns
from components.errors import UserError


def test_contenders_take_turns_and_every_second_round_is_reversed():
    called = []

    def contender(name, values):
        def call():
            called.append(name)
            return next(values)

        return call

    found = take_turns({"a": contender("a", iter([3.0, 1.0, 2.0])), "b": contender("b", iter([9.0, 7.0, 5.0]))}, 3)
    assert called == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": [3.0, 1.0, 2.0], "b": [9.0, 7.0, 5.0]}
    assert medians(found) == {"a": 2.0, "b": 7.0}


def test_a_table_holds_every_column_and_three_digits():
    rows = [{"what": "first", "ms": 0.01234, "n": 12345}, {"what": "second", "ms": 1234.5, "more": None}]
    assert markdown(rows).splitlines() == [
        "| what | ms | n | more |",
        "|---|---:|---:|---:|",
        "| first | 0.0123 | 12,345 | – |",
        "| second | 1,234 | – | – |",
    ]


def test_a_report_is_on_disk_after_each_part_with_how_it_was_made(tmp_path, capsys):
    options = argparse.Namespace(json=tmp_path / "report.json", parquet=[Path("a.parquet")], rounds=2)
    report = Report(options, packages=("pillow", "no-such-package"))
    report.add("speed", [{"name": "a", "ms": 1.5}], {"a": [1.0, 2.0]})
    first = json.loads(options.json.read_text())
    report.add("quality", [{"name": "a"}])
    second = json.loads(options.json.read_text())

    assert first["results"] == {"speed": {"rows": [{"name": "a", "ms": 1.5}], "rounds": {"a": [1.0, 2.0]}}}
    assert list(second["results"]) == ["speed", "quality"]
    assert second["settings"] == {"parquet": ["a.parquet"], "rounds": 2}
    assert second["versions"].keys() == {"python", "torch", "numpy", "pillow"}
    assert {"command", "hardware", "load", "date", "commit"} <= second.keys()
    assert "| a | 1.50 |" in capsys.readouterr().out


def test_bad_input_ends_a_benchmark_with_one_line():
    def main():
        raise UserError("images: none.")

    with pytest.raises(SystemExit, match=r"^error: images: none\.$"):
        run(main)
