// Refuses what cannot be computed. Python sees a std::invalid_argument as a ValueError.

#pragma once

#include <sstream>
#include <stdexcept>

namespace sampling_argmax {

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::invalid_argument(text.str());
}

template <class... Parts>
void check(bool holds, const Parts&... parts) {
  if (!holds) refuse(parts...);
}

}  // namespace sampling_argmax
