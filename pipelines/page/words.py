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
GENERATIVE = {  # terms of the objective
    "autoregressive": "predicting images piece by piece",
    "pixelcnn": "predicting images piece by piece, by convolutions",
    "permuted": "predicting images piece by piece, in any order",
    "masked": "filling in hidden parts of images",
    "replaced": "finding the parts of images that a small model has replaced",
    "vae": "explaining images by a noisy code",
    "vqvae": "explaining images by a code of a codebook for each patch",
    "aae": "explaining images by a code that a discriminator takes for noise",
    "bigan": "inverting a generator of images, to the satisfaction of a discriminator",
}
CONTRASTIVE = {  # terms by their kind
    "contrastive": "telling images apart, however they are altered",
    "clustering": "telling groups of similar images apart, which it forms itself",
    "predictive": "telling how an image was altered or taken apart",
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
