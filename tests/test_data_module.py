"""Splits, orders and batches."""

from types import SimpleNamespace

import pytest
import torch

from mnist_lit.data.augment import Augment
from mnist_lit.data.loaders import CPU, EpochShuffle, ResumableLoader
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError

META = torch.device("meta")  # a device that is everywhere: tensors without contents


@pytest.fixture(scope="module")
def data(data_dir: object) -> MNISTDataModule:
    module = MNISTDataModule()
    module.setup()
    return module


def _labels_in_order(data: MNISTDataModule, epoch: int = 0) -> list[int]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return torch.cat([labels for _, labels in loader]).tolist()


def test_split_is_disjoint_and_complete(data: MNISTDataModule) -> None:
    train, val = data.images("train").indices, data.images("val").indices

    assert (len(train), len(val)) == (55_000, 5_000)
    assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(60_000))


def test_split_depends_on_its_own_seed_alone(data: MNISTDataModule) -> None:
    torch.manual_seed(99)
    same, other = MNISTDataModule(), MNISTDataModule(split_seed=1)
    same.setup()
    other.setup()

    assert torch.equal(same.images("val").indices, data.images("val").indices)
    assert not torch.equal(other.images("val").indices, data.images("val").indices)


def test_split_is_the_same_on_every_machine(data: MNISTDataModule) -> None:
    """The figures in the README belong to these validation images."""
    assert data.images("val").indices[:5].tolist() == [1, 3, 47, 49, 80]


def test_every_test_image_comes_once(data: MNISTDataModule) -> None:
    images = torch.cat([images for images, _ in data.test_dataloader()])

    assert torch.equal(images, data.images("test").pixels)


def test_batches_are_floats_from_0_to_1(data: MNISTDataModule) -> None:
    raw, labels = next(iter(data.train_dataloader()))
    images, _ = data.on_after_batch_transfer((raw, labels), dataloader_idx=0)

    assert images.shape == (100, 1, 28, 28)
    assert images.dtype == torch.float32
    assert (images.min().item(), images.max().item()) == (0, 1)


@pytest.mark.parametrize(("epoch", "warped"), [(0, True), (2, True), (3, False)])
def test_last_epochs_show_the_images_as_they_are(
    data: MNISTDataModule, epoch: int, warped: bool
) -> None:
    training = SimpleNamespace(
        global_rank=0, world_size=1, training=True, current_epoch=epoch, max_epochs=4
    )
    module = MNISTDataModule(augment=Augment(rotate_deg=20), augment_until=0.75)
    module.trainer = training  # type: ignore[assignment]
    raw, labels = next(iter(data.train_dataloader()))
    images, _ = module.on_after_batch_transfer((raw, labels), dataloader_idx=0)

    assert torch.equal(images, raw / 255) is not warped


def test_what_is_no_digit_is_of_all_classes_alike(data: MNISTDataModule) -> None:
    module = MNISTDataModule(negatives=0.1)
    module.trainer = SimpleNamespace(
        global_rank=0, world_size=1, training=True, current_epoch=0, max_epochs=4
    )  # type: ignore[assignment]
    raw, labels = next(iter(data.train_dataloader()))
    images, shares = module.on_after_batch_transfer((raw, labels), dataloader_idx=0)

    assert torch.equal(shares[:10], torch.full((10, 10), 0.1))
    assert torch.equal(shares[10:].argmax(dim=1), labels[10:])
    assert torch.equal(shares[10:].amax(dim=1), torch.ones(90))
    assert torch.equal(images[10:], raw[10:] / 255)
    assert (images[:10] != raw[:10] / 255).flatten(1).any(dim=1).all()


def test_only_training_images_get_other_styles(data: MNISTDataModule) -> None:
    module = MNISTDataModule(styles=1.0)
    raw, labels = next(iter(data.train_dataloader()))
    changed = {}
    for training in (True, False):
        module.trainer = SimpleNamespace(training=training, current_epoch=0, max_epochs=4)  # type: ignore[assignment]
        images, same_labels = module.on_after_batch_transfer((raw, labels), dataloader_idx=0)
        changed[training] = (images != raw / 255).flatten(1).any(dim=1)
        assert torch.equal(same_labels, labels)

    assert changed[True].tolist() == [label in (1, 7, 9) for label in labels.tolist()]
    assert not changed[False].any()


@pytest.mark.parametrize("option", ["styles", "negatives"])
def test_what_is_for_digits_is_refused_for_clothes(option: str) -> None:
    with pytest.raises(UserError, match=r"data\.styles and data\.negatives are for digits"):
        MNISTDataModule(dataset="fashion_mnist", **{option: 0.1})  # type: ignore[arg-type]


def test_every_epoch_has_its_order_and_every_seed_too(data: MNISTDataModule) -> None:
    torch.manual_seed(1)
    first, second = _labels_in_order(data, epoch=0), _labels_in_order(data, epoch=1)
    torch.manual_seed(1)
    again = _labels_in_order(data, epoch=0)
    torch.manual_seed(2)
    other_seed = _labels_in_order(data, epoch=0)

    assert first == again
    assert len({tuple(order[:50]) for order in (first, second, other_seed)}) == 3
    assert sorted(first) == sorted(second)


def test_interrupted_epoch_goes_on_with_the_next_batch(data: MNISTDataModule) -> None:
    torch.manual_seed(1)
    whole = [labels.tolist() for _, labels in data.train_dataloader()]
    interrupted = data.train_dataloader()
    iterator = iter(interrupted)
    for _ in range(7):
        next(iterator)
    resumed = data.train_dataloader()
    resumed.load_state_dict(interrupted.state_dict())

    assert [labels.tolist() for _, labels in resumed] == whole[7:]
    expected = {"num_images": 55_000, "seed": 1, "epoch": 1, "batches_done": 0}
    assert resumed.state_dict() == expected


def test_statistics_are_those_of_the_training_images(data: MNISTDataModule) -> None:
    train = data.images("train")
    pixels = train.images[train.indices].double() / 255

    assert data.mean == pytest.approx(pixels.mean().item(), rel=1e-6)
    assert data.std == pytest.approx(pixels.std().item(), rel=1e-6)


def test_more_validation_images_than_there_are(data_dir: object) -> None:
    with pytest.raises(UserError, match="there are 60000 images"):
        MNISTDataModule(val_size=70_000).setup()


def test_images_on_another_device_come_in_the_same_batches(data: MNISTDataModule) -> None:
    """Batches are gathered where the images are: no step copies anything from the host."""
    images = data.images("train")
    here, there = (EpochShuffle(len(images), 100, seed=1, device=d) for d in (CPU, META))

    moved, moved_labels = images.to(META)[next(iter(there))]
    positions = next(iter(here))

    assert moved.device == moved_labels.device == META
    assert moved.shape == (100, 1, 28, 28)
    assert torch.equal(images.to(CPU)[positions][0], images[positions][0])
    assert torch.equal(images.to(CPU)[positions][1], images[positions][1])


def test_training_resumes_on_no_other_number_of_images(data: MNISTDataModule) -> None:
    images = data.images("val")
    first, other = (
        ResumableLoader(images, EpochShuffle(size, 100, seed=1), batch_size=None)
        for size in (500, 600)
    )
    first.load_state_dict(first.state_dict())

    with pytest.raises(UserError, match="500 images, and there are 600 now"):
        other.load_state_dict(first.state_dict())
