"""Plain words for the page's readers: what models learn from, what stages do."""

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
