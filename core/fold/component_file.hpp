// The states of a pipeline's components (momentum of an adaptive clip, a selector's memory) as one file beside a version.
// Round thread, between rounds. Stateless components take no room. Throws Error.
#pragma once
#include <filesystem>
#include <map>
#include <string>

#include <hansa/component.hpp>

#include "base/file.hpp"

namespace hansa::fold {

class ComponentStates {
 public:
  void save(const std::string& name, const Component&);
  void load(const std::string& name, Component&) const;  // throws when the file has no state of that name
  bool has(std::string_view name) const { return states_.contains(std::string(name)); }

  void write(const std::filesystem::path&, Durability) const;  // also when empty: a restart must find what was saved
  static ComponentStates read(const std::filesystem::path&);

 private:
  struct State {
    std::uint32_t version = 0;
    std::map<std::string, at::Tensor, std::less<>> tensors;
    std::map<std::string, std::string, std::less<>> bytes;
  };
  class Writer;
  class Reader;
  std::map<std::string, State> states_;
};

}  // namespace hansa::fold
