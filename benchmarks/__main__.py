"""python -m benchmarks [fit_overhead batch_stream likelihood_bound vae_pythae flows_peers referee_check …]"""

import argparse
import importlib
import importlib.util

from common.errors import nearest

NEEDS = {  # benchmark -> the peers that it needs
    "vae_pythae": ("pythae",),
    "flows_peers": ("zuko", "nflows", "normflows"),
    "diffusion_peers": ("denoising_diffusion_pytorch", "diffusers"),
}
NAMES = (
    *("fit_overhead", "batch_stream", "likelihood_bound", "vae_pythae"),
    *("pixelcnn_sampling", "flows_peers", "diffusion_peers"),
    *("referee_check", "referee_status", "site_build"),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"which to run: {', '.join(NAMES)} (all)")
    names = parser.parse_args().names or NAMES
    for name in names:
        if name not in NAMES:
            parser.error(f"unknown benchmark '{name}'.{nearest(name, NAMES)} There are: {', '.join(NAMES)}.")
    for name in names:
        needed = NEEDS.get(name, ())
        if missing := [peer for peer in needed if importlib.util.find_spec(peer) is None]:
            print(
                f"\n{name}: skipped, not installed here: {', '.join(missing)}; 'make bench' makes .venv-peers for it."
            )
            continue
        measured = importlib.import_module(f"benchmarks.{name}").main()
        measured.show()
        print(f"  kept in {measured.keep(('torch', 'numpy', *needed))}")


if __name__ == "__main__":
    main()
