// What every kernel uses, in order. No include guard: once for each instruction set (see foreach_isa.h).

// clang-format off
#include "philox.h"
#include "cpu/block.h"
#include "noise.h"
#include "gradient.h"
#include "cpu/row.h"
#include "cpu/dispatch.h"
// clang-format on
