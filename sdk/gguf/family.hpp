// What a family of models is called in GGUF: its architecture's name and numbers, its tensors' names, and how rows lie there.
// The table stands in family.cpp; nothing else knows a family. Called by exports, one thread. Throws Error: for a family that
// is not in the table by its name, for a config.json of which llama.cpp would compute something else by the key.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/writer.hpp"

namespace hansa::gguf {

enum class Change : std::uint8_t {
  None,
  QueryRows,   // of each query head: from halves that turn together to neighbours that do
  KeyRows,     // the same for key heads
  PlusOne,     // a norm that multiplies by 1 + weight
  Transposed,  // stored [in, out]
};

struct Placed {      // a module's tensor in the file
  std::string name;  // "blk.3.attn_q"
  Change change = Change::None;
};

struct Description {
  std::string architecture;
  Metadata numbers;                                               // keys with the architecture's name before them
  std::vector<std::pair<std::string, std::vector<float>>> extra;  // tensors that no module has
  std::int64_t query_heads = 0, key_value_heads = 0, vocabulary = 0;
  std::vector<std::string> remarks;  // what llama.cpp does otherwise, for the user

  // Of "model.layers.3.self_attn.q_proj". Throws for a module that the family has no place for.
  Placed place(std::string_view module) const;

 private:
  friend Description describe(const std::filesystem::path&);
  std::size_t family_ = 0;
};

Description describe(const std::filesystem::path& checkpoint);  // reads config.json

}  // namespace hansa::gguf
