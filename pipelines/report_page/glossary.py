"""Plain words for the page's readers: what models learn from, what stages do."""

LOSSES = {  # of a student
    "crd": "telling which image the teacher's features are of",
    "kd": "giving the answers of the teacher's linear probe",
    "regression": "predicting the teacher's features",
    "clusterfit": "telling which cluster of the teacher's features an image belongs to",
}
STAGES = {
    "prepare": "images to arrays, splits, OOD sets",
    "validate": "expectations on the data",
    "baselines": "probes on raw pixels and an untrained encoder",
    "pretrain": "training without labels",
    "distill": "training to follow a teacher",
    "embed": "features and likelihood of every image",
    "probe": "classifiers on frozen features",
    "ood": "detectors, the map",
    "export": "ONNX, speed, parity",
    "report": "everything to MLflow",
}
