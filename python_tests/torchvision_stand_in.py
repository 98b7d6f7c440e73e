"""timm where torchvision cannot be: its wheels of PyPI do not load beside a CPU build of PyTorch.

timm takes torchvision's transforms, data sets and a frozen norm when it is imported; its networks compute nothing with them.
"""

import sys
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from torch import nn


class _Members(type):
    """The type of classes that have every name, as members of an enumeration."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"


class _Names(ModuleType):
    """A module that has every name: a class of its own each, which nothing is an instance of."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Members(name, (nn.Module,), {})


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, fullname, path=None, target=None):
        return ModuleSpec(fullname, self, is_package=True) if fullname.partition(".")[0] == "torchvision" else None

    def create_module(self, spec):
        return _Names(spec.name)

    def exec_module(self, module) -> None:
        pass


@contextmanager
def _stand_in():
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]


def import_timm() -> ModuleType:
    """timm, with the real torchvision if that loads."""
    try:
        return import_module("timm")
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.partition(".")[0] in ("timm", "torchvision")]:
            del sys.modules[name]
        with _stand_in():
            return import_module("timm")
