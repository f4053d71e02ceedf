import math

import numpy as np
import pytest
from genecompass.eval.metrics.yardsticks import (
    IdScores,
    ValueScores,
    Yardsticks,
    asked_ids,
    asked_values,
    brackets,
)
from hypothesis import given, settings
from hypothesis import strategies as st

POOL = np.arange(2, 32)


def cells(count, species=0, seed=0, medians=None):
    """Cells in which a gene's value is log2(1 + count / median), counts are small: values nearly name genes."""
    generator = np.random.default_rng(seed)
    medians = np.linspace(0.3, 3, 32) if medians is None else medians
    found = []
    for _ in range(count):
        genes = generator.choice(POOL, 12, replace=False)
        values = np.log2(1 + generator.integers(1, 4, 12) / medians[genes]).astype(np.float32)
        order = np.argsort(-values, kind="stable")
        found.append({"input_ids": genes[order], "values": values[order], "species": species})
    return found


def hide(cell, slots, unchanged=()):
    ids, values = cell["input_ids"], cell["values"]
    asked = np.isin(np.arange(len(ids)), [*slots, *unchanged])
    hidden = np.isin(np.arange(len(ids)), slots)
    return {
        "input_ids": np.where(hidden, 1, ids),
        "values": np.where(hidden, np.float32(-1), values),
        "labels": np.where(asked, ids, -100),
        "labels_values": values,
        "value_targets": asked,
        "species": cell["species"],
    }


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.data())
def test_brackets_are_those_of_the_nearest_visible_neighbours(levels, data):
    values = np.sort(np.array(levels, dtype=float))[::-1].copy()
    hidden = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    shown = np.where(hidden, -1, values)
    low, high = brackets(shown, hidden)
    for slot, lower, upper in zip(np.flatnonzero(hidden), low, high, strict=True):
        above = [shown[i] for i in range(slot) if not hidden[i]]
        below = [shown[i] for i in range(slot + 1, len(values)) if not hidden[i]]
        assert upper == (above[-1] if above else math.inf)
        assert lower == (below[0] if below else 0)
        assert lower <= values[slot] <= upper


def test_unchanged_slots_do_not_count():
    masked = hide(cells(1)[0], [2, 5], unchanged=[7])
    assert np.flatnonzero(asked_ids(masked)).tolist() == [2, 5]
    assert np.flatnonzero(asked_values(masked)).tolist() == [2, 5]


def test_overall_frequency_by_hand():
    # gene 2 twice, gene 3 once, one more of each for the three genes of the pool
    training = [{"input_ids": np.array([2, 3]), "values": np.array([2.0, 1.0]), "species": 0}]
    training.append({"input_ids": np.array([2]), "values": np.array([1.0]), "species": 0})
    yardsticks = Yardsticks(training, 6, [np.array([2, 3, 4])], back_off=1.0)
    masked = hide({"input_ids": np.array([3, 2]), "values": np.array([2.0, 1.0]), "species": 0}, [0])
    report = yardsticks.evaluate([masked], task="hidden_rank", species=["human"])["id"]
    assert report["overall frequency"]["all"]["cross_entropy"] == pytest.approx(-math.log(2 / 6))
    # gene 2 is visible, so it cannot be among the missing ones
    unseen = report["overall frequency of genes not seen in the cell"]["human"]
    assert unseen["cross_entropy"] == pytest.approx(-math.log(2 / 3))
    assert unseen["top1"] == 1
    assert report["overall frequency"]["all"]["top1"] == 0


def test_gene_means_by_hand():
    training = [{"input_ids": np.array([2]), "values": np.array([v]), "species": 0} for v in (1.0, 2.0, 3.0)]
    training += [{"input_ids": np.array([3]), "values": np.array([6.0]), "species": 0}]
    yardsticks = Yardsticks(training, 4, [np.array([2, 3])], back_off=1.0)
    overall = 3.0
    cell = {"input_ids": np.array([3, 2]), "values": np.array([7.0, 5.0]), "species": 0}
    masked = hide(cell, [1])
    masked["input_ids"] = cell["input_ids"]
    report = yardsticks.evaluate([masked], task="hidden_rank", species=["human"])["value"]
    mean_2, mean_3 = (6 + overall) / 4, (6 + overall) / 2
    assert report["gene's own mean"]["all"]["mse"] == pytest.approx((mean_2 - 5) ** 2)
    shifted = report["gene's own mean + the cell's mean deviation"]["all"]["mse"]
    assert shifted == pytest.approx((mean_2 + 7 - mean_3 - 5) ** 2)


def test_neighbours_mean_by_hand():
    cell = {"input_ids": np.arange(2, 7), "values": np.array([5.0, 4.0, 3.0, 2.0, 1.0]), "species": 0}
    yardsticks = Yardsticks([cell], 7, [np.arange(2, 7)], back_off=1.0)
    scores = yardsticks.evaluate([hide(cell, [0, 2, 4])], task="published", species=["human"])["value"]
    # 4 above, (4 + 2) / 2 between, 2 / 2 below the last one
    assert scores["neighbours' mean"]["all"]["mse"] == pytest.approx(((5 - 4) ** 2 + 0 + 0) / 3)


def test_the_bracket_nearly_names_genes_where_values_do():
    """Where each gene has its own values, the published task is almost free: the bracket shows it."""
    training, test = cells(400, seed=1), [hide(cell, [1, 6, 10]) for cell in cells(60, seed=2)]
    report = Yardsticks(training, 32, [POOL]).evaluate(test, task="published", species=["human"])["id"]
    frequency, rank, bracket = (
        report[name]["all"]["cross_entropy"] for name in ("overall frequency", "frequency given the rank", "bracket")
    )
    assert frequency == pytest.approx(math.log(30), abs=0.05)
    assert bracket < rank - 0.5 < frequency
    assert report["bracket"]["all"]["top10"] > report["overall frequency"]["all"]["top10"]


def test_a_wide_bracket_falls_back_on_frequency():
    training = cells(200, seed=1)
    everything_hidden = hide(cells(1, seed=3)[0], list(range(12)))
    report = Yardsticks(training, 32, [POOL]).evaluate([everything_hidden], task="published", species=["human"])["id"]
    assert report["bracket"]["all"]["cross_entropy"] == pytest.approx(
        report["overall frequency"]["all"]["cross_entropy"], abs=0.1
    )


def test_rank_with_back_off_is_no_worse_than_frequency_alone():
    training, test = cells(60, seed=1), [hide(cell, [3, 8]) for cell in cells(40, seed=2)]
    report = Yardsticks(training, 32, [POOL]).evaluate(test, task="published", species=["human"])["id"]
    assert (
        report["frequency given the rank"]["all"]["cross_entropy"]
        < report["overall frequency"]["all"]["cross_entropy"] + 0.05
    )


def test_species_are_counted_and_reported_apart():
    training = cells(50) + [{**cell, "species": 1, "input_ids": cell["input_ids"] + 30} for cell in cells(50)]
    test = [hide(cell, [0, 4]) for cell in training[:3]] + [hide(cell, [0, 4]) for cell in training[-5:]]
    report = Yardsticks(training, 62, [POOL, POOL + 30]).evaluate(test, task="published", species=["human", "mouse"])
    scores = report["id"]["overall frequency"]
    assert (scores["human"]["slots"], scores["mouse"]["slots"], scores["all"]["slots"]) == (6, 10, 16)
    # the mouse's genes are never predicted for a human cell: chance is one in thirty, not one in sixty
    assert scores["mouse"]["cross_entropy"] == pytest.approx(math.log(30), abs=0.5)


def test_set_hits_are_counted_once_a_cell():
    cell = {**hide(cells(1)[0], [1, 3, 5])}
    hidden = cell["labels"][cell["labels"] != -100]
    scores = IdScores()
    top10 = np.array([[hidden[2], *range(40, 47), hidden[0], 50]])
    scores.add(np.log([0.5, 0.25, 0.125]), top10, cell, as_set=True)
    summary = scores.summary(["human"])["all"]
    assert summary["top1"] == 1
    assert summary["top10"] == pytest.approx(0.2)
    assert summary["cross_entropy"] == pytest.approx(-np.log([0.5, 0.25, 0.125]).mean())


def test_value_scores_by_hand():
    cell = hide(cells(1)[0], [0, 1, 2])
    scores = ValueScores()
    scores.add(cell["labels_values"][:3] + np.array([1, -1, 0]), cell)
    summary = scores.summary(["human"])
    assert summary["human"]["mse"] == pytest.approx(2 / 3)
    assert math.isnan(
        ValueScores([np.ones(3)], [np.arange(3.0)], [np.zeros(3, dtype=int)]).summary([])["all"]["pearson"]
    )
