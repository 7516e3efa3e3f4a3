"""The held-out clips that retrieval is measured on, as they are stored."""

from collections.abc import Iterator, Sequence

from datasets_scripts.schema import CLIP_ID
from train.triples import ClipKey, Row, open_clips, read_rows

# More are read anew whenever they are asked for: so many clips of 6 s are some 300 MB in every process.
KEPT_CLIPS = 1000


class StoredGallery:
    """Iterates over the undecoded rows of clips, as often as asked, in one order.

    Args:
        dataset: as `open_clips` takes it.
        config: medium, large, or any other clip length that the set holds.
        split: that the clips are of.
        keys: of all clips of the split, as they are stored.
        chosen: those that are in the gallery.
    """

    def __init__(
        self, dataset: str, config: str, split: str, keys: Sequence[ClipKey], chosen: Sequence[ClipKey]
    ) -> None:
        self.place = dataset, config, split
        self.keys, self.kept = list(chosen), None
        if len(chosen) <= KEPT_CLIPS:
            self.kept = read_rows(*self.place, [key.clip_id for key in chosen])
        else:
            among = set(chosen)
            self.keys = [key for key in keys if key in among]

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Row]:
        if self.kept is not None:
            yield from self.kept
            return
        wanted = {key.clip_id for key in self.keys}
        yield from (row for row in open_clips(*self.place) if row[CLIP_ID] in wanted)

    @property
    def scan_ids(self) -> list[str]:
        """The scan of each row."""
        return [key.scan_id for key in self.keys]
