"""Carrying runs out, from a command to records: on this machine, or queued on a cluster.

planning       which runs, of which seeds, with which settings and folders: `Task`
running        `referee run`, `probe`, `demo`: here and now; publishing
side_by_side   several at a time on the cores of this machine
scheduling     `referee run --on`: an array of jobs, preempted and requeued
calls          `referee runs`: what became of each of them
locks          one process a run
cost           `referee cost`: time and memory, before anything is queued
memory         what a run needed
fetching       `referee fetch`: data and weights, for machines without a network
timeboxed      as many runs as fit into a lent hour of a GPU
"""
