"""The network: configuration, model and heads."""
