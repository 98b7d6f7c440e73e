"""Trainers for localization tasks. A task is a reader, a model, a metric and a config; the rest is shared."""
