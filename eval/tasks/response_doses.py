"""Responses to doses: a dose, a drug or a covariate held out in turn, simple methods beside the dose network."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from ...inference.response.dose_network import SETTINGS, fit_doses
from ...inference.response.doses import DoseEffects
from ...inference.response.fit import FitSettings
from ...tokenization.errors import InputError
from ..baselines.response_doses import dose_baselines
from ..metrics.response import effect_scores
from .response_genes import ResponseBenchmark

NETWORK = "dose network"
SEEDED = (NETWORK,)
DoseSplit = Literal["dose", "drug", "covariate"]


def benchmark_doses(
    effects: DoseEffects,
    *,
    name: str = "data",
    split: DoseSplit = "dose",
    seeds: Sequence[int] = (0, 1, 2),
    network: bool = True,
    settings: FitSettings = SETTINGS,
    progress: Callable[[str], None] | None = None,
) -> ResponseBenchmark:
    """Hold each dose (drug, covariate) out in turn, for all conditions that have it.

    Parameters
    ----------
    effects
        From `read_dose_effects`.
    name
        Of the data in tables.
    split
        What is held out.
    seeds
        Of the network; simple methods draw nothing.
    network
        Fit it too.
    settings
        Of the network.
    progress
        Called with a few words before each fold.

    Raises
    ------
    InputError
        Fewer than two values to hold out.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> drugs, doses = ("a", "a", "a", "b", "b", "b"), np.array([1.0, 2, 4] * 2)
    >>> effects = DoseEffects(drugs, ("",) * 6, doses, tuple("xyz"), rng.normal(size=(6, 3)), np.ones(6, int))
    >>> benchmark_doses(effects, network=False).conditions["group"].unique().tolist()
    ['dose 1', 'dose 2', 'dose 4']
    """
    labels = {
        "dose": [f"{dose:g}" for dose in effects.doses],
        "drug": list(effects.drugs),
        "covariate": list(effects.covariates),
    }[split]
    values = sorted(set(labels), key=lambda label: (float(label), label) if split == "dose" else (0.0, label))
    if len(values) < 2:
        raise InputError(f"there is only one {split} ({values[0]!r}); nothing is left to train on when it is held out")
    frames = []
    for value in values:
        if progress is not None:
            progress(f"{name}: {split} {value}")
        test = np.flatnonzero([label == value for label in labels])
        known = np.setdiff1d(np.arange(len(effects)), test)
        seen, wanted = effects.take(known), effects.take(test)
        for seed in seeds:
            predicted = dose_baselines(seen, wanted) if seed == seeds[0] else {}
            if network:
                order = np.random.default_rng(seed).permutation(len(known))
                held = np.sort(order[: round(0.1 * len(known))]) if len(known) >= 20 else None
                model = fit_doses(seen, validation=held, settings=settings, seed=seed)
                predicted[NETWORK] = model.predict(wanted.drugs, wanted.doses, wanted.covariates)
            for method, found in predicted.items():
                scores = effect_scores(wanted.delta, found, reference=seen.delta.mean(axis=0))
                keys = {"data": name, "seed": seed, "group": f"{split} {value}", "method": method}
                frames.append(pd.DataFrame({**keys, "condition": wanted.names, **scores}))
    settings_used = {"seeds": list(seeds), "conditions": len(effects), "split": split, "genes": len(effects.genes)}
    return ResponseBenchmark(pd.concat(frames, ignore_index=True), settings_used, (), "response-doses")
