"""TensorFlow's RMSProp against a loop over numbers in float64, and what sets it apart."""

import math

import pytest
import torch

from tutelage.run.training.rmsprop import RMSProp

LR, MOMENTUM, DECAY, EPSILON, WEIGHT_DECAY = 0.064, 0.9, 0.8, 1e-3, 0.02


def by_hand(weights, gradients, rates):
    """One number after another, as the module's docstring prints it."""
    weights = list(weights)
    squares, buffers = [1.0] * len(weights), [0.0] * len(weights)
    for gradient, lr in zip(gradients, rates, strict=True):
        for k in range(len(weights)):
            g = gradient[k] + WEIGHT_DECAY * weights[k]
            squares[k] = DECAY * squares[k] + (1 - DECAY) * g * g
            buffers[k] = MOMENTUM * buffers[k] + lr * g / math.sqrt(squares[k] + EPSILON)
            weights[k] -= buffers[k]
    return weights


def trained(start, gradients, rates, between=lambda optimiser: optimiser):
    """The same by the optimiser, in two tensors of one group."""
    weights = [start[:2].clone().requires_grad_(), start[2:].clone().requires_grad_()]
    optimiser = RMSProp(
        weights,
        LR,
        momentum=MOMENTUM,
        decay=DECAY,
        epsilon=EPSILON,
        weight_decay=WEIGHT_DECAY,
    )
    for gradient, lr in zip(gradients, rates, strict=True):
        optimiser = between(optimiser)
        optimiser.param_groups[0]["lr"] = lr
        weights[0].grad, weights[1].grad = gradient[:2].clone(), gradient[2:].clone()
        optimiser.step()
    return torch.cat([weight.detach() for weight in weights])


def problem():
    start = torch.randn(5, dtype=torch.float64)
    gradients = torch.randn(7, 5, dtype=torch.float64)
    return start, gradients, [LR, LR, LR / 2, LR / 2, LR / 8, 0.0, LR]


def test_steps_are_those_of_a_loop():
    start, gradients, rates = problem()
    want = by_hand(start.tolist(), gradients.tolist(), rates)
    assert trained(start, gradients, rates).tolist() == pytest.approx(want, rel=1e-13)


def test_the_first_step_is_hand_worked():
    weight = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    optimiser = RMSProp([weight], 0.1, momentum=0.9, decay=0.9, epsilon=0.001)
    (3 * weight).sum().backward()
    optimiser.step()  # 0.9 * 1 + 0.1 * 9 = 1.8
    assert weight.item() == pytest.approx(2 - 0.1 * 3 / math.sqrt(1.801), rel=1e-14)


def test_the_rate_of_a_step_stays_in_the_buffer():
    """After a step at rate 0 the weights continue by momentum at the rates of before."""
    weight = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    optimiser = RMSProp([weight], 0.1, momentum=0.5)
    weight.grad = torch.tensor([4.0], dtype=torch.float64)
    optimiser.step()
    first = 1 - weight.item()
    optimiser.param_groups[0]["lr"] = 0.0
    optimiser.step()
    assert 1 - weight.item() == pytest.approx(1.5 * first, rel=1e-14)


def test_it_is_not_the_rmsprop_of_torch():
    start, gradients, rates = problem()
    weight = start.clone().requires_grad_()
    other = torch.optim.RMSprop(
        [weight], LR, alpha=DECAY, eps=EPSILON, weight_decay=WEIGHT_DECAY, momentum=MOMENTUM
    )
    weight.grad = gradients[0].clone()
    other.step()
    ours = start - trained(start, gradients[:1], rates[:1])
    assert ((start - weight.detach()) / ours).min() > 1.5


def test_a_stored_state_goes_on_to_the_bit():
    def stored(optimiser):
        (group,) = optimiser.param_groups
        fresh = RMSProp(group["params"], 1.0)
        fresh.load_state_dict(optimiser.state_dict())
        return fresh

    start, gradients, rates = problem()
    want = trained(start, gradients, rates)
    assert torch.equal(trained(start, gradients, rates, between=stored), want)


def test_weights_without_a_gradient_are_left_alone():
    used, idle = (torch.ones(2, requires_grad=True) for _ in range(2))
    optimiser = RMSProp([used, idle], 0.1, weight_decay=0.1)
    used.grad = torch.ones(2)
    optimiser.step()
    assert torch.equal(idle, torch.ones(2))
    assert idle not in optimiser.state
    assert (used < 1).all()


def test_a_closure_computes_the_gradients():
    weight = torch.tensor([2.0], requires_grad=True)
    optimiser = RMSProp([weight], 0.1)

    def closure():
        optimiser.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss

    assert optimiser.step(closure).item() == 4.0
    assert weight.item() < 2
