"""A scored batch: what must hold of it, and how it is told."""

import csv
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.export.reference import Reference
from components.files import write_json
from components.markdown import literal, literals, table
from components.monitoring.config import DriftThresholds
from components.monitoring.drift import DriftTest
from components.monitoring.scoring import Scored, Unusable
from pipelines.validation.expectations import Check, mean_like, run_checks

FIGURES = {"scores.png": "OOD scores", "embeddings.png": "Embeddings"}
CLASSES = 10  # in the table: those whose shares differ most
TOLERATED = 0.05  # share of images, and one in any case, that may be copies or of a single colour


@dataclass(frozen=True)
class Report:
    """What came out for a batch."""

    model: str  # its name and version
    incoming: str
    folder: Path  # with the files
    scored: Scored
    reference: Reference
    tests: dict[str, DriftTest]
    expectations: list[dict[str, Any]]

    @property
    def drifted(self) -> list[DriftTest]:
        return [test for test in self.tests.values() if test.verdict == "drift"]

    @property
    def violated(self) -> list[dict[str, Any]]:
        return [result for result in self.expectations if not result["success"]]

    @property
    def message(self) -> str:
        """One line."""
        scored, level = self.scored, float(self.reference.false_alarm_rate)
        told = f"{self.model}: {_counted(len(scored.path), 'image')}, {scored.is_ood.mean():.1%} flagged as OOD"
        told += f" (calibrated: {level:.1%})"
        problems = [
            f"drift of {test.title}: {test.effect:.3f} {test.measure}, limit {test.limit:g} (p {_p(test.p_value)})"
            for test in self.drifted
        ]
        problems += [
            f"not so: {result['claim']}" + (f" (such as {result['examples'][0]})" if result["unexpected"] else "")
            for result in self.violated
        ]
        return f"{told}; " + "; ".join(problems) if problems else f"{told}; no drift"

    def metrics(self) -> dict[str, float]:
        """Numbers by name, as MLflow charts them."""
        found = {
            "images": float(len(self.scored.path)),
            "unusable_files": float(len(self.scored.unusable)),
            "flagged_share": float(self.scored.is_ood.mean()),
            "median_ood_score": float(np.median(self.scored.ood_score)),
            "drifted_tests": float(len(self.drifted)),
            "violated_expectations": float(len(self.violated)),
        }
        for name, test in self.tests.items():
            found[f"{name}/effect"] = test.effect
            if test.p_value is not None:
                found[f"{name}/p_value"] = test.p_value
        return found

    def markdown(self, figures: Mapping[str, str]) -> str:
        """The whole story; `figures`: file name → address of the picture."""
        scored, reference = self.scored, self.reference
        classes = len(reference.classes)
        shares = [np.bincount(x.predicted, minlength=classes) / len(x.predicted) for x in (scored, reference)]
        shown = np.sort(np.argsort(-np.abs(shares[0] - shares[1]), kind="stable")[:CLASSES])
        lines = [
            f"# {literal(self.model)} on new images",
            "",
            f"{literal(self.message)}.",
            "",
            table(
                ["compared with validation", "effect", "limit", "p-value", "significant below", ""],
                [
                    [
                        test.title,
                        f"{test.effect:.3f} {test.measure}",
                        _limit(test),
                        _p(test.p_value),
                        f"{test.level:.2g}",
                        _verdict(test),
                    ]
                    for test in self.tests.values()
                ],
                "lrrrrl",
            ),
            "",
            table(
                ["", "batch", "validation"],
                [
                    ["images", f"{len(scored.path):,}", f"{len(reference.ood_score):,}"],
                    ["unusable files", f"{len(scored.unusable):,}", ""],
                    ["flagged as OOD", f"{scored.is_ood.mean():.1%}", f"{reference.is_ood.mean():.1%}"],
                    *(
                        [f"predicted {literal(reference.classes[k])}", f"{shares[0][k]:.1%}", f"{shares[1][k]:.1%}"]
                        for k in shown
                    ),
                ],
                "lrr",
            ),
            "",
            table(
                ["expected of the batch", "holds", "examples against it"],
                [
                    [
                        result["claim"],
                        "yes" if result["success"] else "**no**",
                        literals(result["examples"]) if result["unexpected"] else "",
                    ]
                    for result in self.expectations
                ],
            ),
            "",
            *(f"![{FIGURES[name]}]({address})" for name, address in figures.items()),
            "",
            f"Images from {literal(self.incoming)}; predictions, unusable files and figures in {literal(self.folder)}.",
        ]
        return "\n".join(lines) + "\n"

    def write(self, folder: Path, thresholds: DriftThresholds) -> None:
        """drift.json, unusable.csv and report.md."""
        summary = {
            "model": self.model,
            "incoming": self.incoming,
            "images": len(self.scored.path),
            "unusable": len(self.scored.unusable),
            "message": self.message,
            "tests": {name: asdict(test) | {"verdict": test.verdict} for name, test in self.tests.items()},
            "expectations": self.expectations,
            "thresholds": asdict(thresholds),
        }
        write_json(folder / "drift.json", summary)
        write_unusable(folder / "unusable.csv", self.scored.unusable)
        (folder / "report.md").write_text(self.markdown({name: name for name in FIGURES}))


def check_batch(scored: Scored, reference: Reference) -> list[dict[str, Any]]:
    """What Great Expectations finds of a scored batch of at least one image."""
    frame = pd.DataFrame({"path": scored.path, "sha256": scored.sha256, "ood_score": scored.ood_score})
    channels = range(scored.mean.shape[1])
    for channel in channels:
        frame[f"mean_{channel}"], frame[f"std_{channel}"] = scored.mean[:, channel], scored.std[:, channel]
    frame["contrast"] = scored.std.max(axis=1)
    with tempfile.TemporaryDirectory() as folder:
        return run_checks("incoming", {"batch": frame}, {"batch": list(_checks(len(frame), reference))}, Path(folder))


def write_unusable(path: Path, unusable: Sequence[Unusable]) -> None:
    """A CSV file of what could not be used, and why."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Unusable._fields)
        writer.writerows(unusable)


def _checks(count: int, reference: Reference) -> Iterator[Check]:
    tolerated = max(TOLERATED, 1 / count) + 1e-9
    yield Check("ExpectColumnValuesToNotBeNull", "every image has a score", {"column": "ood_score"})
    yield Check(
        "ExpectColumnValuesToBeUnique",
        "pictures occur once",
        {"column": "sha256", "mostly": max(0.0, 1 - 2 * tolerated)},  # of two copies both are counted
    )
    yield Check(
        "ExpectColumnValuesToBeBetween",
        "images are not of a single colour",
        {"column": "contrast", "min_value": 0, "strict_min": True, "mostly": 1 - tolerated},
    )
    for channel in range(reference.mean.shape[1]):
        which = f" of channel {channel}" if reference.mean.shape[1] > 1 else ""
        claim = f"brightness{which} is on average what it is in validation"
        yield mean_like(f"mean_{channel}", claim, reference.mean[:, channel], count)
        claim = f"contrast{which} is on average what it is in validation"
        yield mean_like(f"std_{channel}", claim, reference.std[:, channel], count)


def _verdict(test: DriftTest) -> str:
    return f"**{test.verdict}**" if test.verdict == "drift" else test.verdict


def _limit(test: DriftTest) -> str:
    return "–" if test.limit is None else f"{test.limit:g}"


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 1e-6" if value < 1e-6 else f"{value:.2g}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
