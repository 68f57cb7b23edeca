"""Small trainings on generated images, as the tests of training have them."""

from tests.training.conftest import images, uninterrupted  # noqa: F401
