"""Supervised keypoints of point clouds: KeypointNet."""
