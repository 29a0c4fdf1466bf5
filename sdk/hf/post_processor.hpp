// The post_processor part of tokenizer.json, as far as it concerns ids: what stands before and after a single text, as
// "[CLS] text [SEP]". Templates of pairs of texts are not read. Immutable: any thread. Throws Error naming what it does not
// support.
#pragma once
#include <cstdint>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace hansa::hf {

struct AroundText {
  std::vector<std::int64_t> before, after;
};

AroundText read_post_processor(const nlohmann::json& part);

}  // namespace hansa::hf
