"""The Bach chorales that come with musiclm."""

from .base import Dataset

DATASET = Dataset(
    name="chorales",
    title="JSB Chorales: 382 four-part chorales by J. S. Bach on a grid of sixteenths",
    licence="public domain (the music)",
    address=None,
    citation="Boulanger-Lewandowski, Bengio, Vincent: Modeling Temporal Dependencies in High-Dimensional Sequences, 2012",
    split="229 train, 76 validation, 77 test: folders",
    style="chorale",
    tokenizer="grid",
    note="bundled: commands use it where no data is named; of the test chorales 32 share a tune with a training chorale",
)
