"""Metrics: worked by hand, by property, and through `evaluate` from the folder, offline."""

from pathlib import Path

import numpy as np
import pytest
from genecompass.eval import metrics
from genecompass.eval.metrics import macro_f1
from genecompass.eval.metrics.intervals import paired_difference, resampled_rows
from genecompass.eval.tasks.coverage import accuracy_by_coverage
from genecompass.eval.tasks.differences import verdict
from hypothesis import given, settings
from hypothesis import strategies as st

FOLDER = Path(metrics.__file__).parent
LABELS = st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from("ABCD")), min_size=1, max_size=40)


def test_macro_f1_averages_labels_of_the_truth_only():
    truth = ["a", "a", "b", "b"]
    # a: precision 1, recall 1/2; b: precision 1, recall 1; the foreign label "z" adds an error, not a class
    assert metrics.macro_f1(truth, ["a", "z", "b", "b"]) == pytest.approx((2 / 3 + 1) / 2)
    assert metrics.weighted_f1(["a", "b", "b", "b"], ["z", "b", "b", "b"]) == pytest.approx(3 / 4)


@settings(max_examples=50, deadline=None)
@given(LABELS)
def test_scores_lie_between_0_and_1_and_agree_with_the_tables(pairs):
    truth, predicted = map(list, zip(*pairs, strict=True))
    table = metrics.per_class_table(truth, predicted)
    present = table[table["cells"] > 0]
    assert metrics.macro_f1(truth, predicted) == pytest.approx(present["f1"].mean())
    assert metrics.accuracy(truth, predicted) == pytest.approx(
        (present["recall"] * present["cells"]).sum() / len(truth)
    )
    confusion = metrics.confusion_table(truth, predicted)
    assert confusion.to_numpy().sum() == len(truth)
    assert list(confusion.index) == sorted(set(truth))
    assert metrics.macro_f1(truth, truth) == 1


def test_missing_labels_and_lengths_are_refused():
    with pytest.raises(ValueError, match="entry 1 has no label"):
        metrics.accuracy(["a", np.nan], ["a", "a"])
    with pytest.raises(ValueError, match="truth has 1 entries but predicted has 2"):
        metrics.macro_f1(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="nothing to score"):
        metrics.accuracy([], [])


def test_ranking_scores():
    assert metrics.auroc([0, 1], [0.5, 0.5]) == 0.5  # ties count one half
    assert metrics.auprc([1, 0, 0, 1], [4, 3, 2, 1]) == pytest.approx((1 + 0.5) / 2)
    with pytest.raises(ValueError, match="one class only"):
        metrics.auroc([1, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="entry 1 is not a finite number"):
        metrics.auprc([0, 1], [0.1, np.nan])


def test_calibration_error_is_zero_when_scores_mean_what_they_say():
    predicted = np.array(["a"] * 10)
    truth = np.array(["a"] * 8 + ["b"] * 2)
    assert metrics.expected_calibration_error(truth, predicted, np.full(10, 0.8)) == pytest.approx(0)
    assert metrics.expected_calibration_error(truth, predicted, np.full(10, 1.0)) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="between 0 and 1"):
        metrics.expected_calibration_error(truth, predicted, np.full(10, 1.2))


def test_temperature_mends_overconfidence():
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, 600)
    honest = np.log(np.full((600, 3), 0.15))
    honest[np.arange(600), truth] = np.log(0.7)
    wrong = generator.random(600) < 0.3  # 70 % confident, 70 % right
    honest[wrong] = np.roll(honest[wrong], 1, axis=1)
    assert metrics.fit_temperature(honest, truth) == pytest.approx(1, abs=0.15)
    assert metrics.fit_temperature(3 * honest, truth) == pytest.approx(3, abs=0.4)


def test_interval_covers_the_value_and_donors_widen_it():
    generator = np.random.default_rng(1)
    donors = np.repeat(np.arange(8), 25)
    right = generator.random(8)[donors] > generator.random(200)  # whole donors are good or bad
    truth = np.array(["a"] * 200)
    predicted = np.where(right, "a", "b")
    by_cell = metrics.bootstrap_interval(metrics.accuracy, truth, predicted, resamples=300)
    by_donor = metrics.bootstrap_interval(metrics.accuracy, truth, predicted, groups=donors, resamples=300)
    assert by_cell.low <= by_cell.value <= by_cell.high
    assert by_donor.value == by_cell.value
    assert by_donor.high - by_donor.low > 1.5 * (by_cell.high - by_cell.low)
    assert by_cell == metrics.bootstrap_interval(metrics.accuracy, truth, predicted, resamples=300)


def test_neighbours_count_rare_labels():
    points = np.array([[0.0], [0.1], [0.2], [5.0], [9.0]])
    # the three "a" agree with their neighbour, "b" and "c" do not
    assert metrics.neighbour_agreement(points, ["a", "a", "a", "b", "c"], k=1) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="too few for 15 neighbours"):
        metrics.neighbour_agreement(points, ["a"] * 5)


@pytest.mark.parametrize(
    ("name", "function", "predictions", "references"),
    [
        ("accuracy", "accuracy", ["a", "b", "b"] * 5, ["a", "b", "c"] * 5),
        ("macro_f1", "macro_f1", ["a", "b", "b"] * 5, ["a", "b", "c"] * 5),
        ("weighted_f1", "weighted_f1", ["a", "b", "b"] * 5, ["a", "b", "c"] * 5),
        ("auroc", "auroc", [0.1, 0.9, 0.8, 0.3] * 5, [0, 1, 0, 1] * 5),
        ("auprc", "auprc", [0.1, 0.9, 0.8, 0.3] * 5, [0, 1, 0, 1] * 5),
    ],
)
def test_evaluate_modules_give_the_same_numbers(name, function, predictions, references, tmp_path):
    import evaluate

    metric = evaluate.load(str(FOLDER / f"{name}_with_ci"), cache_dir=str(tmp_path))
    found = metric.compute(predictions=predictions, references=references, resamples=50)
    assert found[name] == pytest.approx(getattr(metrics, function)(references, predictions))
    assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]


def test_evaluate_calibration_error(tmp_path):
    import evaluate

    metric = evaluate.load(str(FOLDER / "calibration_error"), cache_dir=str(tmp_path))
    found = metric.compute(predictions=["a", "a"], references=["a", "b"], confidences=[0.9, 0.6])
    assert found["calibration_error"] == pytest.approx(0.35)


@pytest.mark.slow
def test_scib_scores_tell_good_from_bad():
    pytest.importorskip("scib_metrics")
    generator = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], 40)
    noise = generator.normal(size=(80, 3))
    good = metrics.scib_scores(noise + 8 * (labels == "b")[:, None], labels)
    assert good["ari_kmeans"] > 0.95 > metrics.scib_scores(noise, labels)["ari_kmeans"]
    assert "ilisi" not in good  # one batch: no batch scores


def test_leaving_out_low_scores_raises_accuracy_only_where_scores_know_something():
    rng = np.random.default_rng(0)
    truth, right = np.repeat("a", 1000), rng.random(1000) < 0.7
    predicted = np.where(right, "a", "b")
    knowing = accuracy_by_coverage(truth, predicted, right + 0.1 * rng.random(1000))
    assert knowing["accuracy_at_50"] == 1.0
    assert knowing["accuracy_at_100"] == pytest.approx(right.mean())
    blind = accuracy_by_coverage(truth, predicted, rng.random(1000))
    assert blind["accuracy_at_50"] == pytest.approx(right.mean(), abs=0.05)
    tied = accuracy_by_coverage(truth, predicted, np.ones(1000))
    assert tied["accuracy_at_50"] == pytest.approx(right.mean())


def test_a_rare_label_is_in_every_stratified_draw():
    truth = np.array(["common"] * 99 + ["rare"])
    for rows in resampled_rows(100, strata=truth, resamples=50):
        assert (truth[rows] == "rare").sum() == 1
    lost = [("rare" in truth[rows]) for rows in resampled_rows(100, resamples=50)]
    assert not all(lost)


def test_paired_difference_knows_a_tie_from_a_lead():
    rng = np.random.default_rng(0)
    truth = np.repeat(["a", "b"], 200)
    wrong = np.where(truth == "a", "b", "a")

    def with_errors(share):
        chosen = np.concatenate([first + rng.choice(200, int(200 * share), replace=False) for first in (0, 200)])
        return np.where(np.isin(np.arange(400), chosen), wrong, truth)

    good, as_good, bad = with_errors(0.1), with_errors(0.1), with_errors(0.3)
    tie = paired_difference(macro_f1, truth, [good], [as_good], strata=truth, resamples=200)
    lead = paired_difference(macro_f1, truth, [good, as_good], [bad], strata=truth, resamples=200)
    assert (verdict(tie), verdict(lead)) == ("tie", "better")
    assert verdict(paired_difference(macro_f1, truth, [bad], [good], strata=truth, resamples=200)) == "worse"
    assert lead.low < lead.value < lead.high
    same = paired_difference(macro_f1, truth, [good], [good], resamples=20)
    assert (same.low, same.value, same.high) == (0.0, 0.0, 0.0)
    donors = np.tile(np.arange(8), 50)
    assert paired_difference(macro_f1, truth, [good], [bad], groups=donors, resamples=200).low > 0
