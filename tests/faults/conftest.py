"""Small trainings on generated images, as the tests of training have them."""

from tests.training.conftest import photos, uninterrupted  # noqa: F401
