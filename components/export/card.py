"""The model card: what the shipped file is, how good it is, and what it must not be used for."""

from collections.abc import Mapping, Sequence
from typing import Any

from components.markdown import literal, literals, table


def model_card(
    variant: str,
    classes: Sequence[str],
    image_shape: tuple[int, int, int],
    metrics: Mapping[str, Mapping[str, float]],
    threshold: float,
    facts: Mapping[str, Any],
) -> str:
    """Markdown (after Mitchell et al. 2019, "Model cards for model reporting") from {stage: metrics}."""
    probe, ood, export = metrics["probe"], metrics["ood"], metrics["export"]
    height, width, channels = image_shape
    reading = {"image_size": height, "channels": channels} | facts.get("reading", {})
    recipe = f"decode(Path(path), {', '.join(f'{name}={value!r}' for name, value in reading.items())})"
    sets = sorted({key.split("/")[1] for key in ood if key.startswith("fused/") and key.endswith("auroc_low")})
    detection = table(
        ["OOD set", "AUROC (95 % interval)", "FPR@95", "flagged"],
        [
            [
                literal(name),
                f"{ood[f'fused/{name}/auroc']:.3f} "
                f"({ood[f'fused/{name}/auroc_low']:.3f} to {ood[f'fused/{name}/auroc_high']:.3f})",
                f"{ood[f'fused/{name}/fpr95']:.3f}",
                f"{ood[f'fused/{name}/flagged']:.1%}",
            ]
            for name in sets
        ],
    )
    likelihood = "none: it has no decoder"
    for key, size in {"bits_per_dim/test": "", "reduced_bits_per_dim/test": " at their reduced size"}.items():
        if (bits := metrics["embed"].get(key)) is not None:
            likelihood = f"{bits:.3f} bits/dim on test images{size}"
    return f"""# Model card: {literal(variant)}

One ONNX file that turns an image into an embedding, class probabilities and a calibrated out-of-distribution (OOD)
score.

| input | |
|---|---|
| `image` | uint8 `(N, {height}, {width}, {channels})`, any N, values 0 to 255: scaling is inside |
| from a file | with decode.py, which lies beside the model: `{recipe}` |

| output | |
|---|---|
| `embedding` | float32 `(N, {facts["feature_size"]})` |
| `probabilities` | float32 `(N, {len(classes)})`, temperature scaled; classes in order: {literals(classes)} |
| `ood_score` | float32 `(N,)`, higher = more out-of-distribution |
| `is_ood` | bool `(N,)`: `ood_score` above {threshold:.4g}, which flags {facts["false_alarm_rate"]:.0%} of validation |

## How good it is (test split and OOD sets: nothing was fitted, tuned or calibrated on them)
| | |
|---|---|
| linear probe accuracy | {probe["linear_accuracy"]:.1%} ± {probe["linear_accuracy_se"]:.1%} (standard error) |
| k-NN accuracy | {probe["knn_accuracy"]:.1%} |
| calibration error | {probe["linear_ece_calibrated"]:.3f} (before temperature scaling {probe["linear_ece"]:.3f}) |
| likelihood | {likelihood} |
| test images flagged as OOD | {ood["fused/test/flagged"]:.1%} |

{detection}

These numbers also decide which model of several is best and may become champion: the best of many looks a little better
than it is.

## How fast it is (CPU of the machine that exported it)
One image takes ONNX Runtime {export["onnx_latency_ms"]:.2f} ms and PyTorch {export["torch_latency_ms"]:.2f} ms; in
batches of 64, {export["onnx_images_per_second"]:,.0f} and {export["torch_images_per_second"]:,.0f} images/s. Largest
difference between the two: embedding {export["parity/embedding"]:.1e}, probabilities
{export["parity/probabilities"]:.1e}, OOD score {export["parity/ood_score"]:.1e}.

## Where it comes from
{facts["parameters"]:,} parameters, {facts["steps"]:,} steps of {facts["batch_size"]} images, seed {facts["seed"]}, data
fingerprint `{facts["data_fingerprint"][:16]}`. Objective:
{literal(facts["objective"])}.{_weights(facts)}{_images(facts)}

## Limits
The score knows images unlike the training set as far as the sets above show it; other kinds of novelty are untested. An
image that is not flagged may still be misclassified. Images must have the size and the channels above.
"""


def _weights(facts: Mapping[str, Any]) -> str:
    if "encoder" in facts:
        return (
            f" Its encoder is timm's {literal(facts['encoder'])}, unchanged, with weights from "
            f"{literal(facts['encoder_weights'])} (SHA-256 `{facts['encoder_sha256'][:16]}`, licence: "
            f"{literal(facts['encoder_license'])})."
        )
    if "start_from" in facts:
        return f" It started from {literal(facts['start_from'])} (SHA-256 `{facts['start_sha256'][:16]}`)."
    return ""


def _images(facts: Mapping[str, Any]) -> str:
    told = ""
    if side := facts.get("finer_size"):
        told += f" Views to train on were cut out of the images at {side}×{side} pixels."
    if counts := facts.get("converted"):
        each = ", ".join(f"{literal(conversion)} {count:,}" for conversion, count in counts.items())
        told += f" Images that were converted: {each}."
    return told
