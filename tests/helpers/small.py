"""A small data set of real digits, for tests of what does not depend on the digits."""

from torch import Tensor, arange

from mnist_lit.data.sources import default_data_dir, load

NUM_TRAIN, NUM_TEST = 2500, 500


def digits(train: bool) -> tuple[Tensor, Tensor]:
    """Return MNIST's first training or test images, ``(N, 1, 28, 28)`` uint8, and labels."""
    mnist = load("mnist", default_data_dir())
    (images, labels), num = (mnist.train, NUM_TRAIN) if train else (mnist.test, NUM_TEST)
    return images[arange(num)], labels[:num]
