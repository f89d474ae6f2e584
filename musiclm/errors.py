"""The exceptions a user can meet.

    MusicLMError            caught in one place, cli/app.py, which prints it and exits with 1
    ├── MidiError           a file is not MIDI that can be read, or holds no notes
    ├── TokenizerError      no such tokenizer, or one that cannot express what was asked
    ├── CorpusError         no music where it was looked for
    ├── CheckpointError     no such checkpoint, a damaged one, or one of another project
    ├── AudioError          a file is not audio that can be read, or holds no note
    ├── RunError            a training run that cannot be started or gone on with
    └── OutputError         a place that cannot be written, or would be overwritten

A wrong argument of a function is a `ValueError`, as everywhere in Python. A message names the thing, the value and the
way out.
"""


class MusicLMError(Exception):
    """The world is wrong: a file, a checkpoint, a name. The message is one line and says what to do."""


class MidiError(MusicLMError):
    """A file is not MIDI that can be read, or holds no notes."""


class TokenizerError(MusicLMError):
    """No such tokenizer, or one that cannot express what was asked."""


class CorpusError(MusicLMError):
    """No music where it was looked for."""


class CheckpointError(MusicLMError):
    """No such checkpoint, a damaged one, or one of another project."""


class AudioError(MusicLMError):
    """A file is not audio that can be read, or holds no note."""


class RunError(MusicLMError):
    """A training run that cannot be started or gone on with."""


class OutputError(MusicLMError):
    """A place that cannot be written, or would be overwritten."""
