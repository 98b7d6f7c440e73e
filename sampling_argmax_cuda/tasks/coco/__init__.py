"""COCO 2-D poses of people."""
