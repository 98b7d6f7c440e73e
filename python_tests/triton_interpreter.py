"""Makes Triton's interpreter twice as fast by leaving out what it does for nothing; no result changes.

A call of a device function patches all of triton.language again, though the launch around it has done so. And every sum,
difference or product of integers is made a second time in 64 bits for an overflow check that is made only in debug mode.
"""

from dataclasses import replace

from triton.runtime import interpreter


def patch_once_a_launch() -> None:
    patch, launch, patched = interpreter._patch_lang, interpreter.GridExecutor.__call__, set()

    def patch_new(function):
        if function not in patched:
            patched.add(function)
            return patch(function)

    def launch_anew(self, *args, **kwargs):
        patched.clear()  # the end of a launch takes its patches back
        return launch(self, *args, **kwargs)

    interpreter._patch_lang, interpreter.GridExecutor.__call__ = patch_new, launch_anew


def skip_unread_checks() -> None:
    builder = interpreter.interpreter_builder
    if not builder.options.debug:
        builder.options = replace(builder.options, sanitize_overflow=False)


def hurry() -> None:
    """Where this release of Triton has these parts."""
    if hasattr(interpreter, "_patch_lang") and not hasattr(interpreter, "_hurries"):
        patch_once_a_launch()
        skip_unread_checks()
        interpreter._hurries = True
