"""The average of a model's weights, against ema-pytorch: one update after each training step.

Both follow the same model for the same updates with the same constant decay, and have to end with the same weights.
ema-pytorch does without `use_foreach` unless it is told; both ways are measured. It keeps its count of steps in a
tensor and goes through the model's names at every update; buffers that are floating-point numbers it averages, where
ours copies them: no statistic of batches is averaged twice.
"""

import copy

import torch
from torch import nn

from benchmarks.measure import Agreement, Result, Row, Setting, Target, take_turns
from common.training import EMA
from projects.ddpm import ddpm

DECAY, UPDATES = 0.999, 200
OURS = "common.training.EMA"
LOOP, FOREACH = "ema-pytorch", "ema-pytorch, use_foreach"


def models() -> dict[str, nn.Module]:
    """A U-Net of many small tensors, and a perceptron of few large ones."""
    torch.manual_seed(0)
    unet = ddpm.build(ddpm.Config(dataset="mnist", base=32, multipliers=(1, 2, 2), blocks=2, dropout=0.0))
    layers = [nn.Sequential(nn.Linear(1024, 1024), nn.Tanh()) for _ in range(6)]
    return {"U-Net, base 32": unet, "perceptron, six layers of 1024": nn.Sequential(*layers)}


def theirs(model: nn.Module, use_foreach: bool) -> nn.Module:
    from ema_pytorch import EMA as Theirs

    how = {"beta": DECAY, "min_value": DECAY, "update_after_step": 0, "update_every": 1}
    found = Theirs(model, use_foreach=use_foreach, include_online_model=False, **how)
    found.update()  # the first one copies the model's weights
    return found  # type: ignore[no-any-return]


def difference(model: nn.Module, updates: int = 20) -> float:
    """The largest one of two averages' weights after some updates of a model that moves."""
    moving = copy.deepcopy(model)
    averages = [EMA(moving, DECAY, warmup=False), theirs(moving, False), theirs(moving, True)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(updates):
        with torch.no_grad():
            for p in moving.parameters():
                p.add_(torch.randn(p.shape, generator=generator).to(p.device), alpha=0.01)
        for average in averages:
            average.update()
    ours, *others = (
        nn.utils.parameters_to_vector(a.model.parameters() if isinstance(a, EMA) else a.ema_model.parameters())
        for a in averages
    )
    return max(float((ours - other).abs().max()) for other in others)


def main(setting: Setting) -> Result:
    device, updates = setting.device, setting.size(UPDATES, 2)
    result = Result("ema_peers", "One update of the averaged weights", device=device)
    for title, model in models().items():
        model = model.to(device)
        averages = {OURS: EMA(model, DECAY, warmup=False), LOOP: theirs(model, False), FOREACH: theirs(model, True)}

        def work(name: str, averages: dict[str, EMA | nn.Module] = averages) -> int:
            for _ in range(updates):
                averages[name].update()  # type: ignore[operator]
            return updates

        tensors = list(model.parameters())
        row = Row(
            title,
            "updates/s",
            OURS,
            take_turns({name: (lambda n=name, w=work: w(n)) for name in averages}, setting.turns(9), device=device),
            {LOOP: "ema-pytorch", FOREACH: "ema-pytorch"},
            f"the same {len(tensors)} tensors of {sum(p.numel() for p in tensors):,} numbers, float32, decay {DECAY}",
            Agreement("largest difference of an averaged weight after 20 updates", difference(model), 1e-6),
            Target(1.0),
            "The perceptron's update is bounded by memory, which all wait for.",
        )
        result.rows.append(row)
    return result
