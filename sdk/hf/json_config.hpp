// config.json of a checkpoint, read so that no key is ignored by accident: each is honoured (a getter was called for it),
// inert (on a reviewed list, with the reason), or refused by finish(). A model plugin reads all it needs and then calls
// finish(). Null and absent are the same. One thread. Throws Error that names file, key and value.
//
//   JsonConfig config = JsonConfig::read(directory, "llama");
//   const auto hidden = config.required_integer("hidden_size");
//   const auto act = config.choice("hidden_act", "silu", {"silu"});
//   if (auto* scaling = config.object("rope_scaling")) ...
//   config.inert({{"pretraining_tp", "tensor parallelism of the original training"}});
//   config.finish();
#pragma once
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace hansa::hf {

struct InertKey {
  std::string_view key;
  std::string_view why;  // for the reader of the list
};

class JsonConfig {
 public:
  // `architecture` is who refuses, in messages.
  static JsonConfig read(const std::filesystem::path& directory, std::string architecture);
  static JsonConfig parse(std::string_view text, std::string where, std::string architecture);
  ~JsonConfig();
  JsonConfig(JsonConfig&&) noexcept;
  JsonConfig& operator=(JsonConfig&&) noexcept;

  bool has(std::string_view key) const;  // there and not null; does not count as a use
  // Each getter marks its key as honoured, whether it is there or not.
  std::optional<std::int64_t> integer(std::string_view key);
  std::optional<double> real(std::string_view key);
  std::optional<bool> flag(std::string_view key);
  std::optional<std::string> text(std::string_view key);
  std::optional<std::vector<std::int64_t>> integers(std::string_view key);  // a lone number is a list of one
  std::optional<std::vector<double>> reals(std::string_view key);
  std::optional<std::vector<std::string>> texts(std::string_view key);
  JsonConfig* object(std::string_view key);  // null: absent. Belongs to this config, whose finish() covers it

  JsonConfig* whole(std::string_view key);  // the same for the config of a whole model inside another's

  std::int64_t integer(std::string_view key, std::int64_t when_absent);
  double real(std::string_view key, double when_absent);
  bool flag(std::string_view key, bool when_absent);
  std::string text(std::string_view key, std::string_view when_absent);
  std::int64_t required_integer(std::string_view key);
  double required_real(std::string_view key);
  std::string required_text(std::string_view key);
  std::int64_t positive(std::string_view key);                            // required, at least 1
  std::int64_t positive(std::string_view key, std::int64_t when_absent);  // at least 1

  double fraction(std::string_view key, double when_absent);  // 0 to below 1: a dropout
  // Where null means something else than absent: null gives none.
  std::optional<std::int64_t> positive_or_null(std::string_view key, std::int64_t when_absent);
  std::optional<double> real_or_null(std::string_view key, double when_absent);

  // One of the supported values, or "config.json: hidden_act = "gelu_new" is not supported by llama; supported: silu".
  std::string choice(std::string_view key, std::string_view when_absent,
                     std::initializer_list<std::string_view> supported);
  // The key may be there, but only with this value (as JSON: "false", "1", "\"absolute\"").
  void only(std::string_view key, std::initializer_list<std::string_view> json_values);
  [[noreturn]] void refuse(std::string_view key,
                           std::string_view supported) const;  // with the key's value in the message

  void inert(std::initializer_list<InertKey> keys);
  // Throws, naming every key that was neither honoured nor inert.
  void finish() const;

 private:
  struct State;
  explicit JsonConfig(std::unique_ptr<State> state);
  const nlohmann::json* use(std::string_view key);
  template <class Value, class Accept>
  std::optional<Value> get(std::string_view key, std::string_view expected, Accept accept);
  template <class Value, class Accept>
  std::optional<std::vector<Value>> get_list(std::string_view key, std::string_view expected, Accept accept);
  void collect_unused(std::vector<std::string>& into) const;
  [[noreturn]] void missing(std::string_view key) const;
  bool stands(std::string_view key) const;  // be it null
  std::unique_ptr<State> state_;
};

// "model_type" of the config.json in a directory; empty when there is none. Does not throw on files of others.
std::string model_type_of(const std::filesystem::path& directory);

}  // namespace hansa::hf
