from pathlib import Path

import pytest

from components.evaluation.ood import detectors, registry
from components.evaluation.ood.base import Detector

ROOT = Path(__file__).parents[4]


def test_a_file_is_a_detector():
    files = {path.stem for path in Path(detectors.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(registry.names()) == files
    assert all(isinstance(registry.load(name), Detector) for name in files)


def test_default_and_all():
    declared = registry.load_all()
    assert [*registry.chosen(())] == [name for name, detector in declared.items() if detector.default]
    assert [*registry.chosen(("all",))] == [*declared]
    assert [*registry.chosen(("nll", "fused"))] == ["nll", "fused"]  # in the order that was asked for
    assert "fused" in registry.chosen(())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ("fused", "mahalonobis"),
            "unknown value 'mahalonobis', did you mean 'mahalanobis'. Expected 'energy'",
        ),
        (("fused", "all"), "unknown value 'all'"),
        (("fused", "fused"), "detectors holds a name twice"),
    ],
)
def test_wrong_names(given, message):
    with pytest.raises(ValueError, match=message):
        registry.check_names(given)


def test_the_docs_have_the_table():
    assert registry.table() in (ROOT / "docs/methods.md").read_text(), (
        "docs/methods.md lacks what registry.table() says"
    )
