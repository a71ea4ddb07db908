"""Great Expectations over a prepared data set: a broken one stops the run before it costs training time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.data.config import DataConfig
from components.data.prepared import Prepared
from components.errors import UserError
from components.files import atomic_directory, read_table, write_json
from components.markdown import literal, literals, table
from pipelines.validation.expectations import DRIFT, Check, mean_like, run_checks

LABELLED_SPLITS = ("train", "val", "test")
CLASS_SHARE_GAP = 0.1  # largest difference between a class's share of a split and of train
CONSTANT_SHARE = 0.01  # images of a single grey level that a split may hold


def validate(prepared_dir: Path | str, out: Path | str, config: DataConfig) -> dict[str, Any]:
    """Check the prepared data set and write the report to `out`; return what its summary.json holds.

    Writes `summary.md`, `summary.json`, `passed.json` and `gx/`, a Great Expectations project whose Data Docs lie in
    `gx/uncommitted/data_docs/local_site` (summary.md links to the pages). On a violation the report goes to
    `<out>-failed` instead and a UserError names each violated expectation, its split and example files.
    """
    prepared, out = Prepared.open(prepared_dir), Path(out)
    failed = out.with_name(f"{out.name}-failed")
    frames = _frames(prepared)
    checks = {
        "images": list(_image_checks(prepared, config, frames["images"])),
        "classes": list(_class_checks(config, frames["images"]["split"])),
        "splits": list(_split_checks(prepared)),
        "sources": list(_source_checks(config)),
    }
    with atomic_directory(failed) as folder:  # becomes `out` where nothing is violated
        results = run_checks("prepared", frames, checks, folder)
        summary = {
            "success": all(result["success"] for result in results),
            "fingerprint": prepared.fingerprint(),
            "expectations": results,
            "constants": {
                "class_share_gap": CLASS_SHARE_GAP,
                "constant_share": CONSTANT_SHARE,
                "drift": DRIFT,
                "max_quarantined": config.max_quarantined,
            },
        }
        write_json(folder / "summary.json", summary)
        (folder / "summary.md").write_text(_markdown(summary, prepared, folder))
    if not summary["success"]:
        raise UserError(_violation(prepared, results, failed))
    with atomic_directory(out) as folder:
        for entry in failed.iterdir():
            entry.rename(folder / entry.name)
        # the same for every data set: training waits for it, but is not repeated because some other summary came out
        write_json(folder / "passed.json", {"success": True})
    failed.rmdir()
    return summary


def _frames(prepared: Prepared) -> dict[str, pd.DataFrame]:
    """What is checked: one row an image, one a labelled split and class, one a split, one a source."""
    images = read_table(prepared.root / "manifest.parquet").to_pandas()
    images["also_in"] = _also_in(images)
    classes = pd.concat([_class_shares(images, split, prepared.classes) for split in LABELLED_SPLITS])
    classes["share_above_train"] = classes["share"] - np.tile(classes["share"].iloc[: len(prepared.classes)], 3)
    splits = pd.DataFrame(
        [
            {
                "split": split,
                "manifest_rows": int((images["split"] == split).sum()),
                "array_rows": len(prepared.images(split)),
                "recorded": prepared.meta["splits"][split]["count"],
            }
            for split in prepared.splits
        ]
    )
    if (finer := prepared.finer()) is not None:
        splits["finer_rows"] = pd.Series(len(finer), splits.index).where(splits["split"] == prepared.pretrain_split)
    shares = {role: source["quarantined_share"] for role, source in prepared.meta["sources"].items()}
    sources = pd.DataFrame({"role": list(shares), "quarantined_share": list(shares.values())})
    return {"images": images, "classes": classes, "splits": splits, "sources": sources}


def _class_shares(images: pd.DataFrame, split: str, classes: tuple[str, ...]) -> pd.DataFrame:
    counts = images.loc[images["split"] == split, "class_name"].value_counts().reindex(list(classes), fill_value=0)
    return pd.DataFrame(
        {"split": split, "class_name": list(classes), "images": counts.array, "share": (counts / counts.sum()).array}
    )


def _also_in(images: pd.DataFrame) -> pd.Series:
    """For each image, a split that holds the same pixels and must not: "" where there is none.

    A picture may be in train and in pretrain, and in several OOD sets; every other pair of splits is disjoint.
    """
    # the train and pretrain images are one group, so are those of all OOD sets; a group may share within itself
    group = images["split"].replace("pretrain", "train").mask(images["split"].str.startswith("ood-"), "ood")
    found = pd.Series("", index=images.index)
    for name in group.unique():
        others = images[group != name].drop_duplicates("sha256").set_index("sha256")["split"]
        found[group == name] = images.loc[group == name, "sha256"].map(others).fillna("")
    return found


def _image_checks(prepared: Prepared, config: DataConfig, images: pd.DataFrame) -> Iterator[Check]:
    channels = range(config.channels)
    statistics = {f"{kind}_{c}": top for c in channels for kind, top in (("mean", 255), ("std", 127.5))}
    columns = ["split", "index", "source", "path", "sha256", "label", "class_name", "converted"]
    columns += ["width", "height", "channels"]
    columns += [*statistics, "entropy"]
    yield Check(
        "ExpectTableColumnsToMatchSet",
        "the manifest has its columns",
        {"column_set": [*columns, "also_in"], "exact_match": True},
    )
    for column in ("split", "index", "source", "path", "sha256", "label", *statistics, "entropy"):
        yield Check("ExpectColumnValuesToNotBeNull", f"`{column}` is never missing", {"column": column})
    for column in ("index", "label"):
        yield Check("ExpectColumnValuesToBeOfType", f"`{column}` is int64", {"column": column, "type_": "int64"})
    yield Check("ExpectColumnValuesToMatchRegex", "hashes are SHA-256", {"column": "sha256", "regex": "^[0-9a-f]{64}$"})
    yield Check("ExpectCompoundColumnsToBeUnique", "an image has one row", {"column_list": ["split", "index"]})
    for column, value in {"width": config.image_size, "height": config.image_size, "channels": config.channels}.items():
        yield Check("ExpectColumnValuesToBeInSet", f"`{column}` is {value}", {"column": column, "value_set": [value]})
    for column, top in {**statistics, "entropy": 8}.items():
        yield Check(
            "ExpectColumnValuesToBeBetween",
            f"`{column}` lies between 0 and {top}",
            {"column": column, "min_value": 0, "max_value": top},
        )
    for split in prepared.splits:
        yield _label_check(split, list(range(len(prepared.classes))))
        yield Check("ExpectColumnValuesToBeUnique", "no picture occurs twice", {"column": "sha256"}, split)
        yield Check(
            "ExpectColumnValuesToBeInSet",
            "no picture is also in a split that must be apart",
            {"column": "also_in", "value_set": [""]},
            split,
        )
    for split in (*LABELLED_SPLITS, *(["pretrain"] if "pretrain" in prepared.splits else [])):
        yield Check(
            "ExpectColumnValuesToBeBetween",
            f"at least {1 - CONSTANT_SHARE:.0%} of the images are not of a single grey level",
            {"column": "entropy", "min_value": 0, "strict_min": True, "mostly": 1 - CONSTANT_SHARE},
            split,
        )
    for split in ("val", "test"):
        count = max(1, int((images["split"] == split).sum()))
        for column in (f"mean_{c}" for c in channels):
            train = images.loc[images["split"] == "train", column]
            yield mean_like(column, f"`{column}` is on average what it is in train", train, count, split)


def _label_check(split: str, labels: list[int]) -> Check:
    if split == "pretrain":
        claim, arguments = "every label is of a class, or −1", {"column": "label", "value_set": [-1, *labels]}
        return Check("ExpectColumnValuesToBeInSet", claim, arguments, split)
    labelled = split in LABELLED_SPLITS
    return Check(
        "ExpectColumnDistinctValuesToEqualSet",
        "every class occurs, and no other label" if labelled else "no image has a label",
        {"column": "label", "value_set": labels if labelled else [-1]},
        split,
    )


def _class_checks(config: DataConfig, split_of: pd.Series) -> Iterator[Check]:
    for split in LABELLED_SPLITS:
        yield Check(
            "ExpectColumnValuesToBeBetween", "every class has images", {"column": "images", "min_value": 1}, split
        )
    for split in ("val", "test") if config.test is None else ("val",):
        an_image = 1 / max(1, int((split_of == split).sum()))  # more or less, by rounding
        gap = max(CLASS_SHARE_GAP, an_image)
        yield Check(
            "ExpectColumnValuesToBeBetween",
            "classes have the shares that they have in train",
            {"column": "share_above_train", "min_value": -gap, "max_value": gap},
            split,
        )


def _split_checks(prepared: Prepared) -> Iterator[Check]:
    for column, what in {"array_rows": "array", "recorded": "entry in dataset.json"}.items():
        yield Check(
            "ExpectColumnPairValuesToBeEqual",
            f"manifest and {what} hold as many images",
            {"column_A": "manifest_rows", "column_B": column},
        )
    if side := prepared.finer_size:
        yield Check(
            "ExpectColumnPairValuesToBeEqual",
            f"each image that views are cut out of is there with {side}×{side} pixels, too",
            {"column_A": "manifest_rows", "column_B": "finer_rows", "ignore_row_if": "either_value_is_missing"},
        )


def _source_checks(config: DataConfig) -> Iterator[Check]:
    yield Check(
        "ExpectColumnValuesToBeBetween",
        f"at most {config.max_quarantined:.1%} of a source's files are quarantined",
        {"column": "quarantined_share", "min_value": 0, "max_value": config.max_quarantined},
    )


def _violation(prepared: Prepared, results: list[dict[str, Any]], report: Path) -> str:
    violated = [result for result in results if not result["success"]]
    lines = [f"{prepared.root}: the data set violates {len(violated)} of {len(results)} expectations:"]
    for result in violated:
        where = f"split {result['split']}" if result["split"] else "the whole set"
        count = f", {result['unexpected']} rows" if result["unexpected"] else ""
        examples = f", for example {', '.join(result['examples'])}" if result["examples"] else ""
        told = f"{result['claim']} ({result['expectation']}) in {where}{count}{examples}"
        lines.append(
            f"  - cannot be checked: {told}: {result['problem']}" if result["problem"] else f"  - not so: {told}"
        )
    lines.append(f"The report is {report / 'summary.md'}. Repair the source, then run `dvc repro` again.")
    return "\n".join(lines)


def _markdown(summary: dict[str, Any], prepared: Prepared, folder: Path) -> str:
    # linked page by page: the site's index is filled by scripts that come from the internet
    pages = sorted((folder / "gx/uncommitted/data_docs/local_site/validations").rglob("*.html"))
    links = [f"[{page.stem.removeprefix('prepared-')}]({page.relative_to(folder)})" for page in pages]
    results = summary["expectations"]
    kept = sum(result["success"] for result in results)
    lines = [
        "# Data validation",
        "",
        f"{kept} of {len(results)} expectations hold. Data set `{summary['fingerprint'][:12]}`; "
        f"all values are in the Data Docs: {', '.join(links)}.",
        "",
        table(
            ["split", "images"],
            [[literal(name), str(split["count"])] for name, split in prepared.meta["splits"].items()],
            "lr",
        ),
        "",
        table(
            ["source", "images", "quarantined", "converted", "left alone"],
            [
                [
                    literal(f"{source['name']} ({role})"),
                    str(source["files"]),
                    str(source["quarantined"]),
                    literal(_counted(source["converted"])),
                    literal(_counted(source["others"] | _small(source["small_classes"]))),
                ]
                for role, source in prepared.meta["sources"].items()
            ],
            "lrrll",
        ),
        "",
        table(
            ["holds", "split", "expectation", "examples against it"],
            [
                [
                    "yes" if result["success"] else "**no**",
                    literal(result["split"] or "all"),
                    result["claim"],
                    literals(result["examples"]),
                ]
                for result in sorted(results, key=lambda result: result["success"])
            ],
        ),
    ]
    return "\n".join(lines) + "\n"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{what} {count:,}" for what, count in counts.items())


def _small(classes: dict[str, int]) -> dict[str, int]:
    return {f"the small class {name}": count for name, count in classes.items()}
