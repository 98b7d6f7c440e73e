"""MTFL facial landmarks."""
