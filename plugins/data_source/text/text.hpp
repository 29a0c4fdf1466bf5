// Data source `text`: plain text files as rows of tokens. Training thread only.
#pragma once
#include "data/silo_source.hpp"

namespace hansa::text {

using data::Mode;
using data::OnBad;

struct Params {
  std::optional<std::int64_t> length;
  Mode mode = Mode::Pack;
  std::string separator = "%";
  OnBad on_bad = OnBad::Error;
  std::string cache = "auto";
};

class Text final : public data::SiloSource {
 public:
  Text(Params params, Host& host);

 private:
  std::unique_ptr<data::Format> format(const Tokenizer&) const override { return data::text_format(separator_); }
  std::string separator_;
};

}  // namespace hansa::text
