"""Results in the forms of other tools: Geneformer's table, pertpy's cells."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd


def geneformer_table(summary: pd.DataFrame, gene_ids: Mapping[str, str]) -> pd.DataFrame:
    """Summary of a screen over all cells, under the names of Geneformer's in-silico perturbation tables.

    See `PerturbationResult.to_geneformer`. The shift is the gain in cosine towards the goal where there is one, else
    the cosine distance.
    """
    overall = summary[summary["group"] == "all"]
    distance = overall[overall["effect"] == "cell_cosine"].set_index("perturbation")
    has_goal = "goal_cosine" in set(overall["effect"])
    shift = overall[overall["effect"] == ("goal_cosine" if has_goal else "cell_cosine")].set_index("perturbation")
    names = [str(name) for name in shift.index]
    ids = ["+".join(gene_ids.get(part, "") for part in name.split("+")) for name in names]
    return pd.DataFrame(
        {
            "Gene_name": names,
            "Ensembl_ID": ids,
            "N_Detections": shift["n_cells"].to_numpy(),
            "Cosine_sim_mean": 1.0 - distance["mean"].reindex(shift.index).to_numpy(),
            "Shift_to_goal_end" if has_goal else "Test_avg_shift": shift["mean"].to_numpy(),
            "Null_avg_shift": shift["null_mean"].to_numpy(),
            "Test_vs_null_avg_shift": shift["beyond_null"].to_numpy(),
            "Test_vs_null_pval": shift["p"].to_numpy(),
            "Test_vs_null_FDR": shift["q"].to_numpy(),
            "N_Null_Genes": shift["n_null"].to_numpy(),
        }
    )


def perturbed_cells(obs: pd.DataFrame, embeddings: npt.NDArray[np.float32], names: Sequence[str]) -> Any:
    """AnnData of cells as they are (``perturbation`` is ``control``) and under each perturbation that they underwent.

    Parameters
    ----------
    obs
        Annotation of the cells.
    embeddings
        (cells, 1 + perturbations, hidden); NaN where a cell took no part.
    names
        Of the perturbations.
    """
    import anndata

    perturbation, cell = np.nonzero(np.isfinite(embeddings[:, :, 0]).T)
    labels = np.asarray(["control", *names], dtype=object)[perturbation]
    frame = obs.iloc[cell].copy()
    frame["cell"] = obs.index.to_numpy().astype(str)[cell]
    frame["perturbation"] = pd.Categorical(labels, categories=["control", *names])
    frame.index = pd.Index([f"{name}:{label}" for name, label in zip(frame["cell"], labels, strict=True)])
    return anndata.AnnData(obs=frame, obsm={"X_genecompass": embeddings[cell, perturbation]})
