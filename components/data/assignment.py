"""From the images of all sources to the splits of a run: what is held out, what is removed, what overlaps."""

from collections.abc import Mapping, Sequence

import numpy as np

from components.data.config import DataConfig
from components.data.image_store import ImagePool
from components.data.sources.listing import Listing, require_known_classes
from components.data.splits import Removed, stratified_split, without_duplicates, without_shared
from components.errors import UserError


def check_classes(config: DataConfig, listings: Mapping[str, Listing]) -> tuple[str, ...]:
    """Names of the classes to be told apart, in order of their id: label i of the run means classes[i].

    `listings` is keyed by role: `labelled`, `test`, `pretrain`, `ood-NAME`. Raises a UserError for unknown names, fewer
    than two classes, and test classes that training does not know.
    """
    known = listings["labelled"].present
    require_known_classes(config.labelled.exclude_classes, known, "data.labelled.exclude_classes")
    small = listings["labelled"].small_classes(config.labelled.min_class_images)
    known = tuple(name for name in known if name not in config.labelled.exclude_classes and name not in small)
    for name, ood in config.ood.items():
        require_known_classes(ood.held_out_classes, known, f"data.ood.{name}.held_out_classes")
    held_out = held_out_classes(config)
    classes = tuple(name for name in known if name not in held_out)
    if len(classes) < 2:
        raise UserError(
            f"data.labelled: {listings['labelled'].name} has {len(classes)} class(es) to learn"
            f"{f' ({classes[0]})' if classes else ''}, expected two or more. Images without classes belong into one "
            "folder, named as data.pretrain."
        )
    if config.test is not None:
        left_out = {*config.test.exclude_classes, *small, *held_out}
        unknown = set(listings["test"].present) - left_out - set(classes)
        if unknown:
            raise UserError(
                f"data.test: {listings['test'].name} has classes that data.labelled lacks: "
                f"{', '.join(sorted(unknown))}. Leave them out with data.test.exclude_classes; "
                f"the known ones are {', '.join(classes)}."
            )
    return classes


def held_out_classes(config: DataConfig) -> set[str]:
    """Every class that some OOD set holds out."""
    return {name for ood in config.ood.values() for name in ood.held_out_classes}


def assign(
    config: DataConfig, classes: Sequence[str], rows: Mapping[str, np.ndarray], pool: ImagePool, seed: int
) -> tuple[dict[str, np.ndarray], Removed]:
    """Rows of the pool by split (train, val, test, pretrain, ood-NAME), and the removed rows with the reason.

    `rows` is keyed by role. Identical pictures never cross splits. Raises a UserError where a class is absent from a
    split, a set is left empty, or an OOD set overlaps the images that the model knows.
    """
    removed: Removed = {}

    def distinct(kept: np.ndarray, class_names: Sequence[str] | None = None) -> np.ndarray:
        kept, dropped = without_duplicates(kept, pool.sha256, pool.path, class_names)
        removed.update(dropped)
        return kept

    def apart(kept: np.ndarray, **others: np.ndarray) -> np.ndarray:
        kept, dropped = without_shared(kept, others, pool.sha256, pool.path)
        removed.update(dropped)
        return kept

    labelled, test = distinct(rows["labelled"], pool.class_name), None
    if config.test is not None:
        test = distinct(rows["test"], pool.class_name)
        labelled = apart(labelled, test=test)
    class_of = np.array(pool.class_name)
    everything = labelled if test is None else np.concatenate([labelled, test])
    held_out = {
        f"ood-{name}": everything[np.isin(class_of[everything], ood.held_out_classes)]
        for name, ood in config.ood.items()
        if ood.held_out_classes
    }

    labelled = labelled[np.isin(class_of[labelled], classes)]
    fractions = {"val": config.val_fraction, **({"test": config.test_fraction} if test is None else {})}
    rng = np.random.default_rng([seed, 0])
    parts = stratified_split(label_of(class_of[labelled], classes), classes, fractions, rng)
    splits = {name: labelled[positions] for name, positions in parts.items()}
    if test is not None:
        splits["test"] = test[np.isin(class_of[test], classes)]
        absent = sorted(set(classes) - set(class_of[splits["test"]]))
        if absent:
            raise UserError(
                f"data.test: class {absent[0]!r} has no usable image, so the split 'test' would lack it. Add images of "
                "it, or leave it out with data.labelled.exclude_classes."
            )
    if config.pretrain is not None:
        pretrain = distinct(rows["pretrain"])
        pretrain = pretrain[~np.isin(class_of[pretrain], list(held_out_classes(config)))]
        splits["pretrain"] = apart(pretrain, val=splits["val"], test=splits["test"], **held_out)
        if len(splits["pretrain"]) == 0:
            raise UserError("data.pretrain: no image is left that is not also in val, test or a held-out class.")

    known = dict(splits)
    for name, ood in config.ood.items():
        split = f"ood-{name}"
        if ood.held_out_classes:
            splits[split] = held_out[split]
        elif ood.shuffled_test:
            splits[split] = apart(distinct(_shuffled(splits["test"], pool, seed)), **known)
        else:
            splits[split] = _apart_from_known(distinct(rows[split]), known, name, config, pool, removed)
        if len(splits[split]) == 0:
            raise UserError(f"data.ood.{name}: no usable image. Give a source that holds some, or remove the OOD set.")
    return splits, removed


def label_of(class_names: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Labels int64 (N,) of class names; −1 where a name is not among `classes`."""
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index.get(name, -1) for name in class_names], dtype=np.int64)


def _apart_from_known(
    rows: np.ndarray,
    known: Mapping[str, np.ndarray],
    name: str,
    config: DataConfig,
    pool: ImagePool,
    removed: Removed,
) -> np.ndarray:
    """Take the odd picture that the model knows out of an OOD set; where they are many, the set is no OOD set."""
    kept, shared = without_shared(rows, known, pool.sha256, pool.path)
    if len(shared) > config.max_quarantined * len(rows):
        examples = "; ".join(f"{pool.path[row]} is {removal.reason}" for row, removal in list(shared.items())[:3])
        raise UserError(
            f"data.ood.{name}: {len(shared)} of its {len(rows)} images are among the images that the model knows "
            f"({examples}). An OOD set must hold other images than data.labelled, data.test and data.pretrain."
        )
    removed.update(shared)
    return kept


def _shuffled(test: np.ndarray, pool: ImagePool, seed: int) -> np.ndarray:
    """Add the test images with their pixels moved about, each by a permutation of its own; channels stay together.

    An image of a single colour stays as it is, so the caller takes out what is no new picture.
    """
    rng = np.random.default_rng([seed, 1])
    rows = []
    for row in test:
        image = pool.images(np.array([row]))[0]
        pixels = image.reshape(-1, image.shape[-1])  # (H·W, C)
        shuffled = rng.permutation(pixels, axis=0).reshape(image.shape)
        rows.append(pool.add(shuffled, "shuffled test", f"{pool.path[row]} (shuffled)", ""))
    return np.array(rows)
