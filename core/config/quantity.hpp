// Sizes and durations as people write them. Torch-free, pure.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.hpp"

namespace hansa::config {

// "64MiB", "1.5 GB", "512": in bytes. KiB, MiB, GiB, TiB count in 1024, kB, MB, GB, TB in 1000. The failure says what is wrong.
Result<std::int64_t> parse_bytes(std::string_view);
// "10m", "1.5s", "200ms", "2h", "1h30m", "45": in seconds.
Result<double> parse_duration(std::string_view);

std::string bytes_text(double bytes);  // for people: "64 MiB", "1.3 GiB"
std::string exact_bytes_text(
    std::int64_t);                // "64MiB" where it is a whole number of them, else digits; parses back exactly
std::string number_text(double);  // shortest that reads back to the same bits; "1.0" for whole numbers

}  // namespace hansa::config
