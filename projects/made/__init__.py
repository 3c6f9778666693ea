"""MADE: Masked Autoencoder for Distribution Estimation (Germain et al., 2015)."""
