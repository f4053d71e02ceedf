"""Losses that stay right when the Trainer spreads a batch over several steps."""

import torch
from torch import nn

from .configuration_genecompass import GeneCompassConfig


def mean_over(total: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
    """`total` / `count`, and 0 (with a gradient path) where there is nothing to count."""
    return total / count.clamp(min=1) if isinstance(count, torch.Tensor) else total / max(count, 1)


def value_weight(id_targets: int, num_items_in_batch: torch.Tensor | int | None) -> torch.Tensor | float:
    """Share of a step in the accumulated batch: the mean over its values counts as much as its id targets do.

    Where ids and values have the same targets this is exactly sum / num_items_in_batch.
    """
    if num_items_in_batch is None:
        return 1.0
    return id_targets / num_items_in_batch


def classification_loss(
    config: GeneCompassConfig,
    logits: torch.Tensor,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None,
) -> torch.Tensor:
    """Loss of the classification heads, by `config.problem_type` or, without one, by the labels' type.

    Parameters
    ----------
    logits
        (items, labels).
    labels
        (items,) integers for one label each; (items, labels) 0/1 for several; numbers for regression. Items with
        -100 (NaN in regression) are left out.
    num_items_in_batch
        Number of items to divide by, instead of those that count here.
    """
    logits = logits.float()
    kind = config.problem_type
    if kind is None:
        if config.num_labels == 1:
            kind = "regression"
        else:
            kind = "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
    if kind == "single_label_classification":
        labels = labels.reshape(-1).long()
        counted = labels != -100
        total = nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
    elif kind == "multi_label_classification":
        labels = labels.float()
        counted = labels != -100
        losses = nn.functional.binary_cross_entropy_with_logits(logits, labels.clamp(min=0), reduction="none")
        total = (losses * counted).sum()
    else:
        labels = labels.float().reshape(logits.shape)
        counted = torch.isfinite(labels) & (labels != -100)
        total = ((logits - torch.where(counted, labels, logits.detach())).square() * counted).sum()
    return mean_over(total, counted.sum() if num_items_in_batch is None else num_items_in_batch)


def count_losses(logits: torch.Tensor, counts: torch.Tensor, measured: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of held-back counts, each cell weighing its genes by the square root of their counts.

    A multinomial over some of the genes is the multinomial over all of them, conditioned: so any subset of genes may
    be asked for.

    Parameters
    ----------
    logits
        (cells, genes).
    counts
        Held-back counts, (cells, genes).
    measured
        Where the cell's data set measures the gene, (cells, genes); the others take no part.

    Returns
    -------
    torch.Tensor
        Nats of each cell, (cells,); 0 for a cell without a held-back count.
    """
    logits = logits.float().masked_fill(~measured, -1e4)
    share = counts.float().clamp(min=0).sqrt() * measured
    share = share / share.sum(1, keepdim=True).clamp(min=1e-6)
    return -(share * logits.log_softmax(dim=1)).sum(1)
