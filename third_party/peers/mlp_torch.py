"""The problem of `mlp` in PyTorch: `higher`, TorchOpt, and the trainer of bergson's MAGIC, each if it is installed."""

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from third_party.peers.mlp import Arrays, Inner

Peer = Callable[[Arrays, Inner, int], np.ndarray]


class Network(torch.nn.Module):
    """The network of `mlp.losses`; the first argument is named as bergson's trainer expects it."""

    def __init__(self, data: Arrays) -> None:
        super().__init__()
        self.w1 = torch.nn.Parameter(torch.tensor(data["w1"]))
        self.w2 = torch.nn.Parameter(torch.tensor(data["w2"]))

    def forward(
        self, input_ids: torch.Tensor, targets: torch.Tensor, example_weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Returns the losses, [M], or their weighted sum."""
        losses_M = ((torch.tanh(input_ids @ self.w1) @ self.w2 - targets) ** 2).mean(dim=1)
        return losses_M if example_weight is None else example_weight @ losses_M


def with_higher(data: Arrays, inner: Inner, num_steps: int) -> np.ndarray:
    """Differentiates with `innerloop_ctx` of facebookresearch/higher, whose Adam has no `eps_root`."""
    import higher

    if inner.eps_root:
        raise ValueError("higher's Adam has no eps_root")
    network, weights_M, batch, outer = _setup(data)
    optimizer: torch.optim.Optimizer = torch.optim.SGD(network.parameters(), lr=inner.rate)
    if inner.adam:
        optimizer = torch.optim.Adam(network.parameters(), lr=inner.rate, eps=inner.eps)
    with higher.innerloop_ctx(network, optimizer) as (functional, stepper):
        for _ in range(num_steps):
            stepper.step(weights_M @ functional(*batch))
        return torch.autograd.grad(functional(*outer).mean(), weights_M)[0].numpy()


def with_torchopt(data: Arrays, inner: Inner, num_steps: int) -> np.ndarray:
    """Differentiates with `MetaSGD` or `MetaAdam` of metaopt/torchopt."""
    import torchopt

    network, weights_M, batch, outer = _setup(data)
    with _float64():
        optimizer = torchopt.MetaSGD(network, lr=inner.rate)
        if inner.adam:
            optimizer = torchopt.MetaAdam(network, lr=inner.rate, eps=inner.eps, eps_root=inner.eps_root)
        for _ in range(num_steps):
            optimizer.step(weights_M @ network(*batch))
        return torch.autograd.grad(network(*outer).mean(), weights_M)[0].numpy()


def with_bergson(data: Arrays, inner: Inner, num_steps: int) -> np.ndarray:
    """Differentiates with the trainer of EleutherAI/bergson, which writes checkpoints to disk and replays from them."""
    from bergson.magic import trainer

    network, weights_M, batch, outer = _setup(data)
    run, state = _bergson_trainer(network, inner)
    stream = _Stream(weights_M, batch, num_steps)
    quiet = contextlib.redirect_stderr(io.StringIO())  # progress bars
    with _float64(), tempfile.TemporaryDirectory() as directory, quiet:
        state = run.train(state.detach_(), stream, save_dir=directory)
        state.detach_()
        state.requires_grad = True
        with state.activate(network) as params:
            gradients = torch.autograd.grad(network(*outer).mean(), list(params.values()))
        moments = state.differentiable_tensors()[len(gradients) :]
        start = trainer.BackwardState(
            dict(zip(params, gradients, strict=True)),
            [torch.zeros_like(moment) for moment in moments],
            torch.zeros_like(weights_M),
        )
        return run.backward(directory, stream, start, state).weight_grads.detach().numpy()


def bergson_metasmoothness(data: Arrays, inner: Inner, num_steps: int, direction_M: np.ndarray, step: float) -> float:
    """Measures the metasmoothness with bergson: three trainings by its trainer, and its score.

    Args:
        data: from `mlp.draw`.
        inner: the inner optimizer.
        num_steps: number of steps of training.
        direction_M: direction in the space of weights.
        step: step along the direction, relative to each weight.
    """
    from bergson.magic.metasmoothness import metasmoothness_score

    ends = []
    for k in range(3):
        network, weights_M, batch, _ = _setup(data | {"weights": data["weights"] * (1 + k * step * direction_M)})
        run, state = _bergson_trainer(network, inner)
        with _float64(), contextlib.redirect_stderr(io.StringIO()):  # progress bars
            state = run.train(state.detach_(), _Stream(weights_M, batch, num_steps), inplace=True)
        ends.append(torch.cat([leaf.detach().flatten() for leaf in state.params.values()]))
    return metasmoothness_score(*ends)


def _bergson_trainer(network: Network, inner: Inner) -> tuple[Any, Any]:
    """Returns bergson's trainer and its first state."""
    import torchopt
    from bergson.magic import trainer

    rate = inner.rate
    optimizer = torchopt.adam(rate, eps=inner.eps, eps_root=inner.eps_root) if inner.adam else torchopt.sgd(rate)
    return trainer.Trainer.initialize(network, optimizer)


PEERS: dict[str, Peer] = {"higher": with_higher, "torchopt": with_torchopt, "bergson": with_bergson}


class _Stream:
    """The same examples at every step, as a data stream of bergson."""

    def __init__(self, weights_M: torch.Tensor, batch: tuple[torch.Tensor, torch.Tensor], num_steps: int) -> None:
        self.weights, self.batch, self.num_steps, self.device = weights_M, batch, num_steps, weights_M.device

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        return {"input_ids": self.batch[0], "targets": self.batch[1], "example_weight": self.weights}

    @property
    def requires_grad(self) -> bool:
        return self.weights.requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.weights.requires_grad = value


@contextlib.contextmanager
def _float64() -> Iterator[None]:
    """Makes float64 the default: TorchOpt corrects Adam's bias in the default type, not in that of the parameters."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _setup(data: Arrays) -> tuple[Network, torch.Tensor, tuple[Any, Any], tuple[Any, Any]]:
    """Returns the network, the weights, and the arguments of both losses."""
    x, y, outer_x, outer_y = (torch.tensor(data[name]) for name in ("x", "y", "outer_x", "outer_y"))
    return Network(data), torch.tensor(data["weights"], requires_grad=True), (x, y), (outer_x, outer_y)
