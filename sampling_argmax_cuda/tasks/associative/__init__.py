"""Bottom-up pose: all people of an image, without boxes, by associative embedding (Newell et al., NeurIPS 2017)."""
