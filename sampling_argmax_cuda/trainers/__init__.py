"""What all tasks share: the training loop, data modules, crops, networks, test-time augmentation, figures, files."""
