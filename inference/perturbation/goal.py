"""Where cells should move: the way between the mean embeddings of start and goal cells."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...tokenization.errors import InputError
from .cells import PerturbedCells
from .edits import Edit
from .forward import CopyReader, cosine_distance
from .plan import Plan


@dataclass(frozen=True)
class Goal:
    """A target state: where cells should move.

    Parameters
    ----------
    centre, start
        Mean embedding of the goal cells and of the start cells, (hidden,); or one for every unit of a plan, without the
        slots of its genes, (units, hidden).
    """

    centre: Tensor
    start: Tensor

    def effects(self, before: Tensor, after: Tensor, units: Tensor) -> dict[str, Tensor]:
        """Move of each copy towards the goal: gain in cosine, and share of the way from start to goal."""
        own = self.centre.dim() == 2
        centre = (self.centre[units] if own else self.centre).double()
        axis = centre - (self.start[units] if own else self.start).double()
        moved = after.double() - before.double()
        gain = cosine_distance(before, centre) - cosine_distance(after, centre)
        return {"goal_cosine": gain, "goal_progress": (moved * axis).sum(-1) / axis.square().sum(-1)}


def goal_between(reader: CopyReader, start: PerturbedCells, goal: PerturbedCells, plan: Plan) -> Goal:
    """Way from start to goal cells, for every unit of a plan without its genes' own slots.

    Raises
    ------
    InputError
        If both have the same mean embedding.
    """
    species = start.match.species_index
    tokens = tokens_of_units(plan, start)
    centre = mean_embedding(reader, goal, tokens, species=species)
    origin = mean_embedding(reader, start, tokens, species=species)
    apart = (centre - origin).norm(dim=-1)
    if bool((apart <= 1e-6 * centre.norm(dim=-1)).all()):
        raise InputError("start and goal cells have the same mean embedding: there is no way to go")
    return Goal(centre, origin)


def tokens_of_units(plan: Plan, cells: PerturbedCells) -> Tensor:
    """Tokens of each unit's genes, (units, most genes); -1 fills up."""
    tokens = torch.full((len(plan.units), max(map(len, plan.units), default=1)), -1, dtype=torch.long)
    for place, unit in enumerate(plan.units):
        tokens[place, : len(unit)] = torch.as_tensor(cells.match.cell_token[list(unit)].astype(np.int64))
    return tokens


def means_without(genes: Tensor, slots: Tensor) -> Tensor:
    """Mean over a cell's slots, (slots, hidden), without some of them: (cases, left out), -1 for none."""
    there = (slots >= 0).unsqueeze(-1)
    removed = (genes[slots.clamp(min=0)] * there).sum(1)
    return (genes.sum(0) - removed) / (len(genes) - there.sum(1))


@torch.inference_mode()
def mean_embedding(
    reader: CopyReader, cells: PerturbedCells, unit_tokens: Tensor | None = None, *, species: int | None = None
) -> Tensor:
    """Mean embedding of some cells as they are.

    Parameters
    ----------
    unit_tokens
        From `tokens_of_units`: one mean for each, without those genes' slots where the embedding is a mean over slots.
    species
        Index of the species they are read as; default their own.

    Returns
    -------
    torch.Tensor
        (hidden,), or (units, hidden) for `unit_tokens` and mean pooling; float64.
    """
    editor = cells.editor(Edit("delete"))
    rows = [editor.original(*cells.cell(index)) for index in range(len(cells))]
    by_unit = unit_tokens is not None and reader.pooling == "mean"
    total = torch.zeros(int(reader.base.config.hidden_size), dtype=torch.float64, device=reader.device)
    change = torch.zeros(
        len(unit_tokens) if unit_tokens is not None and by_unit else 0, len(total), device=reader.device
    )
    slot_of = torch.full((int(reader.base.config.vocab_size) + 1,), -1, dtype=torch.long, device=reader.device)
    for states in reader.read(rows, species=cells.match.species_index if species is None else species, genes=by_unit):
        total += states.cells.double().sum(0)
        if not by_unit or states.genes is None or unit_tokens is None:
            continue
        for ids, genes, whole in zip(states.input_ids, states.genes, states.cells, strict=True):
            real = ids != 0
            slot_of.fill_(-1)
            slot_of[ids[real]] = torch.arange(int(real.sum()), device=ids.device)
            slots = slot_of[unit_tokens.to(ids.device)]
            here = (slots >= 0).any(1)
            change[here] += means_without(genes[real], slots[here]) - whole
    mean = total / len(rows)
    return mean + change.double() / len(rows) if by_unit else mean
