"""One folder a task: its reader, metrics, synthetic data, and the module that is trained with its data."""
