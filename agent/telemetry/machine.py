"""How much of the machine this process takes: host memory, and of a GPU in use its memory and how busy it is."""

from __future__ import annotations

import ctypes
from contextlib import suppress

import psutil
import torch


class Machine:
    """Reads the machine's figures; of a GPU only what its driver tells."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._driver: tuple[ctypes.CDLL, ctypes.c_void_p] | None = None
        self._asked = False

    def figures(self) -> dict[str, float]:
        """Return memory in GiB and the GPU's utilisation under their TensorBoard tags, without waiting for the GPU."""
        found = {"machine/host_memory_gib": self._process.memory_info().rss / 2**30}
        if torch.cuda.is_initialized():
            found["machine/gpu_memory_gib"] = torch.cuda.memory_reserved() / 2**30
            if not self._asked:
                self._asked, self._driver = True, _driver()
            if self._driver is not None:
                used = (ctypes.c_uint * 2)()  # of the GPU and of its memory bus, in per cent
                driver, device = self._driver
                if driver.nvmlDeviceGetUtilizationRates(device, used) == 0:
                    found["machine/gpu_utilisation"] = used[0] / 100
        return found


def _driver() -> tuple[ctypes.CDLL, ctypes.c_void_p] | None:
    """The management library that comes with the driver, and its handle of torch's GPU; None where it cannot be had.

    Asked directly: for one number a dependency would be one more.
    """
    with suppress(OSError, AttributeError, RuntimeError):
        driver = ctypes.CDLL("libnvidia-ml.so.1")
        device = ctypes.c_void_p()
        uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}".encode()
        if driver.nvmlInit_v2() == 0 and driver.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(device)) == 0:
            return driver, device
    return None
