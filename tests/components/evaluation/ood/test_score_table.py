import numpy as np
import pyarrow.parquet as pq

from components.evaluation.ood.score_table import read_scores, write_scores


def test_a_row_an_image_and_a_column_a_detector(tmp_path):
    rng = np.random.default_rng(0)
    counts = {"val": 4, "test": 5, "near": 2, "far": 3}
    scores = {name: {split: rng.normal(size=count) for split, count in counts.items()} for name in ("knn", "fused")}
    write_scores(scores, ["near", "far"], tmp_path / "scores.parquet")
    table = pq.read_table(tmp_path / "scores.parquet")
    assert table.column_names == ["split", "index", "knn", "fused"]
    assert table["split"].to_pylist() == ["val"] * 4 + ["test"] * 5 + ["ood-near"] * 2 + ["ood-far"] * 3
    assert table["index"].to_pylist() == [0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 1, 0, 1, 2]
    for name, of_split in scores.items():
        expected = np.concatenate([of_split[split] for split in counts])
        np.testing.assert_array_equal(table[name].to_numpy(), expected)
    again = read_scores(tmp_path / "scores.parquet")
    assert set(again) == set(scores)
    for name, of_split in again.items():
        assert set(of_split) == set(counts)
        assert all((values == scores[name][split]).all() for split, values in of_split.items())
