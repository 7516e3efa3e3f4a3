"""Every way in which a recording can fail, by name; each message is a sentence that says what to do."""


class RecordingError(Exception):
    """A recording that cannot be used; the message names the file and what to do."""


class UnreadableError(RecordingError):
    """The file is no video that FFmpeg or pydicom reads, or may not be read at all."""


class EmptyRecordingError(RecordingError):
    """The file or folder holds nothing: no bytes, or no picture that can be decoded."""


class NoVideoError(RecordingError):
    """There is no video: sound alone, or a folder without a video that can be told."""


class NotARecordingError(RecordingError):
    """A file among the recordings that is none: a single picture, a text, or a link to one that is read."""


class TruncatedError(RecordingError):
    """The file ends before its own header says it does."""


class DamagedError(RecordingError):
    """Bytes inside the file cannot be decoded."""


class DicomError(RecordingError):
    """A DICOM file whose pixels or frame times this project does not read."""


class SidecarError(RecordingError):
    """`scan.json`, `gaze.csv` or `planes.csv` does not hold what it should."""


class TooShortError(RecordingError):
    """The recording is shorter than one clip."""


class MissingSidecarError(RecordingError):
    """There is no `planes.csv` or `gaze.csv`, and what is prepared needs it."""


class NothingKeptError(RecordingError):
    """The recording can be read, but none of it is kept; the message says why."""
