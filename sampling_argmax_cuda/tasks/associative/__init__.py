"""People of whole images without boxes: associative embedding (Newell et al., NeurIPS 2017)."""
