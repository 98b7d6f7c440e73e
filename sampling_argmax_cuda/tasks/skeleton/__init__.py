"""Unsupervised keypoints of point clouds: Skeleton Merger."""
