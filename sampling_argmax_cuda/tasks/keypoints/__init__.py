"""Key points of any kind, from one's own COCO-like files."""
