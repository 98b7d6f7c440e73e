"""Drop-ins: functions of other libraries under their names, with their arguments and results, which are not imported.

Each takes one argument more, ``sampling``: a mapping of options of :func:`.sample`, e.g. ``dict(num_samples=30, tau=1.0)``, that
makes the answer samples ``[B, K, S, d]`` instead of the expectation ``[B, K, d]``.
"""
