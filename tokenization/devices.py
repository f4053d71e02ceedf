"""A device by name, or one line that says that this machine has none such."""

import torch

from .errors import InputError


def check_device(name: str | torch.device | None) -> None:
    """Refuse a device that is not there, before anything is loaded; None is fine.

    Raises
    ------
    InputError
        No such device here, or no device at all.

    Examples
    --------
    >>> check_device("cpu")
    >>> check_device("gpu")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    InputError: device 'gpu': not a device; pass cpu, cuda or cuda:0, or leave it out
    """
    if name is None:
        return
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r}: not a device; pass cpu, cuda or cuda:0, or leave it out") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        have = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise InputError(f"device {name!r}: this machine has {have or 'no'} CUDA device{'s' * (have > 1)}; pass cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device {name!r}: there is no such device here; pass cpu, or leave it out")
