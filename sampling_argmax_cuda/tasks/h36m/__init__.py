"""Human3.6M 3-D poses of people, mixed with MPII."""
