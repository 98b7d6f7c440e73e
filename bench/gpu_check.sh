#!/usr/bin/env bash
# Everything that needs a GPU, in one command and less than 10 minutes: build, tests, compute-sanitizer, benchmarks.
# Needs PyTorch with CUDA, nvcc, ninja, pytest, numpy, scipy; no network. Results go to $OUT, or to bench/results.
set -uo pipefail
cd "$(dirname "$0")/.."
out="${OUT:-bench/results}"
python="${PYTHON:-python3}"
failed=()

run() { # run NAME COMMAND...: keeps going, remembers what failed, keeps the log
  local name="$1" start=$SECONDS
  shift
  echo "== $name"
  "$@" 2>&1 | tee "$out/$name.log" | tail -n 15
  local status=${PIPESTATUS[0]}
  echo "== $name: exit $status, $((SECONDS - start)) s"
  ((status == 0)) || failed+=("$name")
}

export MAX_JOBS="${MAX_JOBS:-$(nproc)}"
export TORCH_CUDA_ARCH_LIST="${TORCH_CUDA_ARCH_LIST:-$("$python" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())')}"
# Triton's kernels need no build of ours and their compiler one core a process, so they go first, beside the build.
triton_tests() {
  local pids=() status=0
  for part in none uniform triangular gaussian "not (none or uniform or triangular or gaussian)"; do
    "$python" -m pytest -q --tb=short --show-capture=no -p no:cacheprovider \
      python_tests/test_triton.py python_tests/test_contract.py -k "triton and ($part)" &
    pids+=($!)
  done
  "$python" -m bench.sanitize triton &
  pids+=($!)
  for pid in "${pids[@]}"; do wait "$pid" || status=1; done
  return $status
}
triton_tests >"$out/triton.log" 2>&1 &
triton=$!
run build "$python" setup.py build_ext --inplace
run doctor "$python" -m sampling_argmax_cuda
run tests "$python" -m pytest -q -x --tb=short --show-capture=no -p no:cacheprovider \
  python_tests/test_contract.py python_tests/test_cuda.py -k "cuda and not cuda_shim or test_cuda"
for tool in memcheck racecheck initcheck synccheck; do
  run "sanitizer-$tool" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout 80 compute-sanitizer --tool "$tool" --error-exitcode=1 "$python" -m bench.sanitize
done
echo "== triton, begun before the build"
wait "$triton" || failed+=("triton")
tail -n 15 "$out/triton.log"
run sanitizer-triton env PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout 80 compute-sanitizer --error-exitcode=1 "$python" -m bench.sanitize triton
run bench "$python" -m bench.run --device cuda --shapes coco h36m --rounds 5 --out "$out/cuda.csv"
run roofline "$python" -m bench.roofline --out "$out/roofline.csv"

if ((${#failed[@]})); then
  echo "failed: ${failed[*]}"
  exit 1
fi
echo "all passed; results in $out"
