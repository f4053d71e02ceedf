"""Fine-tuning: labelled cells or genes in, an adapter, a head or a whole checkpoint out."""
