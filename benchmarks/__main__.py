"""python -m benchmarks [fit_overhead batch_stream likelihood_bound vae_pythae referee_check referee_status …]"""

import argparse
import importlib
import importlib.util

from common.errors import nearest

NEEDS = {"vae_pythae": "pythae"}  # benchmark -> the peer that it needs
NAMES = (
    *("fit_overhead", "batch_stream", "likelihood_bound", "vae_pythae"),
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
        needed = NEEDS.get(name)
        if needed and importlib.util.find_spec(needed) is None:
            print(f"\n{name}: skipped, {needed} is not installed here; 'make bench' installs it in .venv-peers.")
            continue
        measured = importlib.import_module(f"benchmarks.{name}").main()
        measured.show()
        print(f"  kept in {measured.keep(('torch', 'numpy', *([needed] if needed else [])))}")


if __name__ == "__main__":
    main()
