"""Polish Music Heritage in Open Access."""

from .base import Dataset

DATASET = Dataset(
    name="polish_scores",
    title="Polish Music Heritage in Open Access: choral, organ, piano and orchestral scores",
    licence="CC BY 4.0",
    address="https://polishscores.org",
    citation="The Fryderyk Chopin Institute, 2019-2022",
    note="its scores are Humdrum files: convert them to MIDI; all notes are equally loud",
)
