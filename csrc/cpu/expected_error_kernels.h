// No include guard (see foreach_isa.h): expected_error builds on the sums of sample.
#include "cpu/sample_kernel.h"
#include "distance.h"
#include "cpu/expected_error_kernel.h"
