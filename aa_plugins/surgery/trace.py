"""What one forward pass does: which modules run, and who reads which tensor.

The pass runs over a structural copy, so it leaves no trace in the network (several timm models
cache what they see in eval mode), and on fake tensors, which compute and allocate nothing.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from aa_plugins.surgery.inputs import Inputs, quiet
from aa_plugins.surgery.twin import tensors_in, twin_of

Shape = tuple[int, ...]


@dataclass(eq=False)
class Call:
    """One call of a module: values are numbers given to tensors in the order they appear.

    `numbers` are the integers that it got beside tensors, as a size (H, W) of tokens; `dtype` and
    `device` are those of its first output; `parent` is the call that made it.
    """

    name: str
    inputs: tuple[int, ...]
    input_shapes: tuple[Shape, ...]
    numbers: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    output_shapes: tuple[Shape, ...] = ()
    dtype: torch.dtype | None = None
    device: torch.device | None = None
    parent: Call | None = None


@dataclass(eq=False)
class Operation:
    """One call of a torch function, and the module calls around it, outermost first.

    `arguments` are what it got by position and by name, None in place of every tensor.
    """

    function: str
    scope: tuple[Call, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_shapes: tuple[Shape, ...]
    output_shapes: tuple[Shape, ...]
    arguments: tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class Trace:
    """All that `antialias` has to know about the forward pass of a network.

    Attributes:
        root: name of the module whose forward pass it is: "" for the whole network.
        may_repeat: whether a module that runs several times can be a site, as it can where the
            filter has no state.
        channels: of the image that it reads; 0 where it reads none.
        results: values that leave the forward pass, or that the network keeps in an attribute, or
            that a hook sees, so that no filter may change their size.
    """

    root: str = ""
    may_repeat: bool = False
    channels: int = 0
    calls: dict[str, list[Call]] = field(default_factory=lambda: defaultdict(list))
    operations: list[Operation] = field(default_factory=list)
    readers: dict[int, list[Operation]] = field(default_factory=lambda: defaultdict(list))
    results: set[int] = field(default_factory=set)

    def why_not_once(self, name: str) -> str | None:
        """None for a module that runs exactly once, else what happens instead."""
        return self.why_not(len(self.calls.get(name, ())))

    def why_not(self, times: int) -> str | None:
        """None for what runs as often as a site may, else what happens instead."""
        if times == 0:
            return "the forward pass doesn't reach it"
        if times > 1 and not self.may_repeat:
            return (
                f"runs {times} times in a forward pass: one predicted filter can't serve several "
                'maps (filter="blur" can)'
            )
        return None

    def takers(self, value: int) -> list[Call]:
        """Module calls that take `value`, outermost first."""
        operations = self.readers.get(value, ())
        return [call for op in operations for call in op.scope if value in call.inputs]

    def sole_readers(self, value: int) -> list[Call]:
        """Module calls, outermost first, that take `value` and inside which all reading happens."""
        operations = self.readers.get(value, ())
        if not operations or value in self.results:
            return []
        return [
            call
            for call in operations[0].scope
            if value in call.inputs and all(call in operation.scope for operation in operations)
        ]


def trace_forward(
    model: nn.Module, inputs: Inputs, root: str = "", fake: bool = True, may_repeat: bool = False
) -> Trace:
    """Run `model`, or its module called `root`, in eval mode and record what happens.

    Args:
        model: stays as it is.
        inputs: of the forward pass; on fake tensors only their shapes, dtypes and devices count.
        fake: on fake tensors; else really, for a forward pass that looks at values.
    """
    tensors = (*model.parameters(), *model.buffers())
    # Tools that load large networks build parameters without memory, and buffers with it.
    empty = any(tensor.is_meta for tensor in tensors)
    twin = twin_of(model, {id(t): t.to("meta") for t in tensors} if empty else None)
    recorder = _Recorder({module: name for name, module in twin.named_modules()})
    images = (tensor for tensor in inputs.tensors() if tensor.ndim in (3, 4))
    recorder.trace.channels = next((image.shape[-3] for image in images), 0)
    recorder.trace.root, recorder.trace.may_repeat = root, may_repeat
    with ExitStack() as stack:
        stack.enter_context(quiet(model))
        if fake:
            mode = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            inputs = inputs.map(mode.from_tensor)
        stack.enter_context(recorder)
        twin.get_submodule(root)(*inputs.args, **inputs.kwargs)
    recorder.note_what_is_kept()
    return recorder.trace


class _Recorder(TorchFunctionMode):
    """Numbers tensors, notes module calls by hooks and functions by the torch-function mode.

    Args:
        names: of the modules of a copy, which get the hooks.
    """

    def __init__(self, names: dict[nn.Module, str]) -> None:
        super().__init__()
        self.names = names
        self.trace = Trace()
        self.scope: list[Call] = []
        self.values: dict[int, int] = {}
        self.alive: list[torch.Tensor] = []  # or an id would be given twice
        self.hooked = {m for m in names if m._forward_hooks or m._forward_pre_hooks}
        for module in names:
            if not isinstance(module, torch.jit.ScriptModule):  # which isn't a copy
                module.register_forward_pre_hook(self.enter, prepend=True, with_kwargs=True)
                module.register_forward_hook(self.leave, prepend=True, with_kwargs=True)

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        tensors = _tensors((args, kwargs))
        values = tuple(self.value(t) for t in tensors)
        if module in self.hooked:
            self.trace.results.update(values)
        numbers = tuple(leaf for leaf in tree_leaves(args) if type(leaf) is int)
        parent = self.scope[-1] if self.scope else None
        call = Call(self.names[module], values, _shapes(tensors), numbers, parent=parent)
        self.scope.append(call)
        self.trace.calls[call.name].append(call)

    def leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        call, tensors = self.scope.pop(), [tensor for _, tensor in tensors_in(output)]
        call.outputs = tuple(self.value(t) for t in tensors)
        call.output_shapes = _shapes(tensors)
        if tensors:
            call.dtype, call.device = tensors[0].dtype, tensors[0].device
        if not self.scope or module in self.hooked:
            self.trace.results.update(call.outputs)

    def note_what_is_kept(self) -> None:
        """Maps that the forward pass left in attributes are read by who knows whom."""
        for module in self.names:
            for _, tensor in tensors_in(vars(module)):
                if id(tensor) in self.values:
                    self.trace.results.add(self.values[id(tensor)])

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        inputs = _tensors((args, kwargs))
        read = tuple(self.value(t) for t in inputs)
        output = func(*args, **kwargs)
        outputs = _tensors(output)
        if not outputs:
            return output
        operation = Operation(
            getattr(func, "__name__", ""),
            tuple(self.scope),
            read,
            # In-place functions return what they read: a new value, too.
            tuple(self.value(tensor, new=True) for tensor in outputs),
            _shapes(inputs),
            _shapes(outputs),
            tree_map(lambda leaf: None if isinstance(leaf, torch.Tensor) else leaf, (args, kwargs)),
        )
        self.trace.operations.append(operation)
        for value in read:
            self.trace.readers[value].append(operation)
        return output

    def value(self, tensor: torch.Tensor, new: bool = False) -> int:
        if new or id(tensor) not in self.values:
            self.alive.append(tensor)
            self.values[id(tensor)] = len(self.alive)
        return self.values[id(tensor)]


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _shapes(tensors: list[torch.Tensor]) -> tuple[Shape, ...]:
    return tuple(tuple(tensor.shape) for tensor in tensors)
