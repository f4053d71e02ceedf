"""What a perturbation, a drug at a dose or a compound does to expression: small networks, fitted per data set."""
