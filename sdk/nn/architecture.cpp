#include "nn/architecture.hpp"

namespace hansa::nn {

std::string Architecture::embedding(std::string name, std::int64_t rows, std::int64_t width) {
  plan.modules.push_back({.name = name, .kind = Module::Kind::Embedding, .in = rows, .out = width});
  return name;
}

std::string Architecture::linear(std::string name, std::int64_t in, std::int64_t out, Bias bias, Stored stored) {
  plan.modules.push_back(
      {.name = name, .in = in, .out = out, .bias = bias == Bias::With, .stored_transposed = stored == Stored::InOut});
  return name;
}

std::string Architecture::attention(std::string name, const Heads& heads) {
  plan.modules.push_back({.name = name, .kind = Module::Kind::Attention, .in = heads.key_value, .out = heads.dim});
  return name;
}

NormSpec Architecture::norm(NormSpec::Form form, std::string name, std::int64_t width, double epsilon) {
  plan.modules.push_back(
      {.name = name, .kind = Module::Kind::Norm, .in = width, .out = width, .bias = form == NormSpec::Form::Layer});
  return {.form = form, .module = std::move(name), .epsilon = epsilon};
}

void Architecture::tied_head(std::string stored_name) {
  plan.head = spec.embedding.tokens;
  plan.unused.push_back(stored_name + ".weight");
}

void Architecture::own_head(std::string name, std::int64_t width) {
  plan.modules.push_back({.name = name, .kind = Module::Kind::Head, .in = width, .out = plan.vocabulary});
  plan.head = std::move(name);
}

}  // namespace hansa::nn
