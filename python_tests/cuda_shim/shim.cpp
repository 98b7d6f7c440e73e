#include "runtime_api.h"

#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <torch/library.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#ifndef __x86_64__
#error "the shim's switch between fibers is written for x86-64"
#endif

namespace shim {
namespace {

// Saves what a call must preserve on the old stack and goes on on the new one.
extern "C" void sa_shim_switch(void** save, void* load);
asm(R"(
.text
.globl sa_shim_switch
.type sa_shim_switch,@function
sa_shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size sa_shim_switch,.-sa_shim_switch
)");

enum class State { ready, block_barrier, warp_barrier, done };

constexpr int64_t stack_bytes = 96 * 1024, guard_bytes = 256;

struct Fiber {
  State state = State::ready;
  void* stack_pointer = nullptr;
  Place place;
  uint64_t brought = 0;
};

struct Block {
  std::vector<Fiber> fibers;
  std::unique_ptr<unsigned char[]> stacks;
  std::vector<uint64_t> shared;
  void* host_stack = nullptr;
  size_t running = 0;
  const std::function<void()>* kernel = nullptr;
};

thread_local Block* block = nullptr;

Fiber& self() { return block->fibers[block->running]; }

void leave(State state) {
  self().state = state;
  sa_shim_switch(&self().stack_pointer, block->host_stack);
}

void fiber_main() {
  (*block->kernel)();
  leave(State::done);
  std::abort();  // a finished fiber is never resumed
}

void start(Fiber& fiber, unsigned char* stack) {
  auto top = reinterpret_cast<uintptr_t>(stack + stack_bytes) & ~uintptr_t(15);
  auto* frame = reinterpret_cast<void**>(top) - 8;  // six registers, the address to return to, alignment
  std::fill(frame, frame + 8, nullptr);
  frame[6] = reinterpret_cast<void*>(&fiber_main);
  fiber.stack_pointer = frame;
  fiber.state = State::ready;
}

// Lets the fibers [begin, end) go on if all that are not done wait for `state`.
bool release(State state, size_t begin, size_t end) {
  bool waiting = false;
  for (size_t i = begin; i < end; ++i) {
    const State at = block->fibers[i].state;
    if (at != state && at != State::done) return false;
    waiting |= at == state;
  }
  for (size_t i = begin; i < end; ++i)
    if (block->fibers[i].state == state) block->fibers[i].state = State::ready;
  return waiting;
}

bool release_warps() {
  bool released = false;
  for (size_t warp = 0; warp < block->fibers.size(); warp += 32)
    released |= release(State::warp_barrier, warp, std::min(warp + 32, block->fibers.size()));
  return released;
}

bool all_done() {
  return std::all_of(block->fibers.begin(), block->fibers.end(), [](const Fiber& f) { return f.state == State::done; });
}

// Runs the ready fibers of all warps but one; whether there was any.
bool run_ready(const std::vector<size_t>& order, size_t but) {
  bool any = false;
  for (size_t i : order) {
    if (block->fibers[i].state != State::ready || i / 32 == but) continue;
    any = true;
    block->running = i;
    sa_shim_switch(&block->host_stack, block->fibers[i].stack_pointer);
  }
  return any;
}

// With a schedule, one warp at a time is left behind: it runs when no other can, as far apart as barriers allow.
void run_block(std::vector<size_t>& order, std::minstd_rand& random) {
  const size_t nobody = order.size(), warps = (order.size() + 31) / 32;
  size_t behind = nobody;
  while (true) {
    if (settings().schedule != 0) {
      std::shuffle(order.begin(), order.end(), random);
      if (random() % 64 == 0) behind = random() % warps;
    }
    if (run_ready(order, behind) || run_ready(order, nobody)) {
      release_warps();
      continue;
    }
    if (release_warps()) continue;
    if (all_done()) return;
    if (!release(State::block_barrier, 0, block->fibers.size()))
      throw std::runtime_error("cuda shim: a barrier that not all threads of the block reach");
  }
}

void prepare(Block& b, dim3 grid, dim3 at, int threads, int64_t shared) {
  std::fill(b.shared.begin(), b.shared.end(), ~uint64_t(0));  // NaN in every type
  for (int i = 0; i < threads; ++i) {
    Fiber& fiber = b.fibers[size_t(i)];
    start(fiber, b.stacks.get() + i * stack_bytes);
    fiber.place = {dim3(unsigned(i)), at, dim3(unsigned(threads)), grid,
                   reinterpret_cast<unsigned char*>(b.shared.data())};
    fiber.place.thread.y = fiber.place.thread.z = 0;
  }
}

void check_guard(const Block& b, int64_t shared) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(b.shared.data());
  for (int64_t i = shared; i < shared + guard_bytes; ++i)
    if (bytes[i] != 0xFF) throw std::runtime_error("cuda shim: a write behind the end of shared memory");
}

}  // namespace

Settings& settings() {
  static Settings instance;
  return instance;
}

Recorder& recorder() {
  static Recorder instance;
  return instance;
}

Place& place() { return self().place; }

void block_barrier() { leave(State::block_barrier); }
void warp_barrier() { leave(State::warp_barrier); }

uint64_t exchange(uint64_t value, int from_lane) {
  self().brought = value;
  warp_barrier();  // all have brought theirs
  const size_t from = block->running / 32 * 32 + size_t(from_lane);
  const uint64_t out = block->fibers.at(from).brought;
  warp_barrier();  // all have taken theirs
  return out;
}

void record(const void* kernel, const cudaLaunchConfig_t& config) {
  Dl_info info{};
  dladdr(kernel, &info);
  recorder().lines += std::string(info.dli_sname == nullptr ? "?" : info.dli_sname);
  for (int64_t n : {int64_t(config.grid.x), int64_t(config.grid.y), int64_t(config.grid.z), int64_t(config.block.x),
                    int64_t(config.shared)})
    recorder().lines += ' ' + std::to_string(n);
  recorder().lines += '\n';
}

int& current_device() {
  thread_local int device = 0;
  return device;
}

cudaStream_t current_stream() {
  static const char streams[2] = {};
  return &streams[current_device()];
}

namespace {

constexpr int64_t shared_by_default = 48 * 1024, most_threads = 1024, most_blocks_along_x = (int64_t(1) << 31) - 1,
                  most_blocks_beside = 65535;

// What each kernel was allowed on each device.
struct Allowed {
  std::mutex mutex;
  std::map<std::pair<const void*, int>, int64_t> bytes;
};

Allowed& allowed() {
  static Allowed instance;
  return instance;
}

}  // namespace

cudaError_t allow_shared(const void* kernel, int bytes) {
  if (bytes > settings().shared_limit) return "more shared memory than the device has";
  const std::lock_guard<std::mutex> lock(allowed().mutex);
  int64_t& before = allowed().bytes[{kernel, current_device()}];
  if (bytes < before) return "less shared memory than another host thread may be launching this kernel with";
  before = bytes;
  return "";
}

cudaError_t refused(const void* kernel, const cudaLaunchConfig_t& config) {
  const dim3 grid = config.grid, threads = config.block;
  if (current_device() != device_of_tensors) return "the tensors are on another device than the current one";
  if (config.stream != current_stream()) return "a launch on another stream than the current one";
  if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > most_blocks_along_x || grid.y > most_blocks_beside ||
      grid.z > most_blocks_beside)
    return "a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " + std::to_string(grid.z);
  if (threads.x < 1 || threads.y != 1 || threads.z != 1 || threads.x > most_threads || threads.x % 32 != 0)
    return "a block of " + std::to_string(threads.x) + " threads";
  const std::lock_guard<std::mutex> lock(allowed().mutex);
  const auto found = allowed().bytes.find({kernel, current_device()});
  const int64_t bytes = int64_t(config.shared),
                limit = std::max(shared_by_default, found == allowed().bytes.end() ? 0 : found->second);
  return bytes > limit ? std::to_string(bytes) + " bytes of shared memory, allowed " + std::to_string(limit) : "";
}

void run_grid(dim3 grid, int threads, int64_t shared, const std::function<void()>& kernel) {
  if (shared > settings().shared_limit)
    throw std::runtime_error("cuda shim: " + std::to_string(shared) + " bytes of shared memory asked for");
  const int64_t blocks = int64_t(grid.x) * grid.y * grid.z;
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    Block mine;
    mine.fibers.resize(size_t(threads));
    mine.stacks.reset(new unsigned char[size_t(threads) * stack_bytes]);
    mine.shared.resize(size_t(shared + guard_bytes + 7) / 8);
    mine.kernel = &kernel;
    std::vector<size_t> order(static_cast<size_t>(threads));
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::minstd_rand random(unsigned(settings().schedule));
    block = &mine;
    for (int64_t b = begin; b < end; ++b) {
      const dim3 at(unsigned(b % grid.x), unsigned(b / grid.x % grid.y), unsigned(b / grid.x / grid.y));
      prepare(mine, grid, at, threads, shared);
      run_block(order, random);
      check_guard(mine, shared);
    }
    block = nullptr;
  });
}

}  // namespace shim

TORCH_LIBRARY_FRAGMENT(sampling_argmax_shim, m) {
  m.def("settings(int multiprocessors, int shared_limit, int schedule, int perturbation=0) -> ()",
        [](int64_t multiprocessors, int64_t shared_limit, int64_t schedule, int64_t perturbation) {
          shim::settings() = {multiprocessors, shared_limit, schedule, perturbation};
        });
  m.def("record_launches(bool on) -> str", [](bool on) {
    std::string lines;
    std::swap(lines, shim::recorder().lines);
    shim::recorder().on = on;
    return lines;
  });
}
