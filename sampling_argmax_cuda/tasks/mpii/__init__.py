"""Single people by stacked hourglasses: MPII and LSP, scored by PCKh."""
