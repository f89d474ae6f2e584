"""First Editions of Fryderyk Chopin's Music."""

from .base import Dataset

DATASET = Dataset(
    name="chopin",
    title="First Editions of Fryderyk Chopin's Music: piano scores",
    licence="CC BY 4.0",
    address="https://chopinscores.org",
    citation="The Fryderyk Chopin Institute, 2017-2021",
    style="piano",
    note="its scores are Humdrum files, several editions of a piece: convert one edition of each to MIDI",
)
