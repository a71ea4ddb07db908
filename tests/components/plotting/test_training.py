import numpy as np
import pytest
from PIL import Image

from components.plotting.comparison import comparison_figure, layer_lines, variant_lines
from components.plotting.training import image_rows, training_curves


def opened(path) -> np.ndarray:
    """A PNG as grey levels (H, W)."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("L"))


def history(*names: str) -> list[dict[str, float]]:
    return [{"step": 10 * i, **dict.fromkeys(names, float(i))} for i in range(1, 5)]


def test_curves_of_a_variant_leave_out_what_it_does_not_have(tmp_path):
    likelihood, contrast = ("nll_nats_per_token", "val/nll_nats_per_token"), ("contrastive_loss", "gradient_cosine")
    for name, logged in {
        "one": likelihood,
        "two": likelihood[:1] + contrast[:1],
        "three": likelihood + contrast,
    }.items():
        training_curves(history(*logged), tmp_path / f"{name}.png")
    one, two, three = (opened(tmp_path / f"{name}.png").shape[1] for name in ("one", "two", "three"))
    assert one < two < three  # a panel each
    assert two == pytest.approx(2 * one, rel=0.01)


def test_curves_of_a_run_of_one_step(tmp_path):
    training_curves(history("contrastive_loss", "val/knn_accuracy")[:1], tmp_path / "curves.png")
    assert opened(tmp_path / "curves.png").min() < 128


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_shown_as_they_are(tmp_path, channels):
    dark, light = (np.full((20, 8, 8, channels), level, np.uint8) for level in (0, 200))
    image_rows({"dark": dark, "light": light}, tmp_path / "rows.png")
    shown = opened(tmp_path / "rows.png")
    assert (shown == 0).mean() > 0.15
    assert (shown == 200).mean() > 0.15


def test_every_number_of_a_comparison_is_drawn(tmp_path):
    columns = {
        "accuracy": {"hybrid": 0.98, "generative": 0.95},
        "bits/dim": {"hybrid": 1.8, "generative": 1.7},
        "seconds": {"hybrid": 0.0, "generative": 0.0},
        "none at all": {"hybrid": None, "generative": None},
        "likelihood": {"hybrid": 1.0, "generative": None},
        "sixth": {"hybrid": 1.0, "generative": 2.0},
    }
    comparison_figure(columns, {"accuracy"}, tmp_path / "two-rows.png")
    comparison_figure(dict(list(columns.items())[:5]), {"accuracy"}, tmp_path / "one-row.png")
    assert opened(tmp_path / "two-rows.png").shape[0] == 2 * opened(tmp_path / "one-row.png").shape[0]
    three = {"accuracy": {f"v{i}": 0.9 for i in range(9)}}  # more variants than colours
    comparison_figure(three, set(), tmp_path / "many.png")
    assert opened(tmp_path / "many.png").min() < 128


def colours(path) -> set[tuple[int, ...]]:
    """Colours of at least 20 pixels of a PNG."""
    with Image.open(path) as image:
        found = image.convert("RGB").getcolors(image.width * image.height)
    return {colour for count, colour in found if count >= 20}


BLUE, ORANGE, GREEN = (0, 114, 178), (230, 159, 0), (0, 158, 115)


def test_a_variant_keeps_its_colour_where_another_has_no_line(tmp_path):
    lines = {"hybrid": [(10.0, 2.0), (20.0, 1.0)], "generative": [], "contrastive": [(10.0, 3.0), (20.0, 2.0)]}
    variant_lines(lines, "loss", "step", tmp_path / "lines.png")
    assert {BLUE, GREEN} <= colours(tmp_path / "lines.png")
    assert ORANGE not in colours(tmp_path / "lines.png")


def test_layers_of_encoder_and_decoder(tmp_path):
    encoder, decoder = [("encoder", 0.2), ("encoder", 0.9)], [("decoder", 0.5)]
    layer_lines({"hybrid": encoder + decoder, "none": [], "contrastive": encoder}, "accuracy", tmp_path / "layers.png")
    layer_lines({"hybrid": encoder, "none": [], "contrastive": encoder}, "accuracy", tmp_path / "encoders.png")
    assert {BLUE, GREEN} <= colours(tmp_path / "layers.png")
    assert ORANGE not in colours(tmp_path / "layers.png")
    assert (opened(tmp_path / "layers.png") != opened(tmp_path / "encoders.png")).any()
