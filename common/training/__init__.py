"""What every training run needs, whatever the paper: the project owns the update, this package the bookkeeping."""

from common.training.device import pick_device, place
from common.training.ema import EMA
from common.training.fit import Hook, fit
from common.training.state import State, Stateful
from common.training.step import sgd_step
from common.training.stop import Interrupted

__all__ = [
    "EMA",
    "Hook",
    "Interrupted",
    "State",
    "Stateful",
    "fit",
    "pick_device",
    "place",
    "sgd_step",
]
