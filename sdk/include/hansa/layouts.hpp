// Parts of a layout. Torch-free, pure, any thread.
#pragma once
#include <hansa/types.hpp>

namespace hansa {

// The tensors whose role is one of `roles`, in order; groups keep their kind and scale, lose the other members, and go when
// none is left. `given` has one role per tensor of `layout`.
inline Layout part_of(const Layout& layout, const std::vector<Role>& given, std::initializer_list<Role> roles) {
  constexpr Index kGone = ~Index{0};
  Layout part;
  std::vector<Index> place(layout.tensors.size(), kGone);
  for (Index i = 0; i < layout.tensors.size(); ++i) {
    bool kept = false;
    for (auto role : roles) kept = kept || given.at(i) == role;
    if (!kept) continue;
    place[i] = static_cast<Index>(part.tensors.size());
    part.tensors.push_back(layout.tensors[i]);
  }
  for (const auto& group : layout.groups) {
    Group left{group.kind, {}, group.scale};
    for (auto member : group.members) {
      if (place.at(member) != kGone) left.members.push_back(place[member]);
    }
    if (!left.members.empty()) part.groups.push_back(std::move(left));
  }
  return part;
}

inline const Channel* find_channel(const std::vector<Channel>& channels, std::string_view name) {  // null: none
  for (const auto& channel : channels) {
    if (channel.name == name) return &channel;
  }
  return nullptr;
}

// "model.layers.0.mlp.up_proj" of "model.layers.0.mlp.up_proj.lora_A": what stands before the last dot.
inline std::string_view module_of(std::string_view tensor) {
  const auto dot = tensor.rfind('.');
  return dot == std::string_view::npos ? std::string_view{} : tensor.substr(0, dot);
}

}  // namespace hansa
