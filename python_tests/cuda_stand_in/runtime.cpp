// CUDA's runtime for a machine without a GPU, preloaded before libcudart: two devices whose memory is the host's, whose
// streams run at once, and whose kernels are those that the tests compile for the host (cuda_shim). What a device would
// refuse is refused here; kernels of others (PyTorch's) cannot run and say so.

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

namespace {

constexpr int devices = 2;
constexpr size_t memory = size_t(8) << 30, shared_by_default = 48 * 1024, shared_limit = 227 * 1024;

thread_local int current = 0;
thread_local cudaError_t last = cudaSuccess;

cudaError_t fail(cudaError_t error, const std::string& why) {
  std::fprintf(stderr, "cuda stand-in: %s\n", why.c_str());
  return last = error;
}

struct Block {
  size_t bytes;
  int device;
};

struct State {
  std::mutex mutex;
  std::map<uintptr_t, Block> blocks;
  std::map<const void*, std::string> names;               // of kernels, by the address of their host stub
  std::map<std::pair<const void*, int>, int> attributes;  // shared memory that a kernel was allowed on a device
  std::map<std::string, long> launches;
  const void* stream = nullptr;  // of the last launch
};

State& state() {
  static State* instance = new State;  // outlives the static objects of others
  return *instance;
}

// Runs a kernel, whose name is mangled, on the host; null, or what went wrong.
using Run = const char* (*)(const char* name, const unsigned (&grid)[3], int threads, size_t shared, void** arguments);
std::atomic<Run> run_on_host{nullptr};

bool ours(const std::string& name) { return name.find("sampling_argmax") != std::string::npos; }

std::string refused(const void* kernel, const cudaLaunchConfig_t& c) {
  const dim3 grid = c.gridDim, block = c.blockDim;
  const auto text = [](dim3 d) {
    return std::to_string(d.x) + " x " + std::to_string(d.y) + " x " + std::to_string(d.z);
  };
  if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 0x7FFFFFFFu || grid.y > 65535 || grid.z > 65535)
    return "a grid of " + text(grid);
  const size_t threads = size_t(block.x) * block.y * block.z;
  if (threads < 1 || threads > 1024) return "a block of " + text(block) + " threads";
  const auto found = state().attributes.find({kernel, current});
  const size_t allowed = found == state().attributes.end() ? shared_by_default : size_t(found->second);
  if (c.dynamicSmemBytes > allowed)
    return std::to_string(c.dynamicSmemBytes) + " bytes of shared memory, allowed " + std::to_string(allowed);
  return "";
}

cudaError_t launch(const void* kernel, const cudaLaunchConfig_t& config, void** arguments) {
  std::string name, why;
  {
    const std::lock_guard<std::mutex> lock(state().mutex);
    name = state().names[kernel];
    why = refused(kernel, config);
    ++state().launches[name];
    state().stream = config.stream;
  }
  if (!why.empty()) return fail(cudaErrorInvalidConfiguration, name + ": " + why);
  const Run run = run_on_host;
  if (run == nullptr || !ours(name)) return fail(cudaErrorNoKernelImageForDevice, name + " has no form for the host");
  const unsigned grid[] = {config.gridDim.x, config.gridDim.y, config.gridDim.z};
  const char* error = run(name.c_str(), grid, int(config.blockDim.x), config.dynamicSmemBytes, arguments);
  return error == nullptr ? cudaSuccess : fail(cudaErrorIllegalAddress, name + ": " + error);
}

template <class Function>
Function real(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

// ---- of the tests ----

void stand_in_kernels(Run run) { run_on_host = run; }
int stand_in_current_device() { return current; }
const void* stand_in_last_stream() { return state().stream; }
long stand_in_launches(const char* part) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  long total = 0;
  for (const auto& [name, count] : state().launches) total += name.find(part) == std::string::npos ? 0 : count;
  return total;
}
// The device that owns an address, or -1 for memory of nobody's.
int stand_in_owner(const void* address) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  const auto at = reinterpret_cast<uintptr_t>(address);
  auto next = state().blocks.upper_bound(at);
  if (next == state().blocks.begin()) return -1;
  --next;
  return at < next->first + next->second.bytes ? next->second.device : -1;
}
// The names of our kernels, a line each.
const char* stand_in_names() {
  static std::string text;
  const std::lock_guard<std::mutex> lock(state().mutex);
  text.clear();
  for (const auto& [kernel, name] : state().names)
    if (ours(name)) text += name + "\n";
  return text.c_str();
}

// ---- kernels ----

void __cudaRegisterFunction(void** handle, const char* host, char* device_name, const char* name, int limit,
                            uint3* thread, uint3* block, dim3* block_size, dim3* grid_size, int* warp) {
  {
    const std::lock_guard<std::mutex> lock(state().mutex);
    state().names[host] = device_name;
  }
  real<decltype(&__cudaRegisterFunction)>("__cudaRegisterFunction")(handle, host, device_name, name, limit, thread,
                                                                    block, block_size, grid_size, warp);
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(host));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t shared,
                               cudaStream_t stream) {
  return launch(kernel, {grid, block, shared, stream, nullptr, 0}, arguments);
}
cudaError_t cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void** arguments, size_t shared,
                             cudaStream_t stream) {
  return launch(kernel, {grid, block, shared, stream, nullptr, 0}, arguments);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* kernel, void** arguments) {
  return launch(kernel, *config, arguments);
}
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value > int(shared_limit)) return fail(cudaErrorInvalidValue, "more shared memory than the device has");
  const std::lock_guard<std::mutex> lock(state().mutex);
  state().attributes[{kernel, current}] = value;
  return cudaSuccess;
}

// ---- devices ----

cudaError_t cudaGetDeviceCount(int* count) { return *count = devices, cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { return *device = current, cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= devices) return fail(cudaErrorInvalidDevice, "no such device");
  return current = device, cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { return *can = 0, cudaSuccess; }
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return *least = 0, *greatest = -5, cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 132; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = int(shared_limit); break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = int(shared_by_default); break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    default: *value = 0;
  }
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  std::memset(p, 0, sizeof *p);
  std::strcpy(p->name, "stand-in");
  p->totalGlobalMem = memory, p->major = 9, p->minor = 0, p->multiProcessorCount = 132, p->warpSize = 32;
  p->sharedMemPerBlock = shared_by_default, p->sharedMemPerBlockOptin = shared_limit;
  p->sharedMemPerMultiprocessor = 228 * 1024, p->regsPerMultiprocessor = 65536, p->regsPerBlock = 65536;
  p->maxThreadsPerBlock = 1024, p->maxThreadsPerMultiProcessor = 2048, p->l2CacheSize = 50 << 20;
  p->maxGridSize[0] = 0x7FFFFFFF, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
  return cudaSuccess;
}

// ---- errors ----

cudaError_t cudaGetLastError() {
  const cudaError_t error = last;
  return last = cudaSuccess, error;
}
cudaError_t cudaPeekAtLastError() { return last; }

// ---- memory ----

cudaError_t cudaMalloc(void** out, size_t bytes) {
  *out = std::aligned_alloc(512, (bytes + 511) / 512 * 512);
  if (*out == nullptr) return fail(cudaErrorMemoryAllocation, "no memory");
  std::memset(*out, 0xFF, bytes);  // NaN in every type
  const std::lock_guard<std::mutex> lock(state().mutex);
  state().blocks[reinterpret_cast<uintptr_t>(*out)] = {bytes, current};
  return cudaSuccess;
}
cudaError_t cudaFree(void* block) {
  if (block != nullptr) {
    const std::lock_guard<std::mutex> lock(state().mutex);
    state().blocks.erase(reinterpret_cast<uintptr_t>(block));
  }
  std::free(block);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) { return *free = *total = memory, cudaSuccess; }
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  return std::memcpy(to, from, bytes), cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  return std::memcpy(to, from, bytes), cudaSuccess;
}
cudaError_t cudaMemset(void* at, int value, size_t bytes) { return std::memset(at, value, bytes), cudaSuccess; }
cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t) {
  return std::memset(at, value, bytes), cudaSuccess;
}
cudaError_t cudaHostAlloc(void** out, size_t bytes, unsigned) {
  return *out = std::malloc(bytes), *out == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaFreeHost(void* block) { return std::free(block), cudaSuccess; }
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* out, const void* at) {
  std::memset(out, 0, sizeof *out);
  const int owner = stand_in_owner(at);
  out->type = owner < 0 ? cudaMemoryTypeUnregistered : cudaMemoryTypeDevice;
  out->device = owner < 0 ? 0 : owner;
  out->devicePointer = const_cast<void*>(at);
  return cudaSuccess;
}

// ---- streams and events: all is done when it is asked for ----

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* out, unsigned, int) {
  return *out = static_cast<cudaStream_t>(std::malloc(64)), cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned flags) {
  return cudaStreamCreateWithPriority(out, flags, 0);
}
cudaError_t cudaStreamCreate(cudaStream_t* out) { return cudaStreamCreateWithPriority(out, 0, 0); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return std::free(stream), cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamQuery(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  return *status = cudaStreamCaptureStatusNone, cudaSuccess;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t, cudaStreamCaptureStatus* status, unsigned long long* id,
                                     cudaGraph_t*, const cudaGraphNode_t**, const cudaGraphEdgeData**, size_t* count) {
  *status = cudaStreamCaptureStatusNone;
  if (id != nullptr) *id = 0;
  if (count != nullptr) *count = 0;
  return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*) { return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned) {
  return *out = static_cast<cudaEvent_t>(std::malloc(64)), cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* out) { return cudaEventCreateWithFlags(out, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return std::free(event), cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventRecordWithFlags(cudaEvent_t, cudaStream_t, unsigned) { return cudaSuccess; }
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  return *milliseconds = 1, cudaSuccess;
}

// ---- the driver, of which PyTorch asks only whether a context exists; libcuda.so.1 is this library ----

int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) { return *flags = 0, *active = 1, 0; }
#define DRIVER(name) \
  int name() { return 801; }  // not supported
DRIVER(cuCtxGetCurrent)
DRIVER(cuCtxSetCurrent) DRIVER(cuDeviceGet) DRIVER(cuDeviceGetAttribute) DRIVER(cuDevicePrimaryCtxRetain)
    DRIVER(cuFuncGetAttribute) DRIVER(cuFuncSetAttribute) DRIVER(cuFuncSetCacheConfig) DRIVER(cuGetErrorString)
        DRIVER(cuLaunchCooperativeKernel) DRIVER(cuLaunchKernel) DRIVER(cuLinkAddData_v2) DRIVER(cuLinkComplete)
            DRIVER(cuLinkCreate_v2) DRIVER(cuModuleGetFunction) DRIVER(cuModuleLoad) DRIVER(cuModuleLoadData)
                DRIVER(cuModuleLoadDataEx) DRIVER(cuModuleUnload) DRIVER(cuOccupancyMaxActiveBlocksPerMultiprocessor)
                    DRIVER(cuPointerGetAttribute) DRIVER(cuTensorMapEncodeTiled)
#undef DRIVER

}  // extern "C"
