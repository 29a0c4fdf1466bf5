#include "gguf/rope_numbers.hpp"

#include <cmath>

#include <hf/json_config.hpp>

namespace hansa::gguf {
namespace {

using nn::RopeSettings;

struct Writing {
  hf::JsonConfig& json;
  const RopeSettings& settings;
  RopeFactors factors;
  RopeNumbers out;

  void real(const char* key, double value) { out.numbers.emplace_back(key, static_cast<float>(value)); }
  void count(const char* key, double value) { out.numbers.emplace_back(key, static_cast<std::uint32_t>(value)); }
  [[noreturn]] void refuse(const char* supported) {
    json.refuse(json.has("rope_scaling") ? "rope_scaling" : "rope_parameters", supported);
  }
  void stretched(const char* type, double factor) {
    out.numbers.emplace_back("rope.scaling.type", std::string(type));
    real("rope.scaling.factor", factor);
  }

  void operator()(std::monostate) {}
  void operator()(const RopeSettings::Linear& linear) { stretched("linear", linear.factor); }
  void operator()(const RopeSettings::Dynamic&) {
    out.remarks.emplace_back(
        "llama.cpp has no dynamic rope scaling: up to the context length of the file nothing changes");
  }
  void operator()(const RopeSettings::Llama3&) {
    if (factors != RopeFactors::OneTable) refuse("default, linear, yarn");
    auto plain = settings;
    plain.scaling = {};
    const auto wanted = nn::rope_frequencies(settings), unscaled = nn::rope_frequencies(plain);
    std::vector<float> by;
    for (std::int64_t i = 0; i < wanted.numel(); ++i)
      by.push_back(unscaled.const_data_ptr<float>()[i] / wanted.const_data_ptr<float>()[i]);
    out.extra.emplace_back("rope_freqs.weight", std::move(by));
  }
  void operator()(const RopeSettings::Yarn& yarn) {
    // llama.cpp rounds to whole dimensions and infers the magnitude from the factor, always.
    const double inferred = yarn.factor <= 1 ? 1 : 0.1 * std::log(yarn.factor) + 1;
    if (!yarn.truncate || std::abs(settings.magnitude - inferred) > 1e-6)
      refuse("yarn without truncate = false, attention_factor, mscale");
    stretched("yarn", yarn.factor);
    count("rope.scaling.original_context_length", yarn.original_max_positions);
    real("rope.scaling.yarn_beta_fast", yarn.beta_fast);
    real("rope.scaling.yarn_beta_slow", yarn.beta_slow);
  }
  void operator()(const RopeSettings::LongRope& longrope) {
    if (factors != RopeFactors::ShortAndLong) refuse("default, linear, yarn, llama3");
    count("rope.scaling.original_context_length", longrope.original_max_positions);
    real("rope.scaling.attn_factor", settings.magnitude);
    const auto table = [&](const char* name, const std::vector<double>& by) {
      out.extra.emplace_back(name, std::vector<float>(by.begin(), by.end()));
    };
    table("rope_factors_long.weight", longrope.long_factor);
    table("rope_factors_short.weight", longrope.short_factor);
    out.remarks.emplace_back(
        "llama.cpp chooses the long rope factors by the context it is started with, not by a text's length: start it "
        "with a context of at most original_max_position_embeddings for shorter texts");
  }
};

}  // namespace

RopeNumbers rope_numbers(hf::JsonConfig& json, const nn::RopeSettings& settings, RopeFactors factors) {
  Writing writing{json, settings, factors, {}};
  writing.real("rope.freq_base", settings.theta);
  writing.count("rope.dimension_count", static_cast<double>(settings.dim));
  std::visit(writing, settings.scaling);
  return std::move(writing.out);
}

}  // namespace hansa::gguf
