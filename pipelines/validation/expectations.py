"""Great Expectations: checks of tables, and what came out of them."""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pandas as pd

from components.errors import UserError, nearest

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read when the package is imported

EXAMPLES = 3  # files named in a message
DRIFT = 0.5  # standard deviations by which a mean may be off the reference's, besides sampling error


@dataclass(frozen=True)
class Check:
    """One expectation: its name in Great Expectations (CamelCase), what it says in words, and the split it is about."""

    expectation: str
    claim: str
    arguments: dict[str, Any]
    split: str | None = None  # None: every row


def mean_like(
    column: str, claim: str, reference: pd.Series | np.ndarray, count: int, split: str | None = None
) -> Check:
    """A column's mean over `count` rows is what it is over the rows of a reference, DRIFT and sampling error aside."""
    values = np.asarray(reference)
    mean, reach = float(values.mean()), (DRIFT + 3 / count**0.5) * float(values.std()) + 1e-9
    limits = {"min_value": mean - reach, "max_value": mean + reach}
    return Check("ExpectColumnMeanToBeBetween", claim, {"column": column, **limits}, split)


def run_checks(
    data: str, frames: Mapping[str, pd.DataFrame], checks: Mapping[str, Sequence[Check]], folder: Path
) -> list[dict[str, Any]]:
    """Check each frame in a Great Expectations project made in `folder`, build its Data Docs, and return the results.

    `data` is the name of the project's data source; `frames` and `checks` have the same keys.
    Raises UserError where an expectation or one of its arguments is unknown.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies' deprecations, of no use to the reader
        import great_expectations as gx
        import great_expectations.expectations as gxe
        from great_expectations.data_context.types.base import ProgressBarsConfig
        from great_expectations.expectations.row_conditions import Column

        logging.getLogger("great_expectations").setLevel(logging.ERROR)
        context = gx.get_context(mode="file", project_root_dir=str(folder))
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        source = context.data_sources.add_pandas(data)
        results = []
        for name, frame in frames.items():
            batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
            expectations = []
            for number, check in enumerate(checks[name]):
                condition = {} if check.split is None else {"row_condition": Column("split") == check.split}
                kind = _kind(check, gxe)
                try:
                    expectations.append(kind(**check.arguments, **condition, meta={"check": number}))
                except ValueError as error:  # pydantic's, which names the argument
                    raise UserError(f"{_named(check)}: {' '.join(str(error).split())}.") from error
            suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
            definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
            outcome = context.validation_definitions.add(definition).run(
                batch_parameters={"dataframe": frame},
                result_format={
                    "result_format": "COMPLETE",
                    "unexpected_index_column_names": [_identifier(frame)],
                    "include_unexpected_rows": False,
                },
            )
            for result in outcome.results:  # in an order of its own
                assert result.expectation_config is not None
                results.append(_result(checks[name][result.expectation_config.meta["check"]], result, frame))
        context.build_data_docs()
    return results


def _kind(check: Check, gxe: ModuleType) -> type[Any]:
    """The class of a check's expectation. Raises UserError where there is none."""
    known = [name for name in dir(gxe) if name.startswith("Expect")]
    if check.expectation not in known:
        close = nearest(check.expectation, known)
        raise UserError(f"{_named(check)}: Great Expectations has no expectation of this name{close}.")
    return cast(type[Any], getattr(gxe, check.expectation))


def _named(check: Check) -> str:
    return f"expectation {check.expectation} ({check.claim})"


def _identifier(frame: pd.DataFrame) -> str:
    """The column that tells a reader which row is meant."""
    return next(column for column in ("path", "class_name", "split", "role") if column in frame.columns)


def _result(check: Check, result: Any, frame: pd.DataFrame) -> dict[str, Any]:
    found = result.result
    problem = _absent_column(check, frame) or _exception(result.exception_info)
    examples: list[str] = []
    if not result.success and not problem:
        rows = frame if check.split is None else frame[frame["split"] == check.split]
        named = found.get("unexpected_index_list") or rows.head(EXAMPLES).to_dict("records")
        examples = [str(row[_identifier(frame)]) for row in named[:EXAMPLES]]
    return {
        "expectation": result.expectation_config.type,
        "claim": check.claim,
        "split": check.split,
        "success": bool(result.success),
        "unexpected": found.get("unexpected_count"),
        "examples": examples,
        "problem": problem,  # why it could not be computed; "" where it was
    }


def _absent_column(check: Check, frame: pd.DataFrame) -> str:
    for argument in ("column", "column_A", "column_B", "column_list"):
        value = check.arguments.get(argument, [])
        for column in [value] if isinstance(value, str) else value:
            if column not in frame.columns:
                there = ", ".join(map(str, frame.columns))
                return f"there is no column {column!r}{nearest(column, frame.columns)}; the columns are {there}"
    return ""


def _exception(info: Mapping[str, Any]) -> str:
    """The message of an exception inside an expectation; "" where there was none."""
    # either one record, or one for each of the metrics that the expectation needs
    records = [info] if "raised_exception" in info else [record for record in info.values() if isinstance(record, dict)]
    return "; ".join(dict.fromkeys(str(r["exception_message"]) for r in records if r.get("raised_exception")))
