"""The Open Hymnal."""

from .base import Dataset

DATASET = Dataset(
    name="openhymnal",
    title="The Open Hymnal: 305 hymns in four voices, 3 hours",
    licence="public domain",
    address="https://openhymnal.org",
    citation="The Open Hymnal Project",
    style="hymn",
)
