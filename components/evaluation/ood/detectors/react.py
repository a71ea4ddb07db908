"""Energy, after features are clipped at their usual height."""

from dataclasses import dataclass

import numpy as np

from components.evaluation.ood.base import Batch, Detector, InDistribution
from components.evaluation.ood.detectors.energy import Energy
from components.evaluation.probes.linear_probe import LinearProbe

REACT_PERCENTILE = 90  # p of the paper
ROWS_AT_MOST = 50_000  # rows that a percentile of the training activations is taken from


@dataclass(frozen=True)
class React:
    """Energy of features that are clipped at a percentile of all training activations (Sun, Guo and Li 2021).

    https://arxiv.org/abs/2111.12797. It is made for a ReLU's features. Those of a transformer are negative as well, and
    only the large ones are clipped.
    """

    probe: LinearProbe
    ceiling: float

    @classmethod
    def fit(cls, data: InDistribution, k: int) -> "React":
        features = data.train.features
        step = -(-len(features) // ROWS_AT_MOST)
        return cls(data.probe, float(np.percentile(features[::step], REACT_PERCENTILE)))

    def score(self, batch: Batch) -> np.ndarray:
        return Energy.of_logits(self.probe.logits(np.minimum(batch.features, self.ceiling)))


DETECTOR = Detector(
    fit=React.fit,
    family="logits",
    meaning="energy, after features are clipped at their usual height",
    source="[Sun et al. 2021](https://arxiv.org/abs/2111.12797); made for the features of a ReLU",
    needs=("labels", "logits"),
    colour="grey",
)
