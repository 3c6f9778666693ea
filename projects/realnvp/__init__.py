"""Density estimation using Real NVP (Dinh, Sohl-Dickstein & Bengio 2017)."""
