"""PyTorch's operators on the memory of the devices, computed as on the CPU."""

import ctypes

import torch
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

OURS = ("sampling_argmax", "sampling_argmax_triton")
EMPTY = ("aten::empty", "aten::new_empty")


def alias(x: torch.Tensor) -> torch.Tensor:
    """The same memory as a tensor of the CPU."""
    if x.device.type != "cuda":
        return x
    storage = x.untyped_storage()
    if storage.nbytes() == 0:
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)
    return (
        bytes_of(storage)[: storage.nbytes() // x.element_size() * x.element_size()]
        .view(x.dtype)
        .as_strided(x.shape, x.stride(), x.storage_offset())
    )


def bytes_of(storage: torch.UntypedStorage) -> torch.Tensor:
    memory = (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
    return torch.frombuffer(memory, dtype=torch.uint8)


def poisoned(function, args, kwargs) -> torch.Tensor:
    """New memory, full of NaN."""
    x = function(*args, **kwargs)
    if x.untyped_storage().nbytes() > 0:
        bytes_of(x.untyped_storage()).fill_(0xFF)
    return x


class OnHost(TorchDispatchMode):
    """Operators of PyTorch on tensors of a device run on aliases of their memory; those of this package run as they are."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        cuda = next((x.device for x in tensors if x.device.type == "cuda"), None)
        device = torch.device(kwargs["device"]) if kwargs.get("device") is not None else cuda
        on_cpu = cuda is None and (device is None or device.type != "cuda")
        if on_cpu or function.namespace == "prim" or any(isinstance(x, FakeTensor) for x in tensors):
            return function(*args, **kwargs)
        if function.namespace in OURS:
            with self:  # what its launcher asks of PyTorch comes here too
                return function.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA), *args, **kwargs)
        if function._can_decompose():  # e.g. contiguous, which is a view or a copy
            with self:
                return function.decompose(*args, **kwargs)
        if function.is_view:
            return function(*args, **kwargs)
        if function._schema.name.startswith(EMPTY):
            return poisoned(function, args, kwargs)
        return self.on_host(function, args, kwargs, device)

    def on_host(self, function, args, kwargs, device):
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        of = {}

        def host(x):
            y = alias(x)
            of[id(y)] = y, x
            return y

        args, kwargs = tree_map_only(torch.Tensor, host, (args, kwargs))
        kwargs = tree_map_only(torch.device, lambda d: torch.device("cpu"), kwargs)
        kwargs = {k: None if isinstance(v, torch.Generator) else v for k, v in kwargs.items()}
        result = function(*args, **kwargs)

        def back(y):
            if id(y) in of:  # written in place
                return of[id(y)][1]
            if device.type != "cuda":
                return y
            x = torch.empty_strided(y.shape, y.stride(), dtype=y.dtype, device=device)
            alias(x).copy_(y)
            return x

        return tree_map_only(torch.Tensor, back, result)
