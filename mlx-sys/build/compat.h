// Force-included before every C++ source.
#pragma once

// mlx-c passes messages as printf formats, so a path or key with "%s" in it reads wild memory.
// Every call in mlx-c 0.7 has the message as its one argument: make it data.
#include "mlx/c/error.h"
#undef mlx_error
#define mlx_error(message) _mlx_error(__FILE__, __LINE__, "%s", message)

// GCC 12 has no <format>; mlx-c uses plain "{}" fields only.
#ifdef PENSIEVE_NEEDS_FORMAT
#include <sstream>
#include <string>
#include <string_view>
namespace std {
inline void pensieve_format(ostringstream& out, string_view text) {
  out << text;
}
template <class Head, class... Tail>
void pensieve_format(
    ostringstream& out,
    string_view text,
    const Head& head,
    const Tail&... tail) {
  auto field = text.find("{}");
  out << text.substr(0, field);
  if (field == string_view::npos)
    return;
  out << head;
  pensieve_format(out, text.substr(field + 2), tail...);
}
template <class... Args>
string format(string_view text, const Args&... args) {
  ostringstream out;
  pensieve_format(out, text, args...);
  return out.str();
}
} // namespace std
#endif
