"""Single-person pose by stacked hourglasses: MPII and LSP, scored by PCKh."""
