"""How fast training goes: tokens and cells per second, use of the device's arithmetic, the wait for data."""

import time
from dataclasses import dataclass, field

import torch

from ...modeling_genecompass import GeneCompassConfig

# dense bf16/fp16 peaks of one device in TFLOP/s, from the vendors' data sheets; the first name that fits counts
_KNOWN_PEAKS = (
    ("B200", 2250.0),
    ("H200", 989.0),
    ("H100", 989.0),
    ("GH200", 989.0),
    ("A100", 312.0),
    ("A800", 312.0),
    ("L40", 181.0),
    ("L4", 121.0),
    ("A10", 125.0),
    ("V100", 125.0),
    ("T4", 65.0),
)


@dataclass(frozen=True)
class FlopCount:
    """Arithmetic that a training step needs, whatever is spent on padding or recomputation.

    Parameters
    ----------
    config
        The model's configuration.

    Examples
    --------
    >>> FlopCount(GeneCompassConfig.tiny(vocab_size=100)).of_batch(torch.tensor([10, 20]), id_targets=3) > 0
    True
    """

    config: GeneCompassConfig

    def of_batch(self, cell_lengths: torch.Tensor, id_targets: int) -> float:
        """Floating-point operations of one forward and backward pass.

        Parameters
        ----------
        cell_lengths
            Genes of each cell, shape (cells,).
        id_targets
            Slots that reach the vocabulary-wide decoder.
        """
        size, layers = self.config.hidden_size, self.config.num_hidden_layers
        lengths = cell_lengths.double()
        tokens, squares = float(lengths.sum()), float(lengths.square().sum())
        prior_widths = sum(self.config.priors.values())
        fusion = size * (size * (1 + len(self.config.priors)) + prior_widths) + size * size
        encoder = layers * (4 * size * size + 2 * size * self.config.intermediate_size)
        # multiply and add, once forward and twice backward: 6 operations a weight and token
        dense = 6 * tokens * (fusion + encoder)
        attention = 12 * layers * size * squares
        heads = 6 * id_targets * (size * self.config.vocab_size + size * size)
        return dense + attention + heads


def peak_flops(device: torch.device, dtype: torch.dtype = torch.float32) -> float | None:
    """Peak arithmetic of one device in FLOP/s: known GPUs by name, CPUs by a short matrix product; None if unknown.

    Examples
    --------
    >>> peak_flops(torch.device("cpu")) > 0
    True
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        peak = next((tera * 1e12 for known, tera in _KNOWN_PEAKS if known in name), None)
        return peak if peak is None or dtype != torch.float32 else peak / 2
    if device.type != "cpu":
        return None
    size = 768
    # no random numbers: drawing them would move the dropout of the run that is being measured
    first, second = torch.full((size, size), 0.5), torch.full((size, size), 0.25)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        first @ second
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


@dataclass
class Meter:
    """Sums since the last log, reduced over processes when logged.

    Parameters
    ----------
    device
        Where loss sums are kept, so that adding to them never makes a GPU wait.
    """

    device: torch.device
    tokens: int = 0
    slots: int = 0
    cells: int = 0
    flops: float = 0.0
    data_seconds: float = 0.0
    steps: int = 0
    paused_seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.losses = torch.zeros(2, dtype=torch.float64, device=self.device)

    def add_losses(self, id_loss: torch.Tensor, value_loss: torch.Tensor) -> None:
        """Add a micro-batch's parts of the step's mean losses."""
        self.losses += torch.stack([id_loss.detach(), value_loss.detach()]).to(self.losses)

    def sums(self) -> torch.Tensor:
        """What has to be summed over processes, shape (7,)."""
        counts = [self.tokens, self.slots, self.cells, self.flops, self.data_seconds]
        return torch.cat([self.losses, torch.tensor(counts, dtype=torch.float64, device=self.device)])

    def report(self, totals: torch.Tensor, processes: int, peak: float | None) -> dict[str, float]:
        """Figures for the log from summed `sums`; starts a new stretch."""
        id_loss, value_loss, tokens, slots, cells, flops, waited = totals.tolist()
        seconds = max(time.perf_counter() - self.started - self.paused_seconds, 1e-9)
        steps = max(self.steps, 1)
        figures = {
            "id_loss": id_loss / steps,
            "value_loss": value_loss / steps,
            "tokens_per_second": tokens / seconds,
            "cells_per_second": cells / seconds,
            "padding_share": 1 - tokens / slots if slots else 0.0,
            "data_wait_share": waited / processes / seconds,
        }
        if peak:
            figures["flop_utilisation"] = flops / seconds / (peak * processes)
        self.__init__(self.device)  # type: ignore[misc]
        return figures
