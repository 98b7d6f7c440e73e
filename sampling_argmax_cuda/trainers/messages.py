"""Lines for the user, told once however many processes a run has."""

from lightning.pytorch.utilities import rank_zero_only

tell = rank_zero_only(print)
