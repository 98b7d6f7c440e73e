"""What is trained and how a position is read: one file an objective, plain PyTorch."""
