"""Views of every width and size, and that a model always sees one and the same input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.data.worlds import load_town
from core.errors import SettingError
from core.evaluation.answers import DescribedTown
from core.evaluation.queries import Queries
from core.localization.answer import Models
from core.localization.localizer import Localizer
from core.photos.views import canvas_bins, fill_canvas, ground_batch
from core.training import sampling
from core.training.sampling import Batch, to_model_views

GREY = 127 / 255


def canvas(n_bins: int) -> np.ndarray:
    return np.full((128, 16 * n_bins, 3), 90, np.uint8)


def test_canvas_must_be_whole_bins():
    assert canvas_bins(np.zeros((64, 256, 3))) == 32
    with pytest.raises(SettingError, match="100 x 128"):
        canvas_bins(np.zeros((128, 100, 3)))
    with pytest.raises(SettingError, match="expected 1 to 32"):
        canvas_bins(np.zeros((128, 1024, 3)))


def test_batch_for_a_global_model_is_a_whole_canvas_with_the_photo_in_the_middle():
    batch = ground_batch([canvas(5)], (128, 512), whole=True)
    assert batch.shape == (1, 3, 128, 512)
    photo = torch.full((80,), 90 / 255)
    torch.testing.assert_close(batch[0, 0, 5, 216:296], photo)
    torch.testing.assert_close(batch[0, 0, 5, :216], torch.full((216,), GREY))
    torch.testing.assert_close(batch[0, 0, 5, 296:], torch.full((216,), GREY))
    assert ground_batch([canvas(5)] * 3, (64, 256)).shape == (3, 3, 64, 40)


@pytest.mark.parametrize("size", [(112, 616), (320, 640), (32, 128), (224, 1232), (48, 80)])
@pytest.mark.parametrize("n_bins", [1, 5, 31, 32])
def test_a_global_model_gets_its_own_size_whatever_that_is(size, n_bins):
    batch = ground_batch([canvas(n_bins)], size, whole=True)
    assert batch.shape == (1, 3, *size)
    shown = (batch[0, 0, 0] - 90 / 255).abs() < 1e-6
    assert shown.sum() == n_bins * size[1] // 32
    # In the middle, to the pixel.
    assert abs(int(shown.nonzero().min()) - (size[1] - 1 - int(shown.nonzero().max()))) <= 1


def test_a_full_canvas_is_left_as_it_is():
    views = torch.rand(2, 3, 4, 8)
    assert torch.equal(fill_canvas(views, 8), views)


def test_training_evaluation_and_answers_see_one_view(
    tiny_world, tiny_global_gallery, tiny_global_student, monkeypatch
):
    student, n_bins, seen = tiny_global_student, 17, []
    describe = student.describe_ground

    def remember(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return describe(images)

    monkeypatch.setattr(student, "describe_ground", remember)
    crop = np.random.default_rng(0).integers(0, 255, (128, 16 * n_bins, 3), dtype=np.uint8)
    Localizer(tiny_global_gallery, student).locate(crop, fov_deg=n_bins * 11.25)
    described = DescribedTown(load_town(tiny_world), tiny_global_gallery, Models(student))
    described.answers(Queries(crop[None], n_bins, np.zeros((1, 2)), np.zeros(1)))

    monkeypatch.setattr(sampling, "soften", lambda images, *_: images)
    one = Batch(
        views=crop[None],
        seen=np.ones((1, 128, 16 * n_bins), np.bool_),
        tiles=np.zeros((1, 128, 128, 3), np.uint8),
        true_columns=np.zeros(1, np.int64),
        true_shifts=np.zeros(1, np.float32),
        ignored=np.zeros((1, 1), np.bool_),
    )
    sizes = student.ground_size, student.aerial_size
    trained, _ = to_model_views(one, *sizes, torch.Generator(), strength=0.0, whole=True)

    answered, evaluated = seen
    assert answered.shape == (1, 3, 64, 256)
    assert torch.equal(evaluated, answered)
    torch.testing.assert_close(trained, answered)
    assert (answered[..., :60] == GREY).all()
