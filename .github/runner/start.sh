#!/usr/bin/env bash
# One job of the gpu workflow on one GPU of this machine, in a container that is gone afterwards.
#
#   <a just-in-time configuration> | REFEREE_CACHE=/srv/cache .github/runner/start.sh
#
# The configuration registers a runner for a single job; docs/gpu_runner.md says where it comes from. It is read from
# standard input and handed on in the environment, so that it stands in no list of processes; no token comes here.
#
# REFEREE_CACHE    the folder that `referee fetch --all` has filled; the job sees it, read-only
# RUNNER_GPU       which GPU (default: 0); none: without one, to try the machine
# RUNNER_IMAGE     the image made of the Dockerfile beside this file (default: gpu-runner)
# RUNNER_NETWORK   a network of docker's without a way out (default: gpu-runner)
# RUNNER_PROXY     the one way out, which lets through what proxy.conf lists (default: http://172.30.0.1:3128)
# RUNNER_MEMORY    the most that a job may take (default: 32g)
set -euo pipefail

stop() {
    printf 'start.sh: %s\n' "$1" >&2
    exit 2
}

image=${RUNNER_IMAGE:-gpu-runner}
network=${RUNNER_NETWORK:-gpu-runner}
proxy=${RUNNER_PROXY:-http://172.30.0.1:3128}
cache=${REFEREE_CACHE:-}

[[ -d $cache && $cache == /* && $cache != *,* ]] || stop "REFEREE_CACHE must be the full path of the folder with the data; it is '$cache'."
command -v docker > /dev/null || stop "docker is not installed."
internal=$(docker network inspect --format '{{.Internal}}' "$network") || stop "there is no network '$network'."
[[ $internal == true ]] || stop "the network '$network' has a way out past the proxy. Make it with --internal."
[[ ! -t 0 ]] || stop "a just-in-time configuration is wanted on standard input."
IFS= read -r config || true
[[ $config =~ ^[A-Za-z0-9+/]{40,}=*$ ]] || stop "what came on standard input is no just-in-time configuration."

options=(
    --rm          # nothing is left
    --pull never  # what was built here, and nothing else
    --init
    --env ACTIONS_RUNNER_INPUT_JITCONFIG # the value is taken from the environment
    --env "http_proxy=$proxy"
    --env "https_proxy=$proxy"
    --env "no_proxy=localhost,127.0.0.1" # what a job says to itself
    --network "$network"
    --mount "type=bind,source=$cache,target=/cache,readonly"
    --cap-drop ALL
    --security-opt no-new-privileges
    --pids-limit 4096
    --memory "${RUNNER_MEMORY:-32g}"
    --shm-size 8g # for the processes that load data
)
[[ ${RUNNER_GPU:-0} == none ]] || options+=(--gpus "device=${RUNNER_GPU:-0}")
export ACTIONS_RUNNER_INPUT_JITCONFIG=$config
exec docker run "${options[@]}" "$image"
