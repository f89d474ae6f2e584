"""POP909."""

from .base import Dataset

DATASET = Dataset(
    name="pop909",
    title="POP909: piano arrangements of 909 pop songs, 63 hours; tracks MELODY, BRIDGE and PIANO",
    licence="MIT (the arrangements); the songs are copyrighted",
    address="https://github.com/music-x-lab/POP909-Dataset",
    citation="Wang et al.: POP909: A Pop-Song Dataset for Music Arrangement Generation, ISMIR 2020",
    labels=("beats", "chords", "key"),
    style="pop-piano",
    note="all tracks have program 0; notes lie beside the grid by one shift per song, which a build removes",
)
