// No include guard: closes a region opened by target_*_begin.h.
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
