"""The error that means: the input is at fault, and this line says what, where and how to mend it."""


class InputError(ValueError):
    """Bad input from the user, worth one line rather than a trace.

    Say what is wrong, where (file, cell, gene, column) and how to fix it. The command line prints the message
    and exits with code 2.

    Examples
    --------
    >>> raise InputError("pbmc.h5ad: cell 'AAAC-1' has value 1.73 in X: log-normalised data; pass counts='raw'")
    Traceback (most recent call last):
    ...
    genecompass.tokenization.errors.InputError: pbmc.h5ad: cell ...
    """
