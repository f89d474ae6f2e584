"""Make musiclm/chorales.zip from Jsb16thSeparated.json: four-track MIDI files, official split, the same bytes each time.

python recipes/make_chorales.py Jsb16thSeparated.json -o musiclm/chorales.zip
"""

import argparse
import json
import zipfile
from pathlib import Path

import numpy as np

from musiclm import midi, tokenizers
from musiclm.tokenizers.grid import FIRST_PITCH, SILENCE

SPLITS = {"train": "train", "valid": "validation", "test": "test"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("musiclm/chorales.zip"))
    arguments = parser.parse_args()
    grid = tokenizers.create("grid")
    count = cells_in_all = 0
    with zipfile.ZipFile(arguments.output, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for theirs, ours in SPLITS.items():
            for i, piece in enumerate(json.loads(arguments.source.read_text())[theirs]):
                cells = np.array(piece).ravel()
                ids = np.where(cells < 0, SILENCE, cells + FIRST_PITCH)
                data = midi.to_bytes(grid.decode(ids))
                again = grid.encode(midi.parse(data, ours))[0][1:-1]
                assert np.array_equal(again, ids), f"{ours} {i} does not come back"
                archive.writestr(
                    zipfile.ZipInfo(f"{ours}/{i:03d}.mid", (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED
                )
                count, cells_in_all = count + 1, cells_in_all + len(ids)
    print(f"{arguments.output}: {count} chorales, {cells_in_all} cells, {arguments.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
