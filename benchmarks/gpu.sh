#!/usr/bin/env bash
# Everything that needs a GPU, in one command, on a machine that reaches no network and has torch and pytest's needs only
# as wheels in .whl/ (fetched beforehand on a machine that does: benchmarks/gpu.sh wheels).
#
#   benchmarks/gpu.sh wheels            fetch the wheels for Python 3.12 on x86-64 into .whl/
#   benchmarks/gpu.sh [OUT [MINUTES]]   install them beside the system's torch; run the GPU tests once, then the learning
#                                       runs that still lack a figure until MINUTES (9) are over. The open run is saved in
#                                       runs/: the same command goes on from there. Results also go to OUT.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

wheels="gymnasium farama-notifications box2d==2.3.10 pygame-ce stable-baselines3 sb3-contrib tensorboard
tensorboard-data-server absl-py grpcio protobuf markdown werkzeug pydantic pydantic-core annotated-types typing-inspection
tyro docstring-parser typeguard safetensors psutil ale-py hypothesis sortedcontainers pytest iniconfig pluggy pyyaml
cloudpickle pillow cramjam opencv-python-headless onnx onnxruntime ml-dtypes flatbuffers starlette uvicorn
websockets anyio idna h11 click matplotlib contourpy cycler fonttools kiwisolver packaging pyparsing python-dateutil six"

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
ends=$((SECONDS + 60 * ${2:-9}))
mkdir -p "$out"
site=$(mktemp -d)
python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" .whl/*.whl
export PYTHONPATH=$PWD:$site PYTHONUNBUFFERED=1
python3 -c 'import torch; assert torch.cuda.is_available(), "no CUDA device"; print(torch.cuda.get_device_name(), torch.__version__)'

if [ ! -e runs/gpu-tests-passed ]; then
    python3 -m pytest -q -m gpu tests 2>&1 | tee "$out/gpu-tests.log"
    python3 -m agent.cli.main doctor --json | tail -n 1 >"$out/gpu-doctor.json"
    mkdir -p runs && touch runs/gpu-tests-passed
fi

if [ ! -e runs/gpu-speed-measured ]; then # eager beside captured, Nature DQN at batch 32; games beside the learner
    python3 benchmarks/throughput.py --device cuda --here --cores 16 --cases atari/pong --contenders ours-eager ours-captured sb3 \
        --repeats 3 --seconds 8 2>&1 | tee "$out/gpu-throughput.log"
    python3 benchmarks/overlap.py --device cuda --cases atari/pong --game-cores 15 --games 128 \
        --execution captured 2>&1 | tee "$out/gpu-overlap.log"
    touch runs/gpu-speed-measured
    cp -r benchmarks/results/throughput benchmarks/results/overlap "$out/"
fi

# Issue by issue what is asked of a GPU, the cheapest gate first. A run that is finished costs nothing.
learn() { # SUITE GAME ALGORITHM SEEDS
    local left=$(((ends - SECONDS) / 60))
    [ "$left" -lt 1 ] || python3 benchmarks/learning.py run "$1" --games "$2" --algorithms "$3" --seeds $4 \
        --minutes "$left" 2>&1 | tee -a "$out/gpu-learning.log"
}
learn dopamine pong qr-impala "0" # above 15 by 5M frames
for game in breakout boxing pong; do learn dopamine "$game" iqn-impala "0"; done
for game in pong breakout boxing; do learn btr "$game" btr "0"; done # 10M frames beside BTR's 2M, 5M and 10M
for game in breakout pong boxing; do learn btr "$game" short "0"; done
for game in breakout boxing pong; do learn dopamine "$game" iqn-impala "1 2 3 4"; done

cp -r benchmarks/results/learning "$out/" 2>/dev/null || true
