"""The picture of what DualRep does: it is drawn, its words lie inside of it and do not cross each other."""

from itertools import combinations
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from hub_cards.overview import INPUTS, PICTURE, TOWERS, USES, overview_figure, save_overview


def test_its_words_are_whole_and_apart() -> None:
    figure = overview_figure()
    renderer = FigureCanvasAgg(figure).get_renderer()
    (axes,) = figure.axes
    texts = [text for text in axes.texts if text.get_text()]
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in texts}
    assert len(boxes) == len(texts) == 2 * 9 + 3
    assert {word for titles in (INPUTS, TOWERS, USES) for title in titles for word in title} <= set(boxes)
    width, height = figure.canvas.get_width_height()
    for word, box in boxes.items():
        assert box.x0 > 0 and box.y0 > 0 and box.x1 < width and box.y1 < height, word
    for (word, box), (other_word, other) in combinations(boxes.items(), 2):
        assert not box.overlaps(other), (word, other_word)


def test_the_kept_picture_is_the_one_that_is_drawn(tmp_path: Path) -> None:
    save_overview(tmp_path / "overview.png")
    with Image.open(PICTURE) as kept, Image.open(tmp_path / "overview.png") as drawn:
        assert kept.size == drawn.size and len(kept.convert("L").getcolors(256)) > 50
