// Text from a model, token by token, with a cache of keys and values and a seeded sampler. Called by `hansa generate` and the
// quickstart's report, on the training thread. Throws Error when the prompt does not fit the model.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <hansa/model.hpp>
#include <hansa/tokenizer.hpp>

namespace hansa {

struct GenerateOptions {
  std::int64_t max_tokens = 64;  // new ones; fewer where the model's longest sequence or its end token comes first
  double temperature = 1;        // 0: always the likeliest token
  double top_p = 1;              // sample among the likeliest tokens that together have this probability
  std::uint64_t seed = 0;        // the same seed gives the same text
};

struct Generated {
  std::string text;               // without the prompt
  std::vector<std::int64_t> ids;  // its tokens
  std::int64_t prompt_tokens = 0;
  double first_seconds = 0, seconds = 0;  // until the first token was chosen, and in all
};

// `on_text` gets the text piece by piece, each valid UTF-8.
Generated generate(Model&, const Tokenizer&, std::string_view prompt, const GenerateOptions&,
                   const std::function<void(std::string_view)>& on_text = {});

}  // namespace hansa
