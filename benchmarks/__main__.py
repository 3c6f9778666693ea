"""Speed, side by side: run some benchmarks, or all, and keep what came out in benchmarks/results/."""

import argparse
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.measure import CPU, Setting
from common.errors import nearest

ROOT = Path(__file__).resolve().parents[1]
ACCELERATOR = torch.device("cuda")
NEEDS = {  # benchmark -> the peers that it needs
    "vae_pythae": ("pythae",),
    "ema_peers": ("ema_pytorch",),
    "iwae_pythae_nll": ("pythae",),
    "frechet_peers": ("torch_fidelity", "torchmetrics", "cleanfid"),
    "kid_peers": ("torch_fidelity", "torchmetrics", "cleanfid"),
    "neighbours_peers": ("torch_fidelity", "prdc"),
    "flows_peers": ("zuko", "nflows", "normflows"),
    "diffusion_peers": ("denoising_diffusion_pytorch", "diffusers"),
}
GPU = ("ema_peers", "likelihood_bound", "iwae_pythae_nll", "flows_peers", "diffusion_peers")  # what also runs on one
OWN = ("referee_check", "referee_status", "site_build", "queue_overhead")  # measured in the project's own environment
NAMES = (
    *("fit_overhead", "batch_stream", "ema_peers", "likelihood_bound", "iwae_pythae_nll", "vae_pythae"),
    *("frechet_peers", "kid_peers", "neighbours_peers"),
    *("pixelcnn_sampling", "flows_peers", "diffusion_peers"),
    *("two_processes", "communication"),
    *OWN,
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"which to run: {', '.join(NAMES)} (all)")
    parser.add_argument("--gpu", action="store_true", help=f"on one GPU: {', '.join(GPU)}")
    parser.add_argument("--quick", action="store_true", help="one short turn each; says that it runs, keeps nothing")
    asked = parser.parse_args(arguments)
    for name in asked.names:
        if name not in NAMES:
            parser.error(f"unknown benchmark '{name}'.{nearest(name, NAMES)} There are: {', '.join(NAMES)}.")
        if asked.gpu and name not in GPU:
            parser.error(f"'{name}' does not run on a GPU. These do: {', '.join(GPU)}.")
    if asked.gpu and not torch.cuda.is_available():
        print(f"There is no GPU that PyTorch {torch.__version__} can use here; nothing was measured.", file=sys.stderr)
        return 2
    setting = Setting(ACCELERATOR if asked.gpu else CPU, asked.quick)
    failed = [name for name in asked.names or (GPU if asked.gpu else NAMES) if not run(name, setting)]
    return 1 if failed else 0


def run(name: str, setting: Setting) -> bool:
    """Run one benchmark and keep what it found. Returns whether it ran to its end, or was skipped with a reason."""
    if name in OWN and importlib.util.find_spec("tyro") is None:
        python = ROOT / ".venv" / "bin" / "python"
        if not python.exists():
            print(f"\n{name}: skipped, it is measured in the project's own environment; 'make setup' makes it.")
            return True
        quick = ["--quick"] if setting.quick else []
        return subprocess.run([python, "-m", "benchmarks", name, *quick], cwd=ROOT).returncode == 0
    if missing := [peer for peer in NEEDS.get(name, ()) if importlib.util.find_spec(peer) is None]:
        print(f"\n{name}: skipped, not installed here: {', '.join(missing)}; 'make bench' makes .venv-peers for it.")
        return True
    module = importlib.import_module(f"benchmarks.{name}")
    if reason := getattr(module, "unavailable", str)():
        print(f"\n{name}: skipped, {reason}")
        return True
    found = module.main(setting)
    found.show()
    if not setting.quick:
        print(f"\n  kept in {found.keep().relative_to(ROOT)}")
    return True


if __name__ == "__main__":
    sys.exit(main())
