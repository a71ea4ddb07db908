import pandas as pd
import pytest

from components.errors import UserError
from pipelines.validation.expectations import Check, run_checks

FRAME = pd.DataFrame({"path": ["a", "b"], "split": ["train", "val"], "mean_0": [10.0, 30.0], "name": ["x", "y"]})


@pytest.mark.parametrize(
    ("expectation", "arguments", "message"),
    [
        (
            "ExpectColumnMeanToBeBetwen",
            {"column": "mean_0"},
            "no expectation of this name, did you mean 'ExpectColumnMe",
        ),
        ("os", {}, "no expectation of this name"),
        ("ExpectColumnMeanToBeBetween", {"column": "mean_0", "least": 1}, "least extra fields not permitted"),
    ],
)
def test_an_unknown_expectation_or_argument_is_told(tmp_path, expectation, arguments, message):
    with pytest.raises(UserError, match=rf"expectation {expectation} \(images are bright\): .*{message}"):
        run_checks(
            "data", {"images": FRAME}, {"images": [Check(expectation, "images are bright", arguments)]}, tmp_path
        )


@pytest.mark.parametrize(
    ("expectation", "arguments", "problem"),
    [
        (
            "ExpectColumnMeanToBeBetween",
            {"column": "mean0", "min_value": 1},
            "no column 'mean0', did you mean 'mean_0'",
        ),
        ("ExpectCompoundColumnsToBeUnique", {"column_list": ["path", "pth"]}, "no column 'pth', did you mean 'path'"),
        ("ExpectColumnMeanToBeBetween", {"column": "name", "min_value": 1}, "string"),
    ],
)
def test_a_check_that_cannot_be_computed_says_why(tmp_path, expectation, arguments, problem):
    check = Check(expectation, "images are bright", arguments)
    (result,) = run_checks("data", {"images": FRAME}, {"images": [check]}, tmp_path)
    assert (result["success"], result["examples"]) == (False, [])
    assert problem in result["problem"]


def test_a_violated_check_names_its_rows(tmp_path):
    check = Check("ExpectColumnValuesToBeBetween", "images are bright", {"column": "mean_0", "min_value": 20})
    (result,) = run_checks("data", {"images": FRAME}, {"images": [check]}, tmp_path)
    assert (result["success"], result["unexpected"], result["examples"]) == (False, 1, ["a"])
