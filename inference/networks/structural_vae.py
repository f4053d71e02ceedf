"""A structural-equation variational autoencoder over genes, in the manner of DeepSEM, but not that program.

Shu et al., Nature Computational Science 1, 491-501 (2021), "Modeling gene regulatory networks using neural network
architectures". Expression X follows a structural equation X = W^T X + Z. The encoder maps each gene's expression by a
network shared by all genes and multiplies over genes by (I - W^T); the decoder multiplies the latent variables by the
inverse and maps each gene back. |W| are the edges. Written from the paper's description, and not to be
reported as DeepSEM: latent variables have one standard normal prior, not a mixture of Gaussians; zeros count in the
loss like any value; and W and the other weights take turns for a length fixed beforehand, on a schedule of its own.
Nothing here ever sees a reference network.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...tokenization.errors import InputError


@dataclass(frozen=True)
class StructuralVAEOptions:
    """How to train. The defaults were chosen on simulated networks of 20 and 100 genes, never on a benchmark's truth.

    Parameters
    ----------
    epochs
        Passes over the cells: a fixed length.
    hidden_size, latent_size
        Width of the networks shared by all genes, and of each gene's latent variable.
    sparsity
        Weight in the loss of a gene's summed |W| over its regulators, averaged over genes (the
        published weight is on mean |W|, and so grows weaker with the number of genes).
    beta
        Weight of the Kullback-Leibler term.
    learning_rate, network_learning_rate
        Of the shared networks, and of W.
    other_steps, network_steps
        Epochs in turn: so many for the shared networks with W held, then so many for W with the networks held.
    batch_size
        Cells in a step.
    seed
        Of initial values, order of cells and noise.
    """

    epochs: int = 120
    hidden_size: int = 128
    latent_size: int = 1
    sparsity: float = 0.003
    beta: float = 0.1
    learning_rate: float = 1e-3
    network_learning_rate: float = 1e-3
    other_steps: int = 1
    network_steps: int = 2
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.hidden_size, self.latent_size, self.batch_size) < 1:
            raise InputError("structural_vae: epochs, hidden_size, latent_size and batch_size must be 1 or more")
        if min(self.other_steps, self.network_steps) < 1:
            raise InputError("structural_vae: other_steps and network_steps must be 1 or more")


class StructuralVAE(nn.Module):
    """The autoencoder.

    Parameters
    ----------
    n_genes
        Number of genes.
    hidden_size, latent_size
        See `StructuralVAEOptions`.
    initial
        Starting W, (genes, genes), W[i, j] from gene i to gene j. Default: 1 / (genes - 1) everywhere, with a little
        noise.
    mask
        Boolean, (genes, genes): edges that may be. The diagonal never may.
    """

    def __init__(
        self,
        n_genes: int,
        *,
        hidden_size: int = 128,
        latent_size: int = 1,
        initial: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(1, hidden_size),
            nn.Tanh(),
            nn.Linear(hidden_size, hidden_size),
            nn.Tanh(),
            nn.Linear(hidden_size, 2 * latent_size),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_size, hidden_size),
            nn.Tanh(),
            nn.Linear(hidden_size, hidden_size),
            nn.Tanh(),
            nn.Linear(hidden_size, 1),
        )
        if initial is None:
            initial = torch.ones(n_genes, n_genes) / max(n_genes - 1, 1)
            initial = initial + torch.rand(n_genes, n_genes) * 2e-4
        allowed = torch.ones(n_genes, n_genes, dtype=torch.bool) if mask is None else mask.clone().bool()
        allowed.fill_diagonal_(False)
        self.network = nn.Parameter(initial.clone().float())
        self.allowed: Tensor
        self.register_buffer("allowed", allowed)

    def weights(self) -> Tensor:
        """W with everything that may not be set to 0. (genes, genes)."""
        return self.network * self.allowed

    def forward(self, expression: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct expression (cells, genes); also give mean and log-variance of the latents (cells, genes, z)."""
        identity = torch.eye(expression.shape[1], dtype=expression.dtype, device=expression.device)
        structure = identity - self.weights().T
        hidden = self.encoder(expression.unsqueeze(-1))
        mean, log_variance = torch.einsum("ij,bjk->bik", structure, hidden).chunk(2, dim=-1)
        latent = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance) if self.training else mean
        cells, genes, width = latent.shape
        mixed = torch.linalg.solve(structure, latent.permute(1, 0, 2).reshape(genes, cells * width))
        mixed = mixed.reshape(genes, cells, width).permute(1, 0, 2)
        return self.decoder(mixed).squeeze(-1), mean, log_variance


@dataclass(frozen=True)
class StructuralVAEResult:
    """W and how training went.

    Parameters
    ----------
    weights
        (genes, genes), W[i, j] from gene i to gene j; the sign is W's own.
    loss, reconstruction, divergence
        One number an epoch.
    """

    weights: npt.NDArray[np.float64]
    loss: list[float] = field(default_factory=list)
    reconstruction: list[float] = field(default_factory=list)
    divergence: list[float] = field(default_factory=list)


def structural_network(
    expression: npt.ArrayLike,
    options: StructuralVAEOptions | None = None,
    *,
    initial: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
    progress: Callable[[int], None] | None = None,
) -> StructuralVAEResult:
    """Fit the autoencoder and return its network.

    Parameters
    ----------
    expression
        (cells, genes), log-normalised. Genes are scaled to mean 0 and variance 1; zeros (where there are any in a
        gene that varies) take part in the reconstruction like other values.
    options
        See `StructuralVAEOptions`.
    initial
        Starting network, (genes, genes), for example cosines of gene embeddings; scaled to the mean absolute value
        of the default start.
    mask
        Boolean, (genes, genes): the only edges that may be.
    progress
        Called with 1 after every epoch.

    Raises
    ------
    InputError
        If there are fewer than two genes, fewer cells than genes that vary need (two), values that are not finite, or
        the mask allows no edge.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a = rng.normal(size=200)
    >>> X = np.stack([a, a + 0.1 * rng.normal(size=200), rng.normal(size=200)], axis=1)
    >>> W = structural_network(X, StructuralVAEOptions(epochs=5)).weights
    >>> W.shape, np.diag(W).tolist()
    ((3, 3), [0.0, 0.0, 0.0])
    """
    options = options or StructuralVAEOptions()
    X = np.asarray(expression, dtype=np.float64)
    if X.ndim != 2 or X.shape[1] < 2 or X.shape[0] < 2:
        raise InputError(f"structural_vae: needs at least two cells and two genes, not an array of shape {X.shape}")
    if not np.isfinite(X).all():
        raise InputError("structural_vae: expression holds values that are not finite")
    spread = X.std(axis=0)
    scaled = np.divide(X - X.mean(axis=0), spread, out=np.zeros_like(X), where=spread > 1e-12)
    data = torch.as_tensor(scaled, dtype=torch.float32)
    n_genes = data.shape[1]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        allowed = None if mask is None else torch.as_tensor(np.asarray(mask, dtype=bool))
        if allowed is not None and not bool(allowed.clone().fill_diagonal_(False).any()):
            raise InputError("structural_vae: the mask allows no edge; lower the threshold that made it")
        start = None if initial is None else _scaled_start(np.asarray(initial, dtype=np.float64), n_genes)
        model = StructuralVAE(
            n_genes,
            hidden_size=options.hidden_size,
            latent_size=options.latent_size,
            initial=start,
            mask=allowed,
        )
        return _fit(model, data, options, progress)


def _scaled_start(initial: npt.NDArray[np.float64], n_genes: int) -> Tensor:
    if initial.shape != (n_genes, n_genes):
        raise InputError(f"structural_vae: the starting network is {initial.shape}, not {(n_genes, n_genes)}")
    initial = np.where(np.isfinite(initial), initial, 0.0)
    np.fill_diagonal(initial, 0.0)
    size = np.abs(initial).mean()
    if size == 0:
        raise InputError("structural_vae: the starting network has no edge")
    return torch.as_tensor(initial / size / max(n_genes - 1, 1), dtype=torch.float32)


def _fit(
    model: StructuralVAE, data: Tensor, options: StructuralVAEOptions, progress: Callable[[int], None] | None
) -> StructuralVAEResult:
    others = [parameter for name, parameter in model.named_parameters() if name != "network"]
    optimise_others = torch.optim.RMSprop(others, lr=options.learning_rate)
    optimise_network = torch.optim.RMSprop([model.network], lr=options.network_learning_rate)
    history: dict[str, list[float]] = {"loss": [], "reconstruction": [], "divergence": []}
    model.train()
    for epoch in range(options.epochs):
        turn = epoch % (options.other_steps + options.network_steps)
        optimiser = optimise_others if turn < options.other_steps else optimise_network
        totals = np.zeros(3)
        order = torch.randperm(len(data))
        for rows in order.split(options.batch_size):
            batch = data[rows]
            decoded, mean, log_variance = model(batch)
            reconstruction = 0.5 * F.mse_loss(decoded, batch)
            divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
            loss = (
                reconstruction
                + options.beta * divergence / options.latent_size
                + options.sparsity * model.weights().abs().sum(dim=0).mean()
            )
            optimiser.zero_grad(set_to_none=True)
            model.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimiser.step()
            totals += len(rows) * np.array([loss.item(), reconstruction.item(), divergence.item()])
        for name, value in zip(history, totals / len(data), strict=True):
            history[name].append(float(value))
        if progress is not None:
            progress(1)
    weights = model.weights().detach().double().numpy()
    if not np.isfinite(weights).all():
        raise InputError("structural_vae: training diverged; lower the learning rates")
    return StructuralVAEResult(weights, **history)
