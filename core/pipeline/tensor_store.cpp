#include "pipeline/tensor_store.hpp"

#include "base/error.hpp"

namespace hansa::pipeline {
namespace {

constexpr std::string_view kNames = "names";  // one a line; tensors stand under "tensor/<name>"

std::string key_of(const std::string& name) { return "tensor/" + name; }

}  // namespace

void TensorStore::save(StateWriter& to) const {
  std::string names;
  for (const auto& [name, tensor] : tensors_) {
    names += name + "\n";
    to.put(key_of(name), tensor);
  }
  to.put(kNames, names);
}

void TensorStore::load(const StateReader& from, std::uint32_t) {
  tensors_.clear();
  const auto names = from.bytes(kNames);
  for (std::size_t at = 0; at < names.size();) {
    const auto end = names.find('\n', at);
    if (end == std::string::npos) throw Error("the node's kept tensors have a damaged list of names");
    auto name = names.substr(at, end - at);
    tensors_[name] = from.tensor(key_of(name));
    at = end + 1;
  }
}

at::Tensor TensorStore::find(const std::string& name, at::IntArrayRef shape) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end() || !found->second.sizes().equals(shape)) return {};
  return found->second;
}

}  // namespace hansa::pipeline
