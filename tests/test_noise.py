"""tools.noise: which seeds, and what five runs' numbers come to."""

from tools.noise import flat, seeds, table

RUNS = {
    3407: {
        "reports/evaluate.json": {"n": 24, "q4_k_m.constrained.finished": 0.75},
        "reports/train/metrics.json": {"loss": 2.0},
    },
    1: {
        "reports/evaluate.json": {"n": 24, "q4_k_m.constrained.finished": 0.5},
        "reports/train/metrics.json": {"loss": 2.5},
    },
    2: {
        "reports/evaluate.json": {"n": 24, "q4_k_m.constrained.finished": 1.0},
        "reports/train/metrics.json": {"loss": 3.0},
    },
}


def test_the_seed_of_params_yaml_comes_first_and_none_comes_twice() -> None:
    assert seeds(3407) == [3407, 1, 2, 3, 4]
    assert seeds(2) == [2, 1, 3, 4, 5]


def test_the_table_has_every_metric_by_the_name_that_dvc_metrics_diff_gives_it() -> None:
    header, *rows = (line.split("\t") for line in table(RUNS).splitlines())
    assert header == ["file", "metric", "runs", "lowest", "highest", "spread", "mean", "standard_deviation"]
    assert rows == [
        ["reports/evaluate.json", "n", "3", "24", "24", "0", "24", "0"],
        ["reports/evaluate.json", "q4_k_m.constrained.finished", "3", "0.5", "1", "0.5", "0.75", "0.25"],
        ["reports/train/metrics.json", "loss", "3", "2", "3", "1", "2.5", "0.5"],
    ]


def test_nested_metrics_are_named_with_dots() -> None:
    assert flat({"n": 24, "q4_k_m": {"free": {"finished": 0.5}}}) == {"n": 24, "q4_k_m.free.finished": 0.5}
