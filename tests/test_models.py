"""The networks themselves."""

import pytest
import torch
import torch.nn.functional as F

from mnist_lit.data.module import MNISTDataModule
from mnist_lit.models import CNN, NETWORKS, Shape, Wide, probe_images, run_in_eval_mode


def test_cnn_is_the_original_one() -> None:
    network = CNN(*Shape())
    shapes = [tuple(weight.shape) for weight in network.parameters() if weight.dim() > 1]

    assert shapes == [(10, 1, 5, 5), (20, 10, 5, 5), (50, 320), (10, 50)]
    assert sum(weight.numel() for weight in network.parameters()) == 21_840


def test_normalisation_travels_with_the_weights() -> None:
    trained = CNN(*Shape(), dropout=0.0)
    trained.mean.fill_(0.13)
    trained.std.fill_(0.31)
    loaded = CNN(*Shape(), dropout=0.0)
    loaded.load_state_dict(trained.state_dict())
    images = torch.rand(2, 1, 28, 28)

    assert torch.equal(loaded(images), trained(images))
    assert loaded.normalise(torch.tensor(0.13)).item() == 0


def test_bytes_are_scaled() -> None:
    network = CNN(*Shape(), dropout=0.0)
    pixels = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)

    torch.testing.assert_close(network(pixels), network(pixels.float() / 255))


def test_asking_leaves_every_part_in_its_mode() -> None:
    network, images = CNN(*Shape(), dropout=0.5), probe_images(Shape())
    network.dropout.eval()  # as something frozen
    before = [part.training for part in network.modules()]
    answers = run_in_eval_mode(network, images)

    assert torch.equal(answers, run_in_eval_mode(network, images)), "no dropout"
    assert not torch.equal(network(images), network(images)), "but in training"
    assert [part.training for part in network.modules()] == before


@pytest.mark.parametrize("network_class", NETWORKS.values(), ids=NETWORKS)
def test_network_can_learn_one_batch_by_heart(
    network_class: type[CNN] | type[Wide], data_dir: object
) -> None:
    data = MNISTDataModule()
    data.setup()
    images, labels = data.images("train").pixels[:10] / 255, data.images("train").labels[:10]
    torch.manual_seed(0)
    network = network_class(*Shape(), dropout=0.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(50):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), labels)
        torch.autograd.backward(loss)
        optimizer.step()

    assert (network(images).argmax(1) == labels).all()


def test_cnn_computes_what_the_textbook_says() -> None:
    """The bias is added after pooling, for speed; the layers in their usual order agree."""
    network = CNN(*Shape(), dropout=0.0)
    images = torch.rand(50, 1, 28, 28)
    x = F.relu(F.max_pool2d(network.conv1(images), 2))
    x = F.relu(F.max_pool2d(network.conv2(x), 2)).flatten(1)
    expected = network.fc2(F.relu(network.fc1(x)))

    assert torch.allclose(network(images), expected, atol=1e-5)


@pytest.mark.parametrize("network_class", NETWORKS.values(), ids=NETWORKS)
def test_mirrored_images_get_the_same_answer_once_trained(
    network_class: type[CNN] | type[Wide],
) -> None:
    network = network_class(*Shape(), dropout=0.0, mirror=True)
    images = torch.rand(20, 1, 28, 28)
    assert not torch.allclose(network(images), network(images.flip(-1)))

    network.eval()
    assert torch.allclose(network(images), network(images.flip(-1)), atol=1e-5)
