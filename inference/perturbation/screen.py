"""The screen: every cell once as it is, then its perturbed copies, and what changed between them."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ...tokenization.errors import InputError
from ...tokenization.files import atomic_path
from ...tokenization.progress import Progress
from .cells import PerturbedCells
from .edits import CellEditor, Ranks
from .forward import CopyReader, States, cosine_distance
from .goal import Goal, means_without, tokens_of_units
from .plan import Plan

Floats = npt.NDArray[np.float64]
# copies made and held at a time: bounds memory whatever the number of genes
COPIES_AT_A_TIME = 512
SECONDS_BETWEEN_SAVES = 30.0
# changes of gene read-outs below these are float32 rounding, and count as none: a batch of another shape is enough
# to cause them
COSINE_ROUNDING = 1e-12
VALUE_ROUNDING = 3e-6


@dataclass
class ScreenResult:
    """Effects of every perturbation in every cell.

    Parameters
    ----------
    cells
        Effect to (cells, units); NaN where a cell took no part.
    pairs
        Read-out to the sum over cells, (units, targets); ``"n"`` counts the cells.
    place
        Rank of the perturbed genes in each cell, as `edits.Copies.place`: (cells, units), NaN as in `cells`.
    embeddings
        Embedding of every cell as it is (first) and under each perturbation asked for, without the perturbed genes'
        own slots: (cells, 1 + asked, hidden) float32, NaN as in `cells`. None unless kept.
    n_copies, n_tokens, seconds
        What it cost.
    """

    cells: dict[str, Floats]
    pairs: dict[str, Floats] = field(default_factory=dict)
    place: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    embeddings: npt.NDArray[np.float32] | None = None
    n_copies: int = 0
    n_tokens: int = 0
    seconds: float = 0.0


class Screen:
    """Runs a plan over cells.

    Parameters
    ----------
    reader, cells, editor, plan
        Model, cells, what is done to counts, and to which genes.
    goal
        Also measure the move towards it.
    targets
        Columns whose own change is kept for every perturbation; none by default.
    read_values, read_ids
        Read predicted values, and log-probabilities of each target's own id, off the masked-gene head.
    hide_targets
        Mask the targets in original and copies, so that the head must infer them from the other genes.
    ranks
        Whether the other genes keep their ranks: see `edits.CellEditor.copies`.
    keep_embeddings
        Keep the cell embeddings of the perturbations asked for.
    """

    def __init__(
        self,
        reader: CopyReader,
        cells: PerturbedCells,
        editor: CellEditor,
        plan: Plan,
        *,
        goal: Goal | None = None,
        targets: Sequence[int] | None = None,
        read_values: bool = False,
        read_ids: bool = False,
        hide_targets: bool = False,
        ranks: Ranks = "kept",
        keep_embeddings: bool = False,
    ) -> None:
        self.ranks, self.keep_embeddings = ranks, keep_embeddings
        self.reader, self.cells, self.editor, self.plan, self.goal = reader, cells, editor, plan, goal
        self.read_values, self.read_ids = read_values, read_ids
        token = cells.match.cell_token
        self.target_tokens = np.asarray([] if targets is None else token[list(targets)], dtype=np.int64)
        self.unit_tokens = tokens_of_units(plan, cells).to(reader.device)
        self.hidden = self.target_tokens if hide_targets else np.zeros(0, np.int64)
        # gene states are wanted even without targets: the shift of all other genes is itself an effect
        self.effects = ["cell_cosine", "cell_euclidean", "gene_cosine"]
        self.effects += ["value_change"] if read_values else []
        self.effects += ["goal_cosine", "goal_progress"] if goal is not None else []
        self.readouts = ["gene_cosine"] + ["value_change"] * read_values + ["id_change"] * read_ids

    def run(
        self, *, store: str | os.PathLike[str] | None = None, key: str = "", progress: bool = False
    ) -> ScreenResult:
        """Run all cells.

        Parameters
        ----------
        store
            File (``.npz``) to keep what is done in; a run that was cut off goes on from there.
        key
            What identifies this run; a store of another run is refused.
        progress
            Show a bar.
        """
        result, done = self._begin(store, key)
        saved = time.monotonic()
        for index in Progress(range(done, len(self.cells)), initial=done, total=len(self.cells), disable=not progress):
            began = time.monotonic()
            self._run_cell(index, result)
            result.seconds += time.monotonic() - began
            if store is not None and (time.monotonic() - saved > SECONDS_BETWEEN_SAVES or index + 1 == len(self.cells)):
                _save(store, key, result, index + 1)
                saved = time.monotonic()
        return result

    def _begin(self, store: str | os.PathLike[str] | None, key: str) -> tuple[ScreenResult, int]:
        shape = (len(self.cells), len(self.plan.units))
        pair_shape = (len(self.plan.units), len(self.target_tokens))
        result = ScreenResult(
            {name: np.full(shape, np.nan) for name in self.effects},
            {name: np.zeros(pair_shape) for name in ["n", *self.readouts]} if len(self.target_tokens) else {},
            np.full(shape, np.nan),
        )
        if self.keep_embeddings:
            size = int(self.reader.base.config.hidden_size)
            result.embeddings = np.full((len(self.cells), 1 + self.plan.n_asked, size), np.nan, dtype=np.float32)
        if store is None or not Path(store).exists():
            return result, 0
        return _load(store, key, result)

    def _run_cell(self, index: int, result: ScreenResult) -> None:
        columns, counts = self.cells.cell(index)
        species = self.cells.match.species_index
        original = next(
            self.reader.read([self.editor.original(columns, counts)], species=species, genes=True, hide=self.hidden)
        )
        before = _Before(original, self.reader, self.read_values, self.read_ids, self.target_tokens)
        if result.embeddings is not None:
            result.embeddings[index, 0] = before.cell.cpu().numpy()
        needed = self._units_needed(columns)
        for begin in range(0, len(needed), COPIES_AT_A_TIME):
            chosen = needed[begin : begin + COPIES_AT_A_TIME]
            units = [self.plan.units[unit] for unit in chosen]
            copies = self.editor.copies(columns, counts, units, ranks=self.ranks)
            if not len(copies):
                continue
            result.place[index, chosen[copies.perturbation]] = copies.place
            rows = [copies.rows(i) for i in range(len(copies))]
            positions = [copies.ranks(i) for i in range(len(copies))]
            for states in self.reader.read(
                rows,
                species=species,
                genes=True,
                hide=self.hidden,
                positions=positions if self.ranks == "kept" else None,
            ):
                self._compare(before, states, chosen[copies.perturbation[states.rows]], index, result)
            result.n_copies += len(copies)
            result.n_tokens += int(copies.indptr[-1])

    def _units_needed(self, columns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Perturbations that this cell can undergo."""
        if self.editor.edit.absent == "insert":
            return np.arange(len(self.plan.units))
        expressed = set(columns.tolist())
        return np.array([u for u, unit in enumerate(self.plan.units) if expressed.issuperset(unit)], dtype=np.int64)

    @torch.inference_mode()
    def _compare(
        self, before: "_Before", states: States, units: npt.NDArray[np.int64], index: int, result: ScreenResult
    ) -> None:
        assert states.genes is not None
        unit = torch.as_tensor(units, device=states.input_ids.device)
        own_tokens = self.unit_tokens[unit]
        own = (states.input_ids.unsqueeze(-1) == own_tokens.unsqueeze(1)).any(-1)
        cell, reference = states.cells, before.cell.expand_as(states.cells)
        if self.reader.pooling == "mean":
            # what becomes of the other genes: the perturbed genes' own slots would move the mean by coming or going
            others = ((states.input_ids != 0) & ~own).unsqueeze(-1).to(states.genes.dtype)
            cell = (states.genes * others).sum(1) / others.sum(1)
            reference = before.cells_without(own_tokens)
        effects = {
            "cell_cosine": cosine_distance(cell, reference),
            "cell_euclidean": (cell.double() - reference.double()).norm(dim=-1),
        }
        if self.goal is not None:
            effects |= self.goal.effects(reference, cell, unit)
        if result.embeddings is not None:
            asked = units < self.plan.n_asked
            result.embeddings[index, 1 + units[asked]] = cell[torch.from_numpy(asked)].cpu().numpy()
        source = before.place_of(states.input_ids)
        shared = (source >= 0) & ~own
        at = source.clamp(min=0)
        direction = F.normalize(states.genes, dim=-1)
        changes = {"gene_cosine": _above(0.5 * (direction - before.direction[at]).square().sum(-1), COSINE_ROUNDING)}
        if self.read_values:
            after = self.reader.values_of(states.genes)
            changes["value_change"] = _above(after - before.values[at], VALUE_ROUNDING)
        count = shared.sum(1).clamp(min=1)
        for name, change in changes.items():
            effects[name] = (change.abs() * shared).sum(1) / count
        for name in self.effects:
            result.cells[name][index, units] = effects[name].double().cpu().numpy()
        if len(self.target_tokens):
            self._add_pairs(before, states, units, shared, at, changes, result)

    def _add_pairs(
        self,
        before: "_Before",
        states: States,
        units: npt.NDArray[np.int64],
        shared: Tensor,
        at: Tensor,
        changes: dict[str, Tensor],
        result: ScreenResult,
    ) -> None:
        assert states.genes is not None
        target = before.target_of(states.input_ids)
        row, slot = torch.nonzero(shared & (target >= 0), as_tuple=True)
        if self.read_ids:
            tokens = states.input_ids[row, slot]
            after = self.reader.id_scores_of(states.genes[row, slot], tokens)
            change = torch.zeros(shared.shape, device=shared.device)
            change[row, slot] = _above(after - before.id_scores[at[row, slot]], VALUE_ROUNDING)
            changes = {**changes, "id_change": change}
        where = (units[row.cpu().numpy()], target[row, slot].cpu().numpy())
        # a copy holds a token once, so no pair comes twice in a batch
        result.pairs["n"][where] += 1
        for name in self.readouts:
            result.pairs[name][where] += changes[name][row, slot].double().cpu().numpy()


class _Before:
    """The cell as it is: states to compare with, found by token."""

    def __init__(
        self, states: States, reader: CopyReader, values: bool, ids: bool, targets: npt.NDArray[np.int64]
    ) -> None:
        assert states.genes is not None
        genes, tokens = states.genes[0], states.input_ids[0]
        self.cell, self.genes = states.cells[0], genes
        self.direction = F.normalize(genes, dim=-1)
        size = int(reader.base.config.vocab_size)
        # one more than there are tokens: the last stands for -1, no token at all
        self._place = torch.full((size + 1,), -1, dtype=torch.long, device=tokens.device)
        self._place[tokens] = torch.arange(len(tokens), device=tokens.device)
        self._place[0] = -1
        self._target = torch.full((size,), -1, dtype=torch.long, device=tokens.device)
        if len(targets):
            wanted = torch.as_tensor(targets, device=tokens.device)
            self._target[wanted] = torch.arange(len(targets), device=tokens.device)
        self.values = reader.values_of(genes) if values else torch.zeros(0)
        self.id_scores = torch.zeros(len(tokens), device=tokens.device)
        if ids:
            mine = torch.nonzero(self._target[tokens] >= 0)[:, 0]
            self.id_scores[mine] = reader.id_scores_of(genes[mine], tokens[mine])

    def place_of(self, tokens: Tensor) -> Tensor:
        """Slot of each token in the unperturbed cell; -1 where it was not seen there."""
        return self._place[tokens]

    def cells_without(self, tokens: Tensor) -> Tensor:
        """Mean over the cell's genes without some tokens: (copies, genes left out) to (copies, hidden)."""
        return means_without(self.genes, self._place[tokens])

    def target_of(self, tokens: Tensor) -> Tensor:
        """Which target each token is; -1 for none."""
        return self._target[tokens]


def _above(change: Tensor, rounding: float) -> Tensor:
    return torch.where(change.abs() > rounding, change, torch.zeros_like(change))


def run_key(**what: Any) -> str:
    """Digest of everything that decides a run's numbers."""
    text = json.dumps(what, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _save(store: str | os.PathLike[str], key: str, result: ScreenResult, done: int) -> None:
    arrays: dict[str, Any] = {f"cells/{name}": values for name, values in result.cells.items()}
    arrays |= {f"pairs/{name}": values for name, values in result.pairs.items()}
    arrays["place"] = result.place
    if result.embeddings is not None:
        arrays["embeddings"] = result.embeddings
    cost = np.array([result.n_copies, result.n_tokens, result.seconds])
    with atomic_path(store) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, allow_pickle=False, key=np.array(key), done=np.array(done), cost=cost, **arrays)


def _load(store: str | os.PathLike[str], key: str, empty: ScreenResult) -> tuple[ScreenResult, int]:
    try:
        with np.load(store, allow_pickle=False) as saved:
            if str(saved["key"]) != key:
                raise InputError(
                    f"{store}: of another run (other cells, genes, model or options); remove it or name another file"
                )
            cells = {name: saved[f"cells/{name}"] for name in empty.cells}
            pairs = {name: saved[f"pairs/{name}"] for name in empty.pairs}
            cost = saved["cost"]
            embeddings = None if empty.embeddings is None else saved["embeddings"]
            counted = int(cost[0]), int(cost[1]), float(cost[2])
            return ScreenResult(cells, pairs, saved["place"], embeddings, *counted), int(saved["done"])
    except (KeyError, OSError, EOFError) as error:
        raise InputError(
            f"{store}: not a file of an interrupted run ({error}); remove it or name another file"
        ) from error
