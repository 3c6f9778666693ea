"""The process around the papers: what was claimed, what came out, how the two compare, and how a reader sees it.

Nothing here imports torch, except the commands that run a paper's code, and those only when they are called.
"""
