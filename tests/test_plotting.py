"""Every way of drawing puts on the axes what it says, computed again by hand; nothing here is looked at."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from signal_drift import plotting

SPECTRUM = np.array([3.0, -1.0, 0.5, 2.0])


@pytest.fixture
def panel():
    return Figure().subplots()


def drawn(panel):
    return panel.lines[0].get_xydata()


def brightness(color):
    return float(np.dot(to_rgb(color), (0.2126, 0.7152, 0.0722)))


def test_panels_have_their_size_and_one_title():
    figure, axes = plotting.panels(3, "One title", height=4.0, width=5.0, rows=2)
    assert len(axes) == 6
    assert tuple(figure.get_size_inches()) == (15.0, 8.0)
    title = figure.get_suptitle()
    assert title == "One title"
    assert not axes[0].spines["top"].get_visible()
    assert axes[0].spines["left"].get_visible()
    one, (only,) = plotting.panels(1, "")
    assert tuple(one.get_size_inches()) == (5.2, 4.2)
    assert one.axes == [only]


def test_shades_darken_in_order_and_leave_out_both_ends():
    light = [brightness(color[:3]) for color in plotting.shades(5)]
    assert len(light) == 5
    assert light == sorted(light, reverse=True)
    lightest, darkest = (mpl.colormaps["inferno_r"](x) for x in (0.18, 0.9))
    assert np.allclose(plotting.shades(5)[0], lightest)
    assert np.allclose(plotting.shades(5)[-1], darkest)


def test_colours_of_the_objects_differ():
    assert len(set(plotting.COLOR.values())) == len(plotting.COLOR)


def test_zero_threshold_is_n_eps_norm():
    assert plotting.zero_threshold(SPECTRUM) == 4 * 2.0**-52 * 3.0
    assert plotting.zero_threshold(-10 * SPECTRUM) == 4 * 2.0**-52 * 30.0


def test_sorted_spectrum_descends_over_the_middle_of_each_share(panel):
    plotting.draw_sorted(panel, SPECTRUM, color="k")
    assert drawn(panel).tolist() == [[0.125, 3.0], [0.375, 2.0], [0.625, 0.5], [0.875, -1.0]]
    assert panel.lines[0].get_color() == "k"


def test_density_has_the_share_of_every_bin_as_its_area(panel):
    spectrum = np.concatenate([np.linspace(-2, 3, 200), np.zeros(50)])
    plotting.draw_density(panel, spectrum, 1e-3)
    density, edges, _ = panel.patches[0].get_data()
    assert np.nansum(density * np.diff(edges)) == pytest.approx(1, rel=1e-12)
    middle = len(density) // 2
    assert edges[middle : middle + 2].tolist() == pytest.approx([-1e-3, 1e-3], rel=1e-12)
    assert density[middle] * 2e-3 == pytest.approx(50 / 250, rel=1e-12)
    assert edges[[0, -1]].tolist() == pytest.approx([-4.5, 4.5], rel=1e-12)
    assert len(edges) == 120
    assert np.isnan(density).any()  # an empty bin is a gap and no zero


def test_density_of_a_spectrum_below_its_threshold_still_has_bins(panel):
    plotting.draw_density(panel, 1e-9 * SPECTRUM, 1.0)
    density, edges, _ = panel.patches[0].get_data()
    assert edges[[0, -1]].tolist() == pytest.approx([-10.0, 10.0], rel=1e-12)
    assert np.nansum(density * np.diff(edges)) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("which", ["x", "y"])
def test_symlog_axis_is_linear_below_its_threshold_and_has_ticks_on_both_sides(panel, which):
    (panel.set_ylim if which == "y" else panel.set_xlim)(-20.0, 2000.0)
    plotting.symlog(panel, which, 1e-4)
    axis = getattr(panel, f"{which}axis")
    assert axis.get_scale() == "symlog"
    assert axis.get_transform().linthresh == 1e-4
    assert axis.get_ticklocs().tolist() == pytest.approx([-1.0, -1e-2, 0.0, 1e-2, 1.0, 100.0])
    other = panel.xaxis if which == "y" else panel.yaxis
    assert other.get_scale() == "linear"


def test_symlog_axis_has_as_many_decades_between_ticks_as_asked(panel):
    panel.set_ylim(-1.0, 1e4)
    plotting.symlog(panel, "y", 1e-8, 4)
    assert panel.get_yticks().tolist() == pytest.approx([-1.0, -1e-4, 0.0, 1e-4, 1.0, 1e4])


def test_logarithmic_axes_have_their_bases_and_labels(panel):
    plotting.log_axis(panel, "α", "λ")
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("α", "λ")
    assert (panel.xaxis.get_transform().base, panel.yaxis.get_transform().base) == (2, 10)
    plotting.log_axis(panel, "m", "s", log_x=4, log_y=2)
    assert (panel.xaxis.get_transform().base, panel.yaxis.get_transform().base) == (4, 2)


def test_long_title_is_wrapped_into_the_figure() -> None:
    figure, _ = plotting.panels(1, "words of a title " * 8)
    figure.draw_without_rendering()
    (title,) = figure.texts
    assert title.get_window_extent().x1 <= figure.bbox.x1
