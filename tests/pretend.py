"""A GPU that is not there: CPU tensors that carry a mark, and raise where CUDA's would.

Inside ``pretending()`` what is moved to "cuda" or made there is marked; what comes of marked tensors is marked, too.
One that meets an unmarked one, ``.numpy()`` of one, and a CPU generator that shall fill one raise as PyTorch does with
a GPU. The values are real, so that gradients are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

MARKED: Any = WeakIdKeyDictionary()
FREE = {"copy_", "__set__", "__repr__", "__format__", "__hash__", "_has_compatible_shallow_copy_type"}
"""What may be asked of tensors on two devices at once."""
INDEXING = {"__getitem__", "__setitem__", "index_put_"}


def on_gpu(x: Any) -> bool:
    """Whether a tensor is marked."""
    return x in MARKED


def marked(values: Any) -> Any:
    """``values`` with all their tensors marked."""

    def one(x: Tensor) -> Tensor:
        MARKED[x] = True
        return x

    return tree_map_only(Tensor, one, values)


def is_cuda(device: Any) -> bool:
    return torch.device(device).type == "cuda"


class PretendGpu(TorchFunctionMode):
    """Follows the marks through every function of PyTorch."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", str(func))
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return torch.device("cuda", 0) if on_gpu(args[0]) else torch.device("cpu")
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return on_gpu(args[0])
        if name in ("to", "cuda", "cpu"):
            return self.moved(func, name, args, kwargs)
        if name in ("numpy", "__array__") and on_gpu(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        place = kwargs.get("device")
        if kwargs.get("generator") is not None and (is_cuda(place or "cpu") or any(map(on_gpu, tensors))):
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if place is not None:
            kwargs["device"] = torch.device("cpu")
            return marked(func(*args, **kwargs)) if is_cuda(place) else func(*args, **kwargs)
        self.check(name, args, tensors)
        out = func(*args, **kwargs)
        own = tensors[:1] if name in INDEXING else tensors
        return marked(out) if any(map(on_gpu, own)) else out

    def moved(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """``to`` and its like: a copy where the device changes."""
        places = [a for a in (*args[1:], kwargs.get("device")) if isinstance(a, str | torch.device | Tensor)]
        target = {"cuda": True, "cpu": False}.get(name, on_gpu(args[0]))
        for place in places:
            target = on_gpu(place) if isinstance(place, Tensor) else is_cuda(place)
        rest = [torch.device("cpu") if isinstance(a, str | torch.device) else a for a in args[1:]]
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
        out = args[0] if name == "cuda" else func(args[0], *rest, **kwargs)
        out = out.clone() if out is args[0] and target != on_gpu(args[0]) else out
        return marked(out) if target else out

    def check(self, name: str, args: Any, tensors: list[Tensor]) -> None:
        """Raise where devices mix; a number in a tensor of its own may meet any."""
        if name in INDEXING:
            indices = [x for x in tree_flatten(args[1])[0] if isinstance(x, Tensor)]
            if not on_gpu(args[0]) and any(map(on_gpu, indices)):
                raise RuntimeError("indices should be on the same device as the indexed tensor")
            tensors = [args[0], *(x for x in args[2:] if isinstance(x, Tensor))]
        places = {on_gpu(x) for x in tensors if x.dim() > 0}
        if len(places) == 2 and name not in FREE:
            shapes = [(tuple(x.shape), "cuda" if on_gpu(x) else "cpu") for x in tensors]
            raise RuntimeError(f"Expected all tensors to be on the same device: {name} {shapes}")


@contextmanager
def pretending() -> Iterator[None]:
    """Tensors and modules can be moved to a GPU that is not there."""
    to = nn.Module.to

    def module_to(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        place = kwargs.get("device") or next((a for a in args if isinstance(a, str | torch.device)), "cpu")
        if not is_cuda(place):
            return to(self, *args, **kwargs)
        marked([*self.parameters(), *self.buffers()])
        return self

    with pytest.MonkeyPatch.context() as patch, PretendGpu():
        patch.setattr(nn.Module, "to", module_to)
        yield
