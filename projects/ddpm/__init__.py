"""Denoising Diffusion Probabilistic Models (Ho, Jain & Abbeel, NeurIPS 2020)."""
