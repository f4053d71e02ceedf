"""What the response networks must find where the truth is known; each claim printed as pass or fail."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...inference.response.conditions import all_genes
from ...inference.response.dose_network import fit_doses
from ...inference.response.doses import read_dose_effects
from ...inference.response.effects import Effects, read_effects
from ...inference.response.features import GeneFeatures, shuffled
from ...inference.response.genes import GeneInputs, GeneOptions, fit_genes
from ...inference.response.predict import fit_response
from ...inference.response.saved import NUMBERS
from ...inference.response.simulation import CONTROL, Simulation, SimulationOptions, simulate_doses, simulate_genes
from ...inference.response.splits import Split, split_by_gene
from ...tokenization.files import sha256_of
from ..metrics.response import clustered_interval, discrimination

Matrix = npt.NDArray[np.float64]
DEFAULT = SimulationOptions(genes=200, regulators=40, pairs=200, cells=50, control_cells=600)


@dataclass(frozen=True)
class Claim:
    """One claim about simulated data.

    Parameters
    ----------
    name
        What is claimed.
    passed
        Whether it held.
    measured
        The numbers behind it, as text.
    """

    name: str
    passed: bool
    measured: str


@dataclass
class SimulationReport:
    """All claims.

    Parameters
    ----------
    claims
        In order.
    settings
        Of the simulation.
    """

    claims: list[Claim] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        rows = [{"claim": c.name, "passed": c.passed, "measured": c.measured} for c in self.claims]
        return {"task": "response-simulation", "settings": self.settings, "claims": rows}

    def as_text(self) -> str:
        """One line a claim."""
        return "\n".join(f"{'pass' if c.passed else 'FAIL'}  {c.name}: {c.measured}" for c in self.claims)


def check_simulation(
    options: SimulationOptions = DEFAULT,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    network: GeneOptions | None = None,
    progress: Callable[[str], None] | None = None,
) -> SimulationReport:
    """Simulate, fit, and compare with what was planted.

    Parameters
    ----------
    options
        Of the simulation.
    seeds
        Of data, splits and networks.
    network
        See `GeneOptions`.
    progress
        Called with a few words before each claim.

    Examples
    --------
    >>> print(check_simulation(seeds=(0,)).as_text())  # doctest: +SKIP
    """
    report = SimulationReport([], {"genes": options.genes, "regulators": options.regulators, "seeds": list(seeds)})
    checks = (_additive, _interacting, _table, _no_table, _no_effect, _half_doses, _same_bytes)
    for check in checks:
        if progress is not None:
            progress(check.__name__.strip("_").replace("_", " "))
        report.claims.append(check(options, seeds, network))
    return report


@dataclass(frozen=True)
class _Run:
    simulation: Simulation
    effects: Effects
    split: Split
    predicted: dict[str, Matrix]
    base: Matrix
    test: npt.NDArray[np.int64]

    def of(self, group: str, method: str) -> tuple[Matrix, Matrix]:
        rows = self.split.test.get(group, np.zeros(0, dtype=np.int64))
        place = [int(np.flatnonzero(self.test == row)[0]) for row in rows]
        values = self.base if method == "base" else self.predicted[method]
        return self.effects.delta[rows], values[place]


def _run(options: SimulationOptions, seed: int, arms: Sequence[str], network: GeneOptions | None) -> _Run:
    simulation = simulate_genes(replace(options, seed=seed))
    effects = read_effects(simulation.adata, "condition", control=CONTROL)
    perturbed = effects.conditions.genes
    split = split_by_gene(perturbed, seed=seed)
    known, names = split.known, tuple(all_genes(perturbed))
    test = np.concatenate(list(split.test.values()))
    wanted = [perturbed[i] for i in test]
    tables: dict[str, GeneFeatures | None] = {
        "planted": simulation.table,
        "shuffled": shuffled(simulation.table, seed=seed),
        "learned": None,
    }
    predicted, base = {}, np.zeros((0, 0))
    for arm in arms:
        member = fit_genes(
            effects.delta[known],
            [perturbed[i] for i in known],
            GeneInputs(effects.genes, names, tables[arm]),
            validation=np.searchsorted(known, split.validation),
            options=network,
            seed=seed,
        )
        predicted[arm], base = member.predict(wanted), member.additive.predict(wanted)
    return _Run(simulation, effects, split, predicted, base, test)


def _rmse(truth: Matrix, predicted: Matrix) -> float:
    return float(np.sqrt(np.mean((truth - predicted) ** 2)))


def _additive(options: SimulationOptions, seeds: Sequence[int], network: GeneOptions | None) -> Claim:
    ratios = []
    for seed in seeds:
        run = _run(replace(options, interaction=0.0), seed, ("learned",), network)
        ratios.append(_rmse(*run.of("pair_seen2", "learned")) / _rmse(*run.of("pair_seen2", "base")))
    worst = max(ratios)
    return Claim(
        "additive pairs: the network's RMSE is within 5 % of the learned additive model's",
        worst <= 1.05,
        f"ratio {np.mean(ratios):.3f}, worst {worst:.3f}",
    )


def _interacting(options: SimulationOptions, seeds: Sequence[int], network: GeneOptions | None) -> Claim:
    error: dict[tuple[bool, str], list[float]] = {}
    for seed in seeds:
        run = _run(options, seed, ("planted",), network)
        names = [run.effects.conditions.names[i] for i in run.split.test["pair_seen2"]]
        planted = np.array([name in run.simulation.planted for name in names])
        for method in ("planted", "base"):
            truth, predicted = run.of("pair_seen2", method)
            for kind in (True, False):
                rows = planted == kind
                if rows.any():
                    error.setdefault((kind, method), []).append(float(np.mean((truth[rows] - predicted[rows]) ** 2)))
    ratio = {k: float(np.sqrt(np.mean(error[k, "planted"]) / np.mean(error[k, "base"]))) for k in (True, False)}
    return Claim(
        "interacting pairs: RMSE at least 10 % below the learned additive model's, and no worse on other pairs",
        ratio[True] <= 0.9 and ratio[False] <= 1.02,
        f"ratio {ratio[True]:.3f} on interacting pairs, {ratio[False]:.3f} on others",
    )


def _unseen(options: SimulationOptions, seeds: Sequence[int], network: GeneOptions | None) -> dict[str, list[Matrix]]:
    found: dict[str, list[Matrix]] = {"planted": [], "shuffled": []}
    for seed in seeds:
        run = _run(replace(options, interaction=0.0), seed, tuple(found), network)
        for arm, values in found.items():
            values.append(discrimination(*run.of("unseen_single", arm)))
    return found


def _table(options: SimulationOptions, seeds: Sequence[int], network: GeneOptions | None) -> Claim:
    found = _unseen(options, seeds, network)
    planted, twin = ([float(np.mean(v)) for v in found[arm]] for arm in ("planted", "shuffled"))
    wins = sum(a > b for a, b in zip(planted, twin, strict=True))
    return Claim(
        f"unseen genes, table of rho {options.rho}: above its shuffled twin with every seed, discrimination >= 0.75",
        wins == len(seeds) and float(np.mean(planted)) >= 0.75,
        f"{wins} of {len(seeds)} seeds, {np.mean(planted):.3f} against {np.mean(twin):.3f}",
    )


def _no_table(options: SimulationOptions, seeds: Sequence[int], network: GeneOptions | None) -> Claim:
    found = _unseen(replace(options, rho=0.0), seeds, network)
    apart = np.concatenate(found["planted"]) - np.concatenate(found["shuffled"])
    mean, low, high = clustered_interval(apart, np.arange(len(apart)))
    return Claim(
        "unseen genes, table of rho 0: no difference from its shuffled twin",
        low <= 0 <= high,
        f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]",
    )


def _no_effect(options: SimulationOptions, seeds: Sequence[int], network: GeneOptions | None) -> Claim:
    run = _run(replace(options, effect=0.0), seeds[0], ("planted",), network)
    error = run.effects.standard_error
    assert error is not None
    size = float(np.sqrt(np.mean(run.predicted["planted"] ** 2)) / np.sqrt(np.nanmean(error**2)))
    return Claim("no effect: predictions are below 2 standard errors", size < 2, f"{size:.2f} standard errors")


def _half_doses(options: SimulationOptions, seeds: Sequence[int], network: GeneOptions | None) -> Claim:
    factors = []
    for seed in seeds:
        found = simulate_doses(replace(options, cells=110, seed=seed), drugs=4)
        model = fit_doses(read_dose_effects(found.adata, "drug", dose="dose", control=CONTROL), seed=seed)
        factors += [abs(np.log(model.ec50(drug) / dose)) for drug, dose in (found.ec50 or {}).items()]
    within = float(np.mean(np.array(factors) <= np.log(2)))
    return Claim(
        "half-maximal doses are within a factor of 2, with 110 cells a dose",
        within == 1.0,
        f"{within:.0%} of {len(factors)} drugs, worst factor {np.exp(max(factors)):.2f}",
    )


def _same_bytes(options: SimulationOptions, seeds: Sequence[int], network: GeneOptions | None) -> Claim:
    cells = simulate_genes(replace(options, seed=seeds[0])).adata
    sums = set()
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            response = fit_response(
                cells, perturbation="condition", control=CONTROL, members=1, options=network, seed=seeds[0]
            )
            response.save(Path(folder) / "model")
            sums.add(sha256_of(Path(folder) / "model" / NUMBERS))
    return Claim(
        "the same seed gives the same bytes",
        len(sums) == 1,
        "2 fits gave the same file" if len(sums) == 1 else "2 fits gave two different files",
    )
