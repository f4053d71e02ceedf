"""Card templates and the code that fills them in."""
