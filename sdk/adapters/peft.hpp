// PEFT's directory of an adapter (adapter_config.json, adapter_model.safetensors), written and read so that no key and no tensor
// is ignored by accident; and our own directory, for kinds that PEFT does not know (hansa_adapter.json beside the same tensors
// file). One thread. Throws Error naming file, key or tensor.
#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <hansa/model.hpp>
#include <hf/json_config.hpp>

namespace hansa::hf {
class SafetensorsFile;
}

namespace hansa::adapters {

struct Whole {  // a module trained whole: PEFT's modules_to_save. [out, in] whatever the checkpoint stores
  Module module;
  at::Tensor weight, bias;  // bias undefined where the module has none
};
using NumberPattern = std::vector<std::pair<std::string, double>>;  // ends of module names, the first that fits counts

class PeftWriter {
 public:
  // `type`: "LORA". `all`: the model's modules.
  PeftWriter(std::string_view type, std::span<const Module> all, const std::string& base);
  ~PeftWriter();
  void set(std::string_view key, std::int64_t);
  void set(std::string_view key, double);  // 16, not 16.0
  void set(std::string_view key, std::string_view text);
  void set(std::string_view key, const std::vector<std::string>&);
  void set(std::string_view key, const NumberPattern&);
  void flag(std::string_view key, bool);
  void null(std::string_view key);
  // target_modules and, where a module of GPT-2's layout is among them, fan_in_fan_out.
  void targets(const std::vector<std::string>& modules);
  void tensor(const std::string& name, const at::Tensor&);  // the name as it stands in the file
  // "base_model.model.<module>.<what>"; of adapters that put tokens before a text "base_model.<module>.<what>".
  void tensor(const Module&, std::string_view what, const at::Tensor&);
  // What is trained whole, and of a classifier the head: PEFT saves it with every adapter. Then both files.
  void finish(const std::filesystem::path& directory, const Model&, std::span<const Whole>);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

class PeftReader {
 public:
  // `adapter` is who reads, in messages. Marks the keys that all types share.
  PeftReader(const std::filesystem::path& directory, std::string adapter, std::span<const Module> all);
  ~PeftReader();
  hf::JsonConfig& config();
  NumberPattern pattern(const char* key);
  bool has(const Module&, std::string_view what) const;
  at::Tensor take(const Module&, std::string_view what, std::vector<std::int64_t> shape);  // fp32
  at::Tensor take(const std::string& name, std::vector<std::int64_t> shape);               // -1: as stored
  bool has(const std::string& name) const;
  // After all of the adapter's own: what is trained whole. Throws when a key or a tensor is left over.
  std::vector<Whole> finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Of the checkpoint at `base`, which config.json says; none where it does not.
std::optional<std::int64_t> attention_heads_of(const std::string& base);

// "LORA" of a directory that holds both files; empty of others. Does not throw.
std::string peft_type_of(const std::filesystem::path& directory);
bool peft_flag_of(const std::filesystem::path& directory, std::string_view key);  // false when absent

double value_for(const NumberPattern&, const std::string& module, double otherwise);

// ---- our own directory

using Settings = std::map<std::string, std::string>;
struct Own {
  Settings settings;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
};
inline constexpr std::string_view kOwnFile = "hansa_adapter.json";
void write_own(const std::filesystem::path& directory, std::string_view adapter, const std::string& base, const Own&);
Own read_own(const std::filesystem::path& directory, std::string_view adapter);
// The adapter that wrote a directory; empty where there is no such file. Does not throw.
std::string own_adapter_of(const std::filesystem::path& directory);
// Beside PEFT's files: another adapter than the first that reads them.
void sign(const std::filesystem::path& directory, std::string_view adapter, const std::string& base);

}  // namespace hansa::adapters
