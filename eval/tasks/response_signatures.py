"""Responses to compounds never seen: drugs or scaffolds in folds, simple methods beside the signature network."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...inference.response.compounds import shuffled_rows
from ...inference.response.doses import DoseEffects
from ...inference.response.fit import FitSettings
from ...inference.response.signature_network import SETTINGS, fit_signatures
from ...inference.response.splits import folds
from ...tokenization.errors import InputError
from ..baselines.response_signatures import signature_baselines
from ..metrics.response import effect_scores
from .response_genes import ResponseBenchmark

Matrix = npt.NDArray[np.float64]
NETWORK = "signature network"
PAIRS = (
    (NETWORK, f"{NETWORK}, shuffled structures"),
    (NETWORK, f"{NETWORK}, random structures"),
    (NETWORK, "kernel ridge, structure x dose"),
    (NETWORK, "train mean"),
    ("kernel ridge, structure x dose", "train mean"),
)


def benchmark_signatures(
    effects: DoseEffects,
    names: Sequence[str],
    bits: Matrix,
    *,
    name: str = "data",
    groups: Mapping[str, str] | None = None,
    n_folds: int = 5,
    seeds: Sequence[int] = (0, 1, 2),
    network: bool = True,
    settings: FitSettings = SETTINGS,
    progress: Callable[[str], None] | None = None,
) -> ResponseBenchmark:
    """Hold each fold of drugs out in turn, with all its doses.

    Parameters
    ----------
    effects
        Signatures; drugs without a fingerprint are left out.
    names, bits
        Drugs and their fingerprints, (drugs, bits).
    name
        Of the data in tables.
    groups
        Drug to a group that is held out as a whole: its scaffold. None holds drugs out.
    n_folds
        How many.
    seeds
        Of folds, penalties and networks.
    network
        Fit it too, with its structures, with shuffled and with random ones.
    settings
        Of the network.
    progress
        Called with a few words before each fold.

    Raises
    ------
    InputError
        Fewer drugs (scaffolds) with a structure than folds.

    Examples
    --------
    >>> drugs = tuple("abcdef")
    >>> effects = DoseEffects(drugs, ("",) * 6, np.ones(6), ("x", "y"), np.ones((6, 2)), np.ones(6, int))
    >>> found = benchmark_signatures(effects, drugs, np.eye(6), n_folds=2, seeds=(0,), network=False)
    >>> found.conditions["condition"].nunique()
    6
    """
    known_drugs = set(names)
    rows = np.flatnonzero([drug in known_drugs for drug in effects.drugs])
    if not len(rows):
        raise InputError("no drug has a fingerprint; is the column of structures the right one?")
    effects = effects.take(rows)
    label = [groups[drug] if groups is not None else drug for drug in effects.drugs]
    group = "unseen drug" if groups is None else "unseen scaffold"
    frames = []
    for seed in seeds:
        tables = {"": bits, ", shuffled structures": shuffled_rows(bits, names, seed=seed)}
        noise = np.random.default_rng([seed, 5]).random(bits.shape) < bits.mean()
        tables[", random structures"] = noise.astype(np.float64)
        for k, held in enumerate(folds(label, n=n_folds, seed=seed)):
            if progress is not None:
                progress(f"{name}: seed {seed}, fold {k + 1} of {n_folds}")
            out = set(held)
            test = np.flatnonzero([one in out for one in label])
            seen, wanted = effects.take(np.setdiff1d(np.arange(len(label)), test)), effects.take(test)
            predicted = signature_baselines(seen, wanted, dict(zip(names, bits, strict=True)), seed=seed)
            if network:
                for suffix, table in tables.items():
                    of_drug = dict(zip(names, table, strict=True))
                    model = fit_signatures(seen, of_drug, settings=settings, seed=seed)
                    X = np.stack([of_drug[drug] for drug in wanted.drugs])
                    predicted[NETWORK + suffix] = model.predict(X, wanted.doses, wanted.covariates)
            reference = seen.delta.mean(axis=0)
            for method, found in predicted.items():
                scores = effect_scores(wanted.delta, found, reference=reference, at=(10, 50, 100))
                keys = {"data": name, "seed": seed, "group": group, "method": method}
                frames.append(
                    pd.DataFrame({**keys, "condition": wanted.names, "cluster": list(wanted.drugs), **scores})
                )
    used = {"seeds": list(seeds), "folds": n_folds, "signatures": len(effects), "drugs": len(set(effects.drugs)),
            "groups": len(set(label)), "genes": len(effects.genes)}  # fmt: skip
    return ResponseBenchmark(pd.concat(frames, ignore_index=True), used, (), "response-signatures")
