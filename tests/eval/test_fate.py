"""The fate benchmark: rankings of candidates against the factors of a recipe."""

from typing import get_args

import numpy as np
import pandas as pd
import pytest
from genecompass.eval.tasks.fate import FOLD_CHANGE, MODEL, score_rankings
from genecompass.inference.perturbation.recipes import RECIPES
from genecompass.tokenization.errors import InputError

from genecompass.commands.options import RecipeName


def table(model, fold):
    return pd.DataFrame({"beyond_null": model, "mean": model, "log2_fold_change": fold})


def test_a_model_that_finds_the_factors_is_better_and_one_that_buries_them_worse():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 400))
    factor = np.arange(400) < 5
    scores = score_rankings(table(noise[0] + 10 * factor, noise[1]), factor).set_index("ranking")
    assert scores.loc[MODEL, "auroc"] == 1.0
    assert scores.loc[MODEL, "p"] < 0.001
    assert (scores.loc[MODEL, "median_rank"], scores.loc[MODEL, "in_top"]) == (3, 5)
    assert scores.loc[MODEL, "verdict"] == "better"
    buried = score_rankings(table(noise[0] - 10 * factor, noise[1] + 10 * factor), factor).set_index("ranking")
    assert buried.loc[MODEL, "verdict"] == "worse"
    assert buried.loc[FOLD_CHANGE, "auroc"] == 1.0


def test_p_and_ties_hold_for_random_factors():
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=(2, 200))
        factor = np.isin(np.arange(200), rng.choice(200, 4, replace=False))
        found.append(score_rankings(table(*values), factor).set_index("ranking").loc[MODEL])
    frame = pd.DataFrame(found)
    assert 0.35 < frame["p"].mean() < 0.65
    assert (frame["verdict"] == "tie").mean() > 0.85


def test_candidates_without_a_score_are_left_out_of_every_ranking():
    scores = score_rankings(table([3.0, 2, np.nan, 0], [3.0, 2, 1, 0]), [True, False, False, False])
    assert set(scores["n_candidates"]) == {3}
    with pytest.raises(InputError, match="0 of 2 candidates"):
        score_rankings(table([np.nan, 1, 0], [0.0, 1, 2]), [True, False, False])


def test_the_command_line_offers_every_recipe():
    assert set(get_args(RecipeName)) == set(RECIPES)
