"""What every picture is made of."""

import itertools

import numpy as np
import pytest

from tfxformer.figures import COLOURS, bars, figure, name_points, plain_log

# What the colour-blind see, on linear RGB (Machado, Oliveira and Fernandes, 2009, severity 1).
SEEN = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def seen_in_lab(colour, matrix):
    """CIELAB of a colour of sRGB, as it is seen."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(matrix @ linear, 0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_each_bar_has_its_value_and_the_first_is_on_top():
    _, (panel,) = figure(1, (4, 2))
    bars(panel, ["float32", "int8"], [1234.5, 23.0])
    bars(panel, ["float32", "int8"], [84.0, 20.1], form="{:.1f}")  # on the same panel again: still the first on top
    panel.figure.draw_without_rendering()
    assert [text.get_text() for text in panel.texts] == ["1,234", "23.0", "84.0", "20.1"]
    assert panel.yaxis_inverted()


@pytest.mark.parametrize("limits", [(9.0, 95.0), (0.5, 30.0), (1e-7, 1.0)])
def test_log_axes_have_plain_numbers(limits):
    _, (panel,) = figure(1, (6, 3))
    panel.plot(limits, limits)
    plain_log(panel.xaxis)
    panel.figure.draw_without_rendering()
    written = [label.get_text() for label in panel.get_xticklabels(which="both") if label.get_text()]
    low, high = panel.get_xlim()
    assert sum(low <= float(one.replace(",", "")) <= high for one in written) >= 2
    assert not any("$" in one or "^" in one for one in written)


def test_names_of_points_cover_neither_each_other_nor_the_points():
    _, (panel,) = figure(1, (8, 5))
    places = [(1.0, 1.0), (1.01, 1.005), (1.02, 1.0), (2.0, 3.0), (2.01, 3.0)]
    names = ["trimmed vocabulary, 6 heads, 768 neurons, distilled", "float32", "dynamic_int8", "a", "b"]
    panel.plot(*zip(*places, strict=True), "o")
    panel.margins(0.2)
    name_points(panel, places, names)
    panel.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in panel.texts]
    assert [text.get_text().replace("\n", " ") for text in panel.texts] == names
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    points = panel.transData.transform(places)
    assert not any(box.contains(*point) for box in boxes for point in points)


@pytest.mark.parametrize("sight", SEEN)
def test_the_colour_blind_can_tell_the_colours_apart(sight):
    """Matplotlib's own orange and green are 4.6 apart in protanopia."""
    seen = [seen_in_lab(colour, np.array(SEEN[sight])) for colour in COLOURS]
    assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)) > 12
