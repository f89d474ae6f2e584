"""The OpenScore Lieder Corpus."""

from .base import Dataset

DATASET = Dataset(
    name="lieder",
    title="OpenScore Lieder: about 1,460 songs for voice and piano, 51 hours",
    licence="CC0 1.0",
    address="https://github.com/OpenScore/Lieder",
    citation="Gotham, Jonas: The OpenScore Lieder Corpus, Music Encoding Conference 2021",
    labels=("composer", "song cycle", "title"),
    style="lied",
    programs={68: 52},
    note="its scores are MuseScore files: export them as MIDI; the voice is then on the oboe (68), made a choir (52) here",
)
