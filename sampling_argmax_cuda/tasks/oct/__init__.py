"""Retinal surfaces in OCT volumes."""
