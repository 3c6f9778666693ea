"""Speed, side by side: each module measures ours and a peer in turn, in one process, on the same data.

`python -m benchmarks [name ...]` runs them, prints medians and their ratio, and keeps them in `benchmarks/results/`.
Ratios travel between machines better than times do; still, measure on a quiet machine.
"""
