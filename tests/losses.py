"""What a model gives for a batch, by the names that recipes weigh."""

from torch import Tensor

from tpo_core.train.shares import loss_of


def mean_losses(model, batch) -> dict[str, Tensor]:
    """Each loss as the mean over its targets, summed over its terms."""
    losses, counts, means = model(batch)[0], model.counts(batch), {}
    for name, value in losses.items():
        means[loss_of(name)] = means.get(loss_of(name), 0.0) + value / max(1, counts[name])
    return means


def names_of(losses) -> set[str]:
    return {loss_of(name) for name in losses}
