"""The exceptions that a user can meet, and the reasons why a file cannot be used.

    MusicLMError            caught in one place, cli/app.py, which prints it and exits with 1
    ├── MidiError           a file is not readable MIDI, or holds no notes
    ├── TokenizerError      no such tokenizer, or one that cannot express what was asked
    ├── CorpusError         no music in a source, or no such corpus
    ├── CheckpointError     no such checkpoint, a damaged one, or one of another project
    ├── AudioError          a file is not readable audio, or holds no note
    ├── RunError            a training run that cannot be started or resumed
    │   └── DivergedError   a training run whose loss, gradient or weights were not finite
    └── OutputError         an output path that cannot be written, or would be overwritten

A wrong argument of a function is a `ValueError`, as everywhere in Python. A message names the thing, the value and the
way out.
"""

from __future__ import annotations

import dataclasses
import enum
import re


class Reason(enum.Enum):
    """Why a file is not part of a corpus. RIFF, SMPTE, PARSER and MIDI_TIMES are only in corpora that an older reader made.

    Attributes:
        code: what is stored; it never changes.
        text: what is shown; "{detail}" stands for what differs between files.
        is_transient: whether the next build tries the file again, because another machine or moment may read it.
    """

    EMPTY = "empty", "is empty: give a MIDI file"
    RIFF = "riff", "is RIFF MIDI: convert it to a standard MIDI file"
    NOT_MIDI = "not_midi", "is not a MIDI file"
    HEADER_CUT = "header_cut", "is damaged MIDI: it ends within its header"
    HEADER_LENGTH = "header_length", "is damaged MIDI: its header lies about its length"
    SMPTE = "smpte", "has no beats (division …): SMPTE time is not supported"
    TRACK_CUT = "track_cut", "is damaged MIDI: it ends within a track"
    NO_TRACK = "no_track", "is damaged MIDI: it has no track"
    PARSER = "parser", "is damaged MIDI: the parser gave up"
    MIDI_TIMES = "midi_times", "is damaged MIDI: times beyond all bounds"
    NO_NOTES = "no_notes", "holds no notes"
    NOT_ABC = "not_abc", "is not abc: no field X:"
    DAMAGED_ABC = "damaged_abc", "is damaged abc"
    ABC_TIMES = "abc_times", "is damaged abc: times beyond all bounds"
    TOO_MANY_NOTES = "too_many_notes", "has more than {detail} notes"
    TOO_LONG = "too_long", "is longer than {detail} quarters"
    NO_LENGTHS = "no_lengths", "holds no notes with a length"
    TOKENIZER_FAILED = "tokenizer_failed", "cannot be tokenised ({detail})"
    NOT_REGULAR = "not_regular", "is not a regular file"
    TOO_LARGE = "too_large", "is larger than {detail} MB"
    ARCHIVE_DAMAGED = "archive_damaged", "is damaged in its archive: {detail}"
    ENCRYPTED = "encrypted", "is encrypted or packed in an unknown way"
    EXACT_COPY = "exact_copy", "has the same tokens as another file"
    NEAR_COPY = "near_copy", "has the same notes as another file, transposed or at another speed"
    DAMAGED = "damaged", "is damaged MIDI: {detail}"  # behind the reasons whose texts begin like this one
    UNREADABLE = "unreadable", "cannot be read: {detail}", True
    TIME_LIMIT = "time_limit", "took longer than {detail} s", True
    READER_KILLED = "reader_killed", "killed its reader", True
    MEMORY = "memory", "needed more than {detail} GB of memory", True
    OTHER = "other", "{detail}"  # the message of a tokenizer; in an old corpus, a text that is no longer used

    def __init__(self, code: str, text: str, is_transient: bool = False) -> None:
        self.code, self.text, self.is_transient = code, text, is_transient

    @property
    def pattern(self) -> str:
        """The regular expression of the texts that this reason has."""
        return re.escape(self.text).replace(re.escape("{detail}"), "(.*)")


REASONS = {reason.code: reason for reason in Reason}


@dataclasses.dataclass(frozen=True)
class Drop:
    """The reason why one file was dropped, and its detail: a limit, or the message of a library."""

    reason: Reason
    detail: str = ""

    @property
    def text(self) -> str:
        """What is shown, without the file's name."""
        return self.reason.text.replace("{detail}", self.detail)

    @property
    def stored(self) -> str:
        """What is stored: "code", or "code:detail"."""
        return f"{self.reason.code}:{self.detail}" if self.detail else self.reason.code

    @classmethod
    def parse(cls, stored: str) -> Drop:
        """Return the drop of a stored string; also of a text, which corpora stored before there were codes."""
        code, _, detail = stored.partition(":")
        if code in REASONS:
            return cls(REASONS[code], detail)
        for reason in Reason:  # the last one, OTHER, matches any text
            if found := re.fullmatch(reason.pattern, stored, re.DOTALL):
                return cls(reason, "".join(found.groups()))
        raise AssertionError("OTHER matches any text")


class MusicLMError(Exception):
    """Something outside the program is wrong: a file, a checkpoint, a name. The message is one line with a way out."""


class MidiError(MusicLMError):
    """A file is not readable MIDI, or holds no notes.

    Attributes:
        drop: why the file is not part of a corpus; None where the error is not about a whole file.
    """

    def __init__(self, message: str, drop: Drop | None = None) -> None:
        super().__init__(message)
        self.drop = drop


class TokenizerError(MusicLMError):
    """No such tokenizer, or one that cannot express what was asked."""


class CorpusError(MusicLMError):
    """No music in a source, or no such corpus."""


class CheckpointError(MusicLMError):
    """No such checkpoint, a damaged one, or one of another project."""


class AudioError(MusicLMError):
    """A file is not readable audio, or holds no note."""


class RunError(MusicLMError):
    """A training run that cannot be started or resumed."""


class DivergedError(RunError):
    """A training run whose loss, gradient or weights were not finite.

    Attributes:
        what: what was not finite.
        step: the step after which it was so, counted from 1.
    """

    def __init__(self, what: str, step: int, advice: str = "lower the learning rate") -> None:
        super().__init__(f"training diverged: {what} of step {step:,} was not finite; {advice}")
        self.what, self.step = what, step


class OutputError(MusicLMError):
    """An output path that cannot be written, or would be overwritten."""
