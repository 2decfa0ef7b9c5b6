"""PyTorch peers with SGD in the inner loop: double backward, and the libraries `higher` and TorchOpt if installed."""

from collections.abc import Callable

import numpy as np
import torch

from third_party.peers import problem, torch_llama

Peer = Callable[[problem.Size, problem.Data, float, int], np.ndarray]


def double_backward(size: problem.Size, data: problem.Data, rate: float, num_steps: int) -> np.ndarray:
    """Differentiates with `create_graph=True` through every step: reverse over reverse, with all activations saved."""
    return weight_gradient(*_setup(size, data), rate, num_steps).numpy()


def weight_gradient(
    model: torch_llama.TorchLlama,
    weights_M: torch.Tensor,
    tokens_MT: torch.Tensor,
    outer_BT: torch.Tensor,
    rate: float,
    num_steps: int,
) -> torch.Tensor:
    """Returns the gradient of `double_backward` for tensors on any device."""
    params: dict[str, torch.Tensor] = dict(model.named_parameters())
    for _ in range(num_steps):
        loss = weights_M @ torch.func.functional_call(model, params, (tokens_MT,))
        grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        params = {name: p - rate * g for (name, p), g in zip(params.items(), grads, strict=True)}
    outer = torch.func.functional_call(model, params, (outer_BT,)).mean()
    return torch.autograd.grad(outer, weights_M)[0]


def with_higher(size: problem.Size, data: problem.Data, rate: float, num_steps: int) -> np.ndarray:
    """Differentiates with `innerloop_ctx` of facebookresearch/higher 0.2.1."""
    import higher

    model, weights_M, tokens_MT, outer_BT = _setup(size, data)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    with higher.innerloop_ctx(model, optimizer) as (functional, stepper):
        for _ in range(num_steps):
            stepper.step(weights_M @ functional(tokens_MT))
        outer = functional(outer_BT).mean()
        return torch.autograd.grad(outer, weights_M)[0].numpy()


def with_torchopt(size: problem.Size, data: problem.Data, rate: float, num_steps: int) -> np.ndarray:
    """Differentiates with `MetaSGD` of metaopt/torchopt."""
    import torchopt

    model, weights_M, tokens_MT, outer_BT = _setup(size, data)
    optimizer = torchopt.MetaSGD(model, lr=rate)
    for _ in range(num_steps):
        optimizer.step(weights_M @ model(tokens_MT))
    return torch.autograd.grad(model(outer_BT).mean(), weights_M)[0].numpy()


PEERS: dict[str, Peer] = {
    "torch-double-backward": double_backward,
    "higher": with_higher,
    "torchopt": with_torchopt,
}


def _setup(
    size: problem.Size, data: problem.Data
) -> tuple[torch_llama.TorchLlama, torch.Tensor, torch.Tensor, torch.Tensor]:
    model = torch_llama.TorchLlama(size, data)
    weights_M = torch_llama.tensor(data.weights_M).requires_grad_()
    return model, weights_M, torch_llama.tensor(data.tokens_MT).long(), torch_llama.tensor(data.outer_BT).long()
