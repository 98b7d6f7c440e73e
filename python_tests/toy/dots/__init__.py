"""A dot on noise: the smallest task that there is."""
