"""The report on a scored batch."""

from pathlib import Path

import numpy as np
from markdown_it import MarkdownIt

from components.export.reference import Reference
from components.monitoring.scoring import Scored, Unusable
from pipelines.validation.scored_batch import Report

ODD = ["<b>a|b</b>", "[a](http://b.c)", "`x`"]


def report_on(classes: list[str], incoming: str, file: str) -> Report:
    count, numbers = len(classes), np.arange(float(len(classes)))
    answers = {"ood_score": numbers, "is_ood": numbers > 1, "predicted": np.arange(count), "embedding": np.eye(count)}
    pixels = {"mean": np.ones((count, 1)), "std": np.ones((count, 1))}
    reference = Reference(np.array(classes), np.array(False), np.array(0.05), np.array(1.0), **answers, **pixels)
    scored = Scored([file] * count, ["0"] * count, **answers, **pixels, unusable=[Unusable(file, "empty file")])
    violated = {"claim": "pictures occur once", "success": False, "unexpected": 1, "examples": [file]}
    return Report("gcrl version 1", incoming, Path("data/monitoring/now"), scored, reference, {}, [violated])


def test_names_of_classes_and_files_mean_nothing() -> None:
    markdown = MarkdownIt("commonmark").enable("table")
    plain, odd = (
        markdown.parse(report_on(classes, incoming, file).markdown({}))
        for classes, incoming, file in ((["a", "b", "c"], "new", "a.png"), (ODD, "n`e`w", "<i>|*a*.png"))
    )
    assert [token.type for token in odd] == [token.type for token in plain]
    seen = [child for token in odd for child in token.children or []]
    kinds = {child.type for child in seen} - {"text", "text_special"}
    assert kinds <= {child.type for token in plain for child in token.children or []}
    text = "".join(child.content for child in seen)
    assert all(f"predicted {name}" in text for name in ODD)
    assert "Images from n`e`w; " in text
    assert text.count("<i>|*a*.png") == 2  # in the message and in the table
