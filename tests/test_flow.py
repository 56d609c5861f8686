"""Optical flow against motion that is known."""

import sys
import types

import numpy as np
import pytest
import scipy.ndimage

from balancemm_cli.data.reading import flow
from balancemm_cli.errors import InputError

METHODS = ("tv-l1", "dis")
MARGIN = 16  # pixels at the border, which move in or out of the picture


def texture(right=0, down=0, height=96, width=128):
    """A part of a fixed smooth texture; its content lies `right` and `down` pixels further than in the plain one."""
    noise = np.random.default_rng(0).random((height + 40, width + 40, 3))
    smooth = scipy.ndimage.gaussian_filter(noise, (2, 2, 0))
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return (255 * smooth[20 - down :, 20 - right :][:height, :width]).astype(np.uint8)


def inside(motion):
    return motion[MARGIN:-MARGIN, MARGIN:-MARGIN]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("right", "down"), [(3, -2), (-5, 4)])
def test_a_shifted_texture_moves_by_its_shift(method, right, down):
    found = flow.compute(texture(), texture(right, down), method)
    assert found.shape == (96, 128, 2) and found.dtype == np.float32
    error = np.abs(inside(found) - (right, down))
    assert np.median(error) < 0.1 and np.mean(error) < 0.3


def test_the_methods_agree_with_one_another():
    rows, columns = np.mgrid[:96, :128].astype(float)
    first = texture()
    back = [rows - 2 * np.sin(rows / 20), columns - 3 * np.cos(columns / 30)]  # each part moves differently
    second = np.stack([scipy.ndimage.map_coordinates(first[..., c], back, order=1) for c in range(3)], 2)
    one, two = (flow.compute(first, second, method) for method in METHODS)
    assert np.ptp(inside(one)[..., 0]) > 3
    assert np.mean(np.abs(inside(one) - inside(two))) < 0.3


@pytest.mark.parametrize("method", METHODS)
def test_nothing_moves_between_equal_pictures(method):
    found = flow.compute(texture(), texture(), method)
    assert np.abs(found).max() < 0.05
    assert (flow.as_picture(found) == 128).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_same_pair_gives_the_same_flow_whatever_came_before(method):
    first = flow.compute(texture(), texture(3, 1), method)
    flow.compute(texture(4, 4), texture(), method)
    assert np.array_equal(flow.compute(texture(), texture(3, 1), method), first)


def test_motion_as_a_picture():
    motion = np.array([-100, -20, -1, 0, 1, 20, 100], np.float32)
    assert flow.as_picture(motion).tolist() == [0, 0, 121, 128, 134, 255, 255]


def test_opencv_is_asked_for_where_it_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match=r"by dis needs OpenCV .*pip install 'balancemm-cli\[flow\]'"):
        flow.compute(texture(), texture(), "dis")
    monkeypatch.setitem(sys.modules, "cv2", types.ModuleType("cv2"))  # without the contributed modules
    with pytest.raises(InputError, match=r"by tv-l1 needs OpenCV with its contributed modules.*optflow"):
        flow.load_opencv("tv-l1")
