"""Using a trained model: embeddings, annotation, perturbation, networks."""
