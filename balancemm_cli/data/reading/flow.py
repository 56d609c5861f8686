"""Optical flow: the motion of every pixel from one picture to the next, computed by OpenCV (extra `flow`)."""

from typing import Any

import numpy as np

from balancemm_cli.errors import InputError

LIMIT = 20.0  # pixels; the published flow of UCF-101 is clipped there, and larger motion is rare at 25 fps


def load_opencv(method: str) -> Any:  # noqa: ANN401 - a module
    """OpenCV, bound to one thread, with all that "tv-l1" or "dis" needs. InputError where it is absent."""
    try:
        import cv2

        opencv: Any = cv2
        if method == "tv-l1":
            opencv.optflow.DualTVL1OpticalFlow_create  # noqa: B018 - only in the contributed modules
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"Optical flow by {method} needs OpenCV with its contributed modules ({error}). "
            "Install them: `pip install 'balancemm-cli[flow]'`."
        ) from None
    opencv.setNumThreads(1)  # the work is parallel over clips
    return opencv


def compute(first: np.ndarray, second: np.ndarray, method: str) -> np.ndarray:
    """The motion from one picture to the next, both uint8 RGB [H, W, 3]: float32 [H, W, 2] in pixels, to the
    right and down.

    "tv-l1" is DualTVL1OpticalFlow with OpenCV's own settings, "dis" DISOpticalFlow with its medium ones.
    """
    cv2 = load_opencv(method)
    if method == "tv-l1":
        algorithm = cv2.optflow.DualTVL1OpticalFlow_create()
    else:
        algorithm = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (first, second)]
    return algorithm.calc(*grey, None)


def as_picture(motion: np.ndarray) -> np.ndarray:
    """Motion in pixels [...] as uint8: −20 … 20 is 0 … 255, and no motion is 128 (127.5, rounded)."""
    return np.rint((np.clip(motion, -LIMIT, LIMIT) + LIMIT) * (255 / (2 * LIMIT))).astype(np.uint8)
