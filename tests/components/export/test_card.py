from typing import Any

import pytest
from markdown_it import MarkdownIt

from components.export.card import model_card

TEXT = ("text", "text_special", "softbreak")
NAMES = ("auroc", "auroc_low", "auroc_high", "fpr95", "flagged")


def card_of(
    variant: str, classes: list[str], sets: list[str], bits: dict[str, float], objective: str, **more: Any
) -> str:
    probe = {"linear_accuracy": 0.9861, "linear_accuracy_se": 0.006, "knn_accuracy": 0.97}
    probe |= {"linear_ece": 0.04, "linear_ece_calibrated": 0.0123}
    ood = {f"fused/{s}/{n}": v for s in sets for n, v in zip(NAMES, (0.9, 0.8, 0.95, 0.3, 0.5), strict=True)}
    ood |= {"fused/test/flagged": 0.061, "fused/near/auroc": 0.9, "fused/mean/auroc": 0.9}
    export = dict.fromkeys(("parity/embedding", "parity/probabilities", "parity/ood_score"), 1e-6)
    export |= {f"{r}_{m}": 12.0 for r in ("onnx", "torch") for m in ("latency_ms", "images_per_second")}
    facts: dict[str, Any] = {"feature_size": 16, "false_alarm_rate": 0.05, "parameters": 1234567, "steps": 600}
    facts |= {"batch_size": 128, "seed": 0, "data_fingerprint": "abcdef" * 10, "objective": objective, **more}
    stages = {"probe": probe, "ood": ood, "embed": bits, "export": export}
    return model_card(variant, classes, (8, 8, 1), stages, 1.5, facts)


@pytest.mark.parametrize("bits", [{}, {"bits_per_dim/test": 1.987}], ids=["no likelihood", "likelihood"])
def test_the_card_tells_what_was_measured(bits):
    card = card_of("hybrid", ["zero", "one"], ["photos", "held-out"], bits, "1 · autoregressive + 1 · nt_xent")
    for told in ("98.6%", "0.012", "6.1%", "zero, one", "`(N, 8, 8, 1)`", "1,234,567", "above 1.5", "5% of validation"):
        assert told in card
    assert ("1.987 bits/dim" in card) == bool(bits)
    assert "| held-out | 0.900 (0.800 to 0.950) | 0.300 | 50.0% |" in card
    assert "| photos |" in card
    assert "| near |" not in card


def test_class_names_mean_nothing_in_the_card():
    odd = ["a|b", "<img src=x onerror=alert(1)>", "[a](http://b.c)", "`x`", "# x", "red, blue", "red", "blue", "a\nb"]
    markdown = MarkdownIt("commonmark").enable("table")
    plain, hostile = (
        markdown.parse(card_of("hybrid", names, ["far"], {}, "nt_xent"))
        for names in ([f"c{i}" for i in range(len(odd))], odd)
    )
    assert [token.type for token in hostile] == [token.type for token in plain]
    inline = [[child.type for token in page for child in token.children or []] for page in (plain, hostile)]
    assert [t for t in inline[1] if t not in TEXT] == [t for t in inline[0] if t not in TEXT]
    text = "\n".join("".join(child.content for child in token.children or []) for token in hostile)
    listed = r'a|b, <img src=x onerror=alert(1)>, [a](http://b.c), `x`, # x, "red, blue", red, blue, a\nb'
    assert f"classes in order: {listed}\n" in text


def test_the_card_tells_how_files_are_read_and_which_were_converted():
    card = card_of("hybrid", ["zero", "one"], ["photos"], {}, "nt_xent")
    assert "`decode(Path(path), image_size=8, channels=1)`" in card
    reading = {"image_size": 8, "channels": 1, "resize": True, "fit": "pad", "transparent": [9, 9, 9], "deep": "reject"}
    converted = {"transparent on (9, 9, 9)": 1200, "CMYK to sRGB": 3}
    card = card_of(
        "hybrid", ["zero", "one"], ["photos"], {}, "nt_xent", reading=reading, converted=converted, finer_size=96
    )
    recipe = "image_size=8, channels=1, resize=True, fit='pad', transparent=[9, 9, 9], deep='reject'"
    assert f"`decode(Path(path), {recipe})`" in card
    assert "Images that were converted: transparent on (9, 9, 9) 1,200, CMYK to sRGB 3." in card
    assert "cut out of the images at 96×96 pixels" in card
