// Text from a model, token by token, with a cache of keys and values and a seeded sampler. Called by `hansa generate` and the
// quickstart's report, on the training thread. Throws Error when the prompt does not fit the model.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include <hansa/model.hpp>
#include <hansa/tokenizer.hpp>

namespace hansa {

struct GenerateOptions {
  std::int64_t max_tokens = 64;  // new ones; fewer where the model's longest sequence or its end token comes first
  double temperature = 1;        // 0: always the likeliest token
  double top_p = 1;              // sample among the likeliest tokens that together have this probability
  std::uint64_t seed = 0;        // the same seed gives the same text
};

// The generated text, without the prompt. `on_text` gets it piece by piece, each valid UTF-8.
std::string generate(Model&, const Tokenizer&, std::string_view prompt, const GenerateOptions&,
                     const std::function<void(std::string_view)>& on_text = {});

}  // namespace hansa
