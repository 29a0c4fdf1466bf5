// An owner of a HansaValue tree (plugin.h): what the config resolves, what a schema's defaults are, what a component's
// factory gets. Torch-free. A value type: copies are deep, moves keep every HansaValue where it is, so raw() stays valid
// for the life of the value that holds it and until that value is changed. Wrong use (set() on a text) throws
// std::logic_error. Not for sharing between threads while it changes.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <hansa/plugin.h>

namespace hansa {

class Value {
 public:
  Value();  // an empty table
  ~Value();
  Value(const Value&);
  Value(Value&&) noexcept;
  Value& operator=(Value) noexcept;

  static Value boolean(bool);
  static Value integer(std::int64_t);
  static Value real(double);
  static Value text(std::string);
  static Value choice(std::string);
  static Value bytes(std::uint64_t);
  static Value seconds(double);
  static Value path(std::string);
  static Value list(std::vector<Value> = {});
  static Value table(std::vector<std::pair<std::string, Value>> = {});
  // Parameters beside `use`; traits: the component's own, for these parameters.
  static Value component(std::string name, std::vector<std::pair<std::string, Value>> entries = {},
                         std::uint64_t traits = 0);
  static Value copy(const HansaValue&);  // deep

  HansaType type() const;
  const HansaValue& raw() const;
  operator const HansaValue&() const { return raw(); }

  // Lists, tables, components.
  std::size_t size() const;
  const Value& at(std::size_t index) const;
  Value& at(std::size_t index);
  void push_back(Value);  // lists
  // Tables and components; keys keep the order in which they were first set.
  const std::string& key(std::size_t index) const;
  const Value* find(std::string_view key) const;
  Value* find(std::string_view key);
  void set(std::string key, Value);
  bool erase(std::string_view key);

 private:
  struct Node;
  explicit Value(HansaType);
  void relink();
  std::unique_ptr<Node> node_;  // empty only after a move
};

// Reading a tree that somebody else owns.
std::string_view text_of(const HansaValue&);
const HansaValue* find(const HansaValue& table, std::string_view key);  // null when absent
bool equal(const HansaValue&, const HansaValue&);  // same types, same values, tables regardless of order
const char* name_of(HansaType);                    // "integer", "byte size", …

}  // namespace hansa
