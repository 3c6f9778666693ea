"""Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, ICLR 2016)."""
