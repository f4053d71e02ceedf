"""Structures of compounds as numbers: Morgan fingerprints, their likeness, and scaffolds; needs ``[compounds]``."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...tokenization.errors import InputError
from .conditions import text_column

Matrix = npt.NDArray[np.float64]
BITS = 1024


def need_rdkit() -> Any:
    """The rdkit package.

    Raises
    ------
    ImportError
        If it is not installed; says how to install it.

    Examples
    --------
    >>> need_rdkit()  # doctest: +SKIP
    """
    try:
        import rdkit
    except ImportError as error:
        raise ImportError("structures of compounds need rdkit: pip install 'genecompass[compounds]'") from error
    return rdkit


def read_structures(obs: Any, drug: str, smiles: str, *, where: str = "cells") -> dict[str, str]:
    """SMILES of each drug; drugs without one are left out.

    Raises
    ------
    InputError
        No such column, no drug with a structure, or a drug with two.

    Examples
    --------
    >>> import pandas as pd
    >>> read_structures(pd.DataFrame({"drug": ["a", "b"], "smiles": ["CCO", ""]}), "drug", "smiles")
    {'a': 'CCO'}
    """
    names = text_column(obs, drug, where=where)
    if smiles not in obs:
        raise InputError(f"{where}: no obs column {smiles!r}; there are {', '.join(map(str, obs.columns))}")
    found: dict[str, str] = {}
    for name, value in zip(names, obs[smiles], strict=True):
        text = "" if value is None or value != value else str(value).strip()
        if text in ("", "-666", "restricted", "nan"):
            continue
        if found.setdefault(name, text) != text:
            raise InputError(f"{where}: drug {name!r} has two structures in obs column {smiles!r}; name them apart")
    if not found:
        raise InputError(f"{where}: no drug has a structure in obs column {smiles!r}")
    return found


def fingerprints(structures: Mapping[str, str], *, radius: int = 2, bits: int = BITS) -> tuple[list[str], Matrix]:
    """Drugs by name and their Morgan fingerprints, (drugs, bits) of 0 and 1.

    Raises
    ------
    ImportError
        Without rdkit.
    InputError
        A SMILES that cannot be read.

    Examples
    --------
    >>> names, bits = fingerprints({"ethanol": "CCO"})  # doctest: +SKIP
    """
    need_rdkit()
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=bits)
    names = sorted(structures)
    rows = [generator.GetFingerprintAsNumPy(_molecule(name, structures[name])) for name in names]
    return names, np.stack(rows).astype(np.float64)


def scaffolds(structures: Mapping[str, str]) -> dict[str, str]:
    """Murcko scaffold of each drug; a drug without rings is its own.

    Raises
    ------
    ImportError
        Without rdkit.
    InputError
        A SMILES that cannot be read.

    Examples
    --------
    >>> scaffolds({"toluene": "Cc1ccccc1"})  # doctest: +SKIP
    {'toluene': 'c1ccccc1'}
    """
    need_rdkit()
    from rdkit.Chem.Scaffolds import MurckoScaffold

    found = {}
    for name, smiles in structures.items():
        found[name] = MurckoScaffold.MurckoScaffoldSmiles(mol=_molecule(name, smiles)) or f"acyclic {name}"
    return found


def tanimoto(one: Matrix, other: Matrix) -> Matrix:
    """(drugs, drugs) shared bits over bits of either; 0 where neither has any.

    Examples
    --------
    >>> tanimoto(np.array([[1.0, 1, 0]]), np.array([[1.0, 0, 0], [0, 0, 0]])).tolist()
    [[0.5, 0.0]]
    """
    both = one @ other.T
    either = one.sum(axis=1)[:, None] + other.sum(axis=1)[None, :] - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


def shuffled_rows(bits: Matrix, names: Sequence[str], *, seed: int) -> Matrix:
    """The same fingerprints dealt to other drugs.

    Examples
    --------
    >>> shuffled_rows(np.eye(2), ["a", "b"], seed=0).sum(axis=0).tolist()
    [1.0, 1.0]
    """
    return bits[np.random.default_rng([seed, 4]).permutation(len(names))]


def _molecule(name: str, smiles: str) -> Any:
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise InputError(f"drug {name!r}: the structure {smiles[:60]!r} cannot be read as SMILES")
    return molecule
