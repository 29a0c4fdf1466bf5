#include "fold/component_file.hpp"

#include <fmt/format.h>

#include "fold/packet_file.hpp"
#include "tensor/bridge.hpp"

namespace hansa::fold {

// In the packet: a channel per component with its tensors; its version and byte strings as meta "<name>/<key>".
constexpr std::string_view kVersionKey = "//version";

class ComponentStates::Writer final : public StateWriter {
 public:
  explicit Writer(State& state) : state_(state) {}
  void put(std::string_view key, const at::Tensor& value) override {
    auto copy = aligned_empty(dtype_of(value.scalar_type()), value.sizes());
    copy.copy_(value);
    state_.tensors[std::string(key)] = copy;
  }
  void put(std::string_view key, std::string_view bytes) override { state_.bytes[std::string(key)] = bytes; }

 private:
  State& state_;
};

namespace {

template <class Map>
const auto& at_key(const Map& map, std::string_view key) {
  const auto found = map.find(key);
  if (found == map.end()) throw Error(fmt::format("the saved state has no '{}'", key));
  return found->second;
}

}  // namespace

class ComponentStates::Reader final : public StateReader {
 public:
  explicit Reader(const State& state) : state_(state) {}
  bool has(std::string_view key) const override { return state_.tensors.contains(key) || state_.bytes.contains(key); }
  at::Tensor tensor(std::string_view key) const override { return at_key(state_.tensors, key).clone(); }
  std::string bytes(std::string_view key) const override { return at_key(state_.bytes, key); }

 private:
  const State& state_;
};

void ComponentStates::save(const std::string& name, const Component& component) {
  State state;
  state.version = component.state_version();
  if (state.version == 0) return;
  Writer writer(state);
  component.save(writer);
  states_[name] = std::move(state);
}

void ComponentStates::load(const std::string& name, Component& component) const {
  if (component.state_version() == 0) return;
  const auto found = states_.find(name);
  if (found == states_.end()) throw Error(fmt::format("the checkpoint holds no state of {}", name));
  component.load(Reader(found->second), found->second.version);
}

void ComponentStates::write(const std::filesystem::path& path, Durability durability) const {
  PacketContents contents;
  for (const auto& [name, state] : states_) {
    PacketChannel channel{name, {}};
    for (const auto& [key, tensor] : state.tensors) {
      channel.entries.push_back({key, raw_code(dtype_of(tensor.scalar_type()), tensor.sizes().vec())});
    }
    contents.channels.push_back(std::move(channel));
    contents.meta[name + std::string(kVersionKey)] = std::to_string(state.version);
    for (const auto& [key, bytes] : state.bytes) contents.meta[fmt::format("{}/{}", name, key)] = bytes;
  }
  PacketFileWriter file(path, std::move(contents), durability);
  std::size_t at = 0;
  for (const auto& [name, state] : states_) {
    const auto& entries = file.plan().contents().channels[at++].entries;
    std::size_t entry = 0;
    for (const auto& [key, tensor] : state.tensors) file.put(entries[entry++].code, 0, bytes_of(tensor));
  }
  file.finish();
}

ComponentStates ComponentStates::read(const std::filesystem::path& path) {
  const MappedFile file(path);
  const PacketView view(file.bytes());
  ComponentStates states;
  for (const auto& channel : view.contents().channels) {
    auto& state = states.states_[channel.name];
    for (const auto& entry : channel.entries) state.tensors[entry.name] = view_as_tensor(view, entry.code).clone();
    const auto version = view.meta(channel.name + std::string(kVersionKey));
    if (!version) throw Error(fmt::format("{} names no version for {}", path.string(), channel.name));
    state.version = static_cast<std::uint32_t>(std::stoul(*version));
    const auto prefix = channel.name + "/";
    for (const auto& [key, value] : view.contents().meta) {
      if (key.starts_with(prefix) && !key.ends_with(kVersionKey)) state.bytes[key.substr(prefix.size())] = value;
    }
  }
  return states;
}

}  // namespace hansa::fold
