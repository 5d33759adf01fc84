#!/usr/bin/env bash
# Everything that needs a GPU, in one command, on a machine that reaches no network and has torch and pytest's needs only
# as wheels in .whl/ (fetched beforehand on a machine that does: benchmarks/gpu.sh wheels).
#
#   benchmarks/gpu.sh wheels     fetch the wheels for Python 3.12 on x86-64 into .whl/
#   benchmarks/gpu.sh [OUT]      install them beside the system's torch, run the GPU tests and the GPU benchmarks that
#                                still lack a figure, and put logs and results into OUT (default: benchmarks/results)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

wheels="gymnasium farama-notifications box2d==2.3.10 pygame-ce stable-baselines3 sb3-contrib tensorboard
tensorboard-data-server absl-py grpcio protobuf markdown werkzeug pydantic pydantic-core annotated-types typing-inspection
tyro docstring-parser typeguard safetensors psutil ale-py hypothesis sortedcontainers pytest iniconfig pluggy pyyaml
cloudpickle pillow"

if [ "${1-}" = wheels ]; then
    platforms=()
    for platform in manylinux_2_39 manylinux_2_35 manylinux_2_34 manylinux_2_31 manylinux_2_28 manylinux_2_27 \
        manylinux_2_24 manylinux_2_17 manylinux2014 manylinux1; do
        platforms+=(--platform "${platform}_x86_64")
    done
    # One by one: pip then takes each one's newest wheel without asking for what it needs.
    for wheel in $wheels; do
        python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
            "${platforms[@]}" -d .whl "$wheel"
    done
    du -sh .whl
    exit
fi

out=${1:-benchmarks/results}
mkdir -p "$out"
site=$(mktemp -d)
python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" .whl/*.whl
export PYTHONPATH=$PWD:$site PYTHONUNBUFFERED=1
python3 -c 'import torch; assert torch.cuda.is_available(), "no CUDA device"; print(torch.cuda.get_device_name(), torch.__version__)'

python3 -m pytest -q -m gpu tests 2>&1 | tee "$out/gpu-tests.log"

# A first figure: does Atari train on the GPU, and at what rate. The learning curves come with the flagship agent.
runs=$(mktemp -d)
timeout 300 python3 -m agent.cli.main train atari/pong --device cuda --steps 60000 --game.num-games 64 \
    --evaluation.interval-steps 0 --checkpoint.interval-steps 0 --runs-dir "$runs" 2>&1 | tee "$out/gpu-pong.log"
python3 -m agent.cli.main doctor --json | tail -n 1 >"$out/gpu-doctor.json"
