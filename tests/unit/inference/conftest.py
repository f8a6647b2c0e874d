"""The tiny model of the model tests, which says what a test wants."""

from tests.unit.models.conftest import base, config, make_model  # noqa: F401
