"""What goes into fine-tuning: labels that make sense, an honest validation split, rows for the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.model_selection import GroupShuffleSplit, StratifiedShuffleSplit

from ...tokenization.batching import pad_cells
from ...tokenization.errors import InputError

# columns in which cells of one donor or sample are found, the most independent unit first
GROUP_COLUMNS = ("donor_id", "donor", "individual", "patient", "subject", "sample_id", "sample", "batch")
_GROUP_TRIES = 50


@dataclass(frozen=True)
class Labels:
    """Labels of cells as numbers.

    Parameters
    ----------
    codes
        Index into `names` by cell. Shape (cells,).
    names
        Label names, sorted.
    ontology_ids
        Label name to Cell Ontology id, where the cells carry one id a label.

    Examples
    --------
    >>> labels = read_labels(pd.DataFrame({"cell_type": ["B", "T", "B", "T"]}), "cell_type")
    >>> labels.codes.tolist(), labels.names
    ([0, 1, 0, 1], ['B', 'T'])
    """

    codes: npt.NDArray[np.int64]
    names: list[str]
    ontology_ids: dict[str, str]


def read_labels(obs: pd.DataFrame, column: str, *, where: str = "obs") -> Labels:
    """Read one label a cell and refuse what cannot be learned from.

    Parameters
    ----------
    obs
        One row a cell.
    column
        Column with the labels. ``<column>_ontology_term_id``, if there, gives Cell Ontology ids.
    where
        Name of the data for error messages.

    Raises
    ------
    InputError
        No such column, missing labels, one class only, or a class with a single cell.
    """
    if column not in obs.columns:
        raise InputError(f"{where}: no column {column!r} in obs; it has: {', '.join(map(str, obs.columns)) or 'none'}")
    values = obs[column]
    missing = values.isna() | values.astype(str).str.strip().isin(["", "nan"])
    if missing.any():
        raise InputError(
            f"{where}: {int(missing.sum())} of {len(values)} cells have no {column!r} "
            f"(first: {obs.index[missing][0]!r}); "
            f"leave them out first: adata = adata[adata.obs[{column!r}].notna()]"
        )
    text = values.astype(str).to_numpy()
    names, codes, counts = np.unique(text, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise InputError(f"{where}: column {column!r} holds one class only ({names[0]!r}); there is nothing to learn")
    if counts.min() < 2:
        lonely = names[counts < 2]
        raise InputError(
            f"{where}: class {lonely[0]!r} in {column!r} has one cell only"
            f"{f' (and {len(lonely) - 1} more such)' if len(lonely) > 1 else ''}; "
            "training and validation need one each: merge it into another class or leave it out"
        )
    return Labels(codes.astype(np.int64), names.tolist(), _ontology_ids(obs, column, text))


def _ontology_ids(obs: pd.DataFrame, column: str, text: npt.NDArray[Any]) -> dict[str, str]:
    id_column = f"{column}_ontology_term_id"
    if id_column not in obs.columns:
        return {}
    pairs = pd.DataFrame({"name": text, "id": obs[id_column].astype(str).to_numpy()}).drop_duplicates()
    once = pairs[~pairs["name"].duplicated(keep=False)]  # a label with two ids has none
    return dict(zip(once["name"], once["id"], strict=True))


def find_groups(obs: pd.DataFrame, column: str | None = "auto") -> tuple[npt.NDArray[Any] | None, str | None]:
    """Donor or sample by cell, and the column it came from; (None, None) where cells carry none.

    Parameters
    ----------
    obs
        One row a cell.
    column
        A column, ``"auto"`` for the first known name that has more than one value, or None for no groups.

    Raises
    ------
    InputError
        A column was named that is not there.
    """
    if column is None:
        return None, None
    if column != "auto":
        if column not in obs.columns:
            raise InputError(f"no column {column!r} in obs to split by; it has: {', '.join(map(str, obs.columns))}")
        return obs[column].astype(str).to_numpy(), column
    for name in GROUP_COLUMNS:
        if name in obs.columns and len(obs[name].unique()) > 1:
            return obs[name].astype(str).to_numpy(), name
    return None, None


def split_validation(
    codes: npt.NDArray[np.int64],
    *,
    groups: npt.NDArray[Any] | None = None,
    fraction: float = 0.15,
    seed: int = 0,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], str]:
    """Split training cells into training and validation: by whole donors where possible, else by cell.

    Donors go to validation only if every class keeps cells in training and about `fraction` (a third to three times)
    of the cells are held out; else cells are drawn, the same share of every class.

    Parameters
    ----------
    codes
        Class by cell; every class has two cells or more.
    groups
        Donor or sample by cell.
    fraction
        Share of cells to hold out.
    seed
        Of the draw.

    Returns
    -------
    train, validation, how
        Positions of cells, sorted, and in words how they were split.

    Examples
    --------
    >>> train, validation, how = split_validation(np.repeat([0, 1], 50), groups=np.tile(list("abcde"), 20))
    >>> len(train), len(validation), how
    (80, 20, 'whole groups: 1 of 5')
    """
    if not 0 < fraction < 1:
        raise InputError(f"validation fraction {fraction} must lie between 0 and 1")
    if groups is not None:
        found = _split_by_group(codes, groups, fraction, seed)
        if found is not None:
            held = len(np.unique(groups[found[1]]))
            return (*found, f"whole groups: {held} of {len(np.unique(groups))}")
    classes = int(codes.max()) + 1
    held_out = max(round(fraction * len(codes)), classes)
    if len(codes) - held_out >= classes:
        splitter = StratifiedShuffleSplit(1, test_size=held_out, random_state=seed)
        train, validation = next(splitter.split(codes, codes))
    else:  # two cells of each class: one each
        generator = np.random.default_rng(seed)
        validation = np.array([generator.choice(np.flatnonzero(codes == code)) for code in np.unique(codes)])
        train = np.setdiff1d(np.arange(len(codes)), validation)
    train, validation = _keep_every_class(codes, train, validation)
    return np.sort(train), np.sort(validation), "by cell, stratified"


def _split_by_group(
    codes: npt.NDArray[np.int64], groups: npt.NDArray[Any], fraction: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    number = len(np.unique(groups))
    if number < 2:
        return None
    share = max(fraction, 1 / number)
    for train, validation in GroupShuffleSplit(_GROUP_TRIES, test_size=share, random_state=seed).split(
        codes, groups=groups
    ):
        whole = len(np.unique(codes[train])) == len(np.unique(codes))
        if whole and fraction / 3 <= len(validation) / len(codes) <= min(3 * fraction, 0.5):
            return np.sort(train), np.sort(validation)
    return None


def _keep_every_class(
    codes: npt.NDArray[np.int64], train: npt.NDArray[np.int64], validation: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Give back one validation cell of any class that training would otherwise never see."""
    for code in np.setdiff1d(np.unique(codes), codes[train]):
        cell = validation[codes[validation] == code][:1]
        train, validation = np.append(train, cell), np.setdiff1d(validation, cell)
    return train, validation


def balanced_weights(codes: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.float32]:
    """Weight of each class so that all count the same; mean 1 over cells. Shape (classes,).

    Examples
    --------
    >>> balanced_weights(np.array([0, 0, 0, 1]), 2).tolist()
    [0.6666666865348816, 2.0]
    """
    counts = np.bincount(codes, minlength=classes)
    return (len(codes) / (classes * np.maximum(counts, 1))).astype(np.float32)


class CellRows(torch.utils.data.Dataset):
    """Tokenised cells with a label each, as the Trainer reads them.

    Parameters
    ----------
    tokenized
        `TokenizedCells`.
    cells
        Positions to take.
    codes
        Class by *taken* cell; None to predict only.

    Examples
    --------
    >>> rows = CellRows(tokenized, train, codes[train])  # doctest: +SKIP
    >>> rows[0]["label"]  # doctest: +SKIP
    3
    """

    def __init__(
        self, tokenized: Any, cells: npt.NDArray[np.int64], codes: npt.NDArray[np.int64] | None = None
    ) -> None:
        self.tokenized, self.cells, self.codes = tokenized, cells, codes

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = dict(self.tokenized[int(self.cells[index])])
        if self.codes is not None:
            row["label"] = int(self.codes[index])
        return row


class GeneRows(torch.utils.data.Dataset):
    """Tokenised cells in which some genes carry a label; every other slot has -100.

    Parameters
    ----------
    tokenized
        `TokenizedCells`.
    cells
        Positions to take; cells without any labelled gene are left out.
    label_of_token
        Class by token, -100 where none. Shape (vocab,).
    """

    def __init__(self, tokenized: Any, cells: npt.NDArray[np.int64], label_of_token: npt.NDArray[np.int64]) -> None:
        self.tokenized, self.label_of_token = tokenized, label_of_token
        held = [cell for cell in cells if (label_of_token[tokenized[int(cell)]["input_ids"]] >= 0).any()]
        self.cells = np.array(held, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = dict(self.tokenized[int(self.cells[index])])
        row["labels"] = self.label_of_token[row["input_ids"]]
        return row


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pad rows of `CellRows` or `GeneRows` into one batch; a cell's own label becomes ``labels`` (B,).

    Values stay float32 and species stays with its cell, whatever the task.
    """
    cell_labels = [row["label"] for row in rows if "label" in row]
    batch = pad_cells([{name: entry for name, entry in row.items() if name != "label"} for row in rows])
    if cell_labels:
        batch["labels"] = torch.tensor(cell_labels)
    return batch
