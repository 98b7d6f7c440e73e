"""How sure a map is: what it says of its point, and how that is made true on data. PyTorch, NumPy and SciPy alone."""
