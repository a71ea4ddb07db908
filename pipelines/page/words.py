"""Plain words for the page's readers: what each number means, what each detector looks at."""

MEASURES = {  # columns of the comparison
    "linear_accuracy": "Share of test images whose class a linear classifier reads correctly from the frozen features.",
    "knn_accuracy": "The same, by a vote of the most similar training images: nothing is trained at all.",
    "few_label_accuracy": "The linear classifier again, when only ten images a class have a label.",
    "calibration_error": "How far the stated confidence is off, on average: 0.02 means two percentage points.",
    "bits_per_dim": "Bits needed to store one pixel value of a test image: the better the model knows what images look "
    "like, the fewer. Only variants with a likelihood have it.",
    "near_ood_auroc": "Chance that an image of a similar but foreign kind gets a higher alarm score than a usual one. "
    "1 is perfect, 0.5 a coin toss.",
    "far_ood_auroc": "The same for images that have nothing to do with the training data.",
    "ood_fpr95": "Share of usual images that raise a false alarm if 95 % of the foreign ones are to be caught.",
    "robustness": "Accuracy on blurred, noisy or otherwise damaged test images, as a share of that on clean ones.",
    "training_seconds": "Time in the training loop.",
    "latency_ms": "Time of the exported ONNX model for one image on the CPU of the machine that exported it.",
}
GROUPS = {  # heading → columns under it
    "Telling classes apart": (
        "linear_accuracy",
        "knn_accuracy",
        "few_label_accuracy",
        "calibration_error",
        "robustness",
    ),
    "Knowing what images look like": ("bits_per_dim",),
    "Knowing what it has never seen": ("near_ood_auroc", "far_ood_auroc", "ood_fpr95"),
    "Cost": ("training_seconds", "latency_ms"),
}
DETECTORS = {
    "mahalanobis": "distance to the nearest class in feature space, scaled by the features' spread",
    "relative_mahalanobis": "distance to the nearest class, less that to all training images together",
    "ssd": "distance to the nearest cluster of features; needs no labels",
    "knn": "distance to the k-th most similar training image",
    "msp": "how unsure the linear probe is of its first choice",
    "max_logit": "how weak the linear probe's strongest output is",
    "energy": "how weak all outputs of the linear probe are together",
    "gen": "how evenly the linear probe spreads its probabilities",
    "react": "energy, after features are clipped at their usual height",
    "vim": "the part of the features that the probe's directions do not explain, against its outputs",
    "nll": "how unlikely the image is under the model",
    "typicality": "how far the likelihood is from the usual one, too likely included",
    "nll_complexity": "likelihood, less what a PNG file explains",
    "likelihood_ratio": "likelihood, less what a model without context explains",
    "rank_ensemble": "mean rank by four of the detectors",
    "fused": "distance in feature space and likelihood together; the score of the exported model",
}
LOSSES = {  # of a student
    "crd": "telling which image the teacher's features are of",
    "kd": "giving the answers of the teacher's linear probe",
    "regression": "predicting the teacher's features",
    "clusterfit": "telling which cluster of the teacher's features an image belongs to",
}
STAGES = {
    "prepare": "images to arrays, splits, OOD sets",
    "validate": "expectations on the data",
    "floor": "probes on raw pixels and an untrained encoder",
    "pretrain": "training without labels",
    "distill": "training to follow a teacher",
    "embed": "features and likelihood of every image",
    "probe": "classifiers on frozen features",
    "ood": "detectors, the map",
    "export": "ONNX, speed, parity",
    "report": "everything to MLflow",
}
