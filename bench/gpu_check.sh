#!/usr/bin/env bash
# Everything that needs a GPU, in stages of less than eight minutes, the most valuable first; run it again and it goes on
# with the stages that have not passed on these sources. Needs PyTorch with CUDA, nvcc, ninja, pytest, numpy, scipy; no
# network, no installation.
#
#   bench/gpu_check.sh [--dry-run] [STAGE...]
#
# A stage's log, and of all stages gpu_check.csv, go to $OUT (bench/results): a cut leaves what was done. --dry-run goes
# through every command up to its first call of a device: tests are collected, programs show their help.
set -uo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
out="${OUT:-bench/results}"
limit=470
dry=
[[ "${1:-}" == --dry-run ]] && dry=1 && shift

# Where the tree was copied without its links.
[[ -e sampling_argmax_cuda/reference ]] || ln -s ../reference sampling_argmax_cuda/reference

stages=(build doctor contract timing device sanitizers triton triton_timing)
(($# > 0)) && stages=("$@")
export MAX_JOBS="${MAX_JOBS:-$(nproc)}"

say() { echo "== $*"; }

tests() { # tests SELECTION FILE...: without a stop at the first failure
  local selection="$1"
  shift
  "$python" -m pytest -q --tb=short --show-capture=no -p no:cacheprovider ${dry:+--collect-only} "$@" -k "$selection"
}

program() { # program MODULE ARGUMENT...
  if [[ $dry ]]; then "$python" -m "$1" --help; else "$python" -m "$@"; fi
}

sanitizer() { # sanitizer TOOL BACKEND: every operator at small shapes
  if [[ $dry ]]; then
    program bench.sanitize
    return
  fi
  local found
  found="$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | tail -n 1)"
  [[ $found ]] || { echo "compute-sanitizer is neither on PATH nor in /usr/local/cuda*/bin"; return 1; }
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$found" --tool "$1" --error-exitcode=1 "$python" -m bench.sanitize "$2"
}

at_once() { # at_once COMMAND... -- COMMAND...: each in a process of its own; fails if one does
  local pids=() command=() status=0
  for word in "$@" --; do
    if [[ "$word" == -- ]]; then
      "${command[@]}" &
      pids+=($!)
      command=()
    else
      command+=("$word")
    fi
  done
  for pid in "${pids[@]}"; do wait "$pid" || status=1; done
  return $status
}

stage_build() {
  [[ $dry ]] && { "$python" setup.py --version && return; }
  "$python" - <<'PYTHON' || return 1
import torch
print("torch", torch.__version__, "CUDA", torch.version.cuda, torch.cuda.get_device_name(), torch.cuda.get_device_capability())
PYTHON
  TORCH_CUDA_ARCH_LIST="${TORCH_CUDA_ARCH_LIST:-$("$python" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())')}" \
    SAMPLING_ARGMAX_REQUIRE=cuda "$python" setup.py build_ext --inplace
}

stage_doctor() { "$python" -m sampling_argmax_cuda; }

stage_contract() { tests "cuda and not cuda_shim" python_tests/test_contract.py python_tests/test_clouds.py; }

stage_timing() {
  program bench.run --device cuda --shapes coco h36m --rounds 5 --out "$out/cuda.csv" &&
    program bench.roofline --out "$out/roofline.csv"
}

# What only a device has: every word's logarithm, streams, graphs, bytes, torch.compile.
stage_device() { tests "test_cuda" python_tests/test_cuda.py; }

stage_sanitizers() {
  at_once sanitizer memcheck cuda -- sanitizer racecheck cuda -- sanitizer initcheck cuda -- sanitizer synccheck cuda -- \
    sanitizer memcheck triton
}

# A kernel for every case has to be compiled, .5 s each on one core.
stage_triton() {
  at_once tests "none" python_tests/test_triton.py -- tests "uniform" python_tests/test_triton.py -- \
    tests "triangular" python_tests/test_triton.py -- tests "gaussian" python_tests/test_triton.py -- \
    tests "not (none or uniform or triangular or gaussian)" python_tests/test_triton.py -- \
    tests "triton" python_tests/test_contract.py
}

stage_triton_timing() { program bench.roofline --backend triton --out "$out/roofline.csv"; }

# What the stages are about: a stage that passed on other sources has to pass again.
sources() {
  cat setup.py csrc/*.* csrc/*/*.* sampling_argmax_cuda/*.py sampling_argmax_cuda/_triton/*.py bench/*.* python_tests/*.py \
    2>/dev/null | sha256sum | cut -c1-12
}

record() { # record STAGE STATUS SECONDS
  local file="$out/gpu_check.csv"
  [[ -e "$file" ]] || echo "date,sources,stage,passed,seconds" >"$file"
  echo "$(date -u +%FT%TZ),$digest,$1,$(($2 == 0)),$3" >>"$file"
}

for stage in "${stages[@]}"; do
  declare -F "stage_$stage" >/dev/null || { echo "no stage $stage"; exit 2; }
done
digest="$(sources)"
mkdir -p "$out" build/gpu_check
failed=()
for stage in "${stages[@]}"; do
  passed="build/gpu_check/$stage.$digest"
  if [[ ! $dry && -e "$passed" ]]; then
    say "$stage: passed before"
    continue
  fi
  say "$stage"
  start=$SECONDS
  # In a shell of its own, so that a limit can end all that it started.
  export -f tests program sanitizer at_once "stage_$stage"
  export python out dry
  timeout --kill-after=10 "$limit" bash -uo pipefail -c "stage_$stage" >"$out/gpu_check_$stage.log" 2>&1
  status=$?
  tail -n 15 "$out/gpu_check_$stage.log"
  say "$stage: exit $status, $((SECONDS - start)) s"
  if [[ $dry ]]; then rm "$out/gpu_check_$stage.log"; else record "$stage" "$status" "$((SECONDS - start))"; fi
  if ((status == 0)); then [[ $dry ]] || touch "$passed"; else failed+=("$stage"); fi
done

if ((${#failed[@]})); then
  say "failed: ${failed[*]}"
  exit 1
fi
say "all passed${dry:+ up to the first call of a device}; records in $out"
