"""Forward and backward on a copy of the model, so that errors are one line and cost no run."""

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from mnist_lit.checkpoints import check_storable
from mnist_lit.data.images import Batch
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError, one_line
from mnist_lit.models import class_path_of
from mnist_lit.training.classification import LitClassifier


def check_training_step(model: LitClassifier, data: MNISTDataModule, smallest_batch: int) -> None:
    """Compute gradients on a copy; the model and the global random states stay as they are.

    Args:
        model: not yet moved to its device.
        data: set up.
        smallest_batch: images in the smallest batch that a process gets in an epoch.

    Raises:
        UserError: the step fails, or no checkpoint can hold the weights.
    """
    check_storable(model.state_dict())
    try:
        copy = deepcopy(model)
    except Exception:  # own modules may hold what cannot be copied: these are not checked
        return
    name = class_path_of(type(model.network))
    with isolate_rng(include_cuda=False):
        try:
            _compute_gradients(copy, _batch(data, 2))
        except UserError:
            raise
        except Exception as error:  # of somebody else's network or loss
            raise UserError(f"{name} cannot be trained: {one_line(error)}") from error
        if smallest_batch > 1:
            return
        try:
            _compute_gradients(copy, _batch(data, 1))
        except Exception as error:
            raise UserError(
                f"{name} cannot be trained on a single image, which is all that the last batch of"
                f" an epoch has: change data.batch_size or data.val_size ({one_line(error)})"
            ) from error


def _batch(data: MNISTDataModule, size: int) -> Batch:
    train = data.images("train")
    images, labels = train[torch.arange(size) % len(train)]
    if data.negatives:
        labels = F.one_hot(labels, data.num_classes).float()
    return images.float() / 255, labels


def _compute_gradients(model: LitClassifier, batch: Batch) -> None:
    images, labels = batch
    loss = model.objective(model(images), labels)
    _check_loss(loss, model)
    torch.autograd.backward(loss)


def _check_loss(loss: Any, model: LitClassifier) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = type(loss).__name__
        if isinstance(loss, Tensor):
            found = f"tensor of shape {tuple(loss.shape)}"
        raise UserError(
            f"model.loss {type(model.criterion).__name__} returns a {found}: have it return a"
            " scalar, the mean over the images"
        )
    if not loss.requires_grad:
        raise UserError(
            f"{class_path_of(type(model.network))} has nothing to train: the loss depends on no"
            " parameter with requires_grad"
        )
