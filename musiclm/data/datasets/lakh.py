"""The Lakh MIDI Dataset."""

from .base import Dataset

DATASET = Dataset(
    name="lakh",
    title="Lakh MIDI Dataset v0.1: 176,581 files of all kinds",
    licence="CC BY 4.0 (the collection); many of the songs are copyrighted",
    address="https://colinraffel.com/projects/lmd/",
    citation="Raffel: Learning-Based Methods for Comparing Sequences, Columbia University 2016",
    note="build from lmd_full.tar.gz; transcriptions of unknown origin, many of them copies of each other or damaged",
)
